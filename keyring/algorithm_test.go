package keyring

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Names, sizes and limits are part of the API: this is the table as users know it.
const wantTable = `
XAES_256_GCM           ENCRYPT_DECRYPT    256 fips 53
AES_256_GCM            ENCRYPT_DECRYPT    256 fips 41 limited
AES_128_GCM            ENCRYPT_DECRYPT    128 fips 41 limited
CHACHA20_POLY1305      ENCRYPT_DECRYPT    256      41 limited
XCHACHA20_POLY1305     ENCRYPT_DECRYPT    256      53
AES_256_SIV            ENCRYPT_DECRYPT    512      29 deterministic
ECDSA_P256_SHA256      SIGN_VERIFY        256 fips
ECDSA_P384_SHA384      SIGN_VERIFY        384 fips
ECDSA_P521_SHA512      SIGN_VERIFY        521 fips
ECDSA_SECP256K1_SHA256 SIGN_VERIFY        256
ED25519                SIGN_VERIFY        256 fips
RSA_PSS                SIGN_VERIFY        nine
RSA_PKCS1              SIGN_VERIFY        nine
HMAC_SHA256            MAC                256 fips
HMAC_SHA384            MAC                384 fips
HMAC_SHA512            MAC                512 fips
RSA_OAEP               ASYMMETRIC_DECRYPT nine
ECDH_P256              KEY_AGREEMENT      256 fips
ECDH_P384              KEY_AGREEMENT      384 fips
X25519                 KEY_AGREEMENT      256
`

func TestTable(t *testing.T) {
	var want []string
	for line := range strings.Lines(strings.TrimSpace(wantTable)) {
		fields := strings.Fields(line)
		if fields[2] != "nine" {
			want = append(want, strings.Join(fields, " "))
			continue
		}
		for _, bits := range []string{"2048", "3072", "4096"} {
			for _, hash := range []string{"SHA256", "SHA384", "SHA512"} {
				want = append(want, strings.Join([]string{fields[0] + "_" + bits + "_" + hash, fields[1], bits, "fips"}, " "))
			}
		}
	}
	var got []string
	for _, a := range Algorithms() {
		got = append(got, describe(a))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func describe(a *Algorithm) string {
	fields := []string{a.Name(), string(a.Purpose()), strconv.Itoa(a.KeySize())}
	if a.FIPS() {
		fields = append(fields, "fips")
	}
	if a.Overhead() > 0 {
		fields = append(fields, strconv.Itoa(a.Overhead()))
	}
	if a.RandomNonceLimit() == 1<<32 {
		fields = append(fields, "limited")
	}
	if a.Deterministic() {
		fields = append(fields, "deterministic")
	}
	return strings.Join(fields, " ")
}

func TestLookup(t *testing.T) {
	for _, a := range Algorithms() {
		if found, ok := Lookup(a.Name()); !ok || found != a || a.String() != a.Name() {
			t.Errorf("%s is found as %v", a.Name(), found)
		}
	}
	for _, name := range []string{"", "aes_256_gcm", "AES_256_GCM ", "AES-256-GCM", "RSA_PSS_1024_SHA256"} {
		if a, ok := Lookup(name); ok || a != nil {
			t.Errorf("%q is found as %s", name, a)
		}
	}
}

func TestAlgorithmsIsACopy(t *testing.T) {
	Algorithms()[0] = nil
	if Algorithms()[0] == nil {
		t.Error("the table can be changed from outside")
	}
}

func TestMaxPlaintext(t *testing.T) {
	for _, a := range Algorithms() {
		encrypts := a.purpose == PurposeEncryptDecrypt || a.purpose == PurposeAsymmetricDecrypt
		if (a.MaxPlaintext() > 0) != encrypts {
			t.Errorf("%s: %d", a.name, a.MaxPlaintext())
		}
	}
	if a, _ := Lookup("RSA_OAEP_2048_SHA256"); a.MaxPlaintext() != 190 {
		t.Errorf("%s: %d", a, a.MaxPlaintext())
	}
}
