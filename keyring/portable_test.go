package keyring

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"
)

// usableRows is the table without what FIPS mode refuses.
func usableRows() []*Algorithm {
	var rows []*Algorithm
	for _, a := range Algorithms() {
		if a.approved() == nil {
			rows = append(rows, a)
		}
	}
	return rows
}

func TestMaterialTravels(t *testing.T) {
	for _, a := range usableRows() {
		t.Run(a.Name(), func(t *testing.T) {
			m := goldenMaterial(t, a)
			portable := must[[]byte](t)(a.EncodePortable(m))
			back, err := a.DecodePortable(portable)
			if err != nil || !bytes.Equal(back.Bytes(), m.Bytes()) {
				t.Fatalf("the material did not come back: %v", err)
			}
			if a.Asymmetric() {
				if _, err := a.DecodePortable(append(bytes.Clone(portable), 0)); !errors.Is(err, ErrInvalidMaterial) {
					t.Errorf("with a byte behind it: %v", err)
				}
			}
		})
	}
}

// Each row refuses the keys of each other that is not of the same kind.
func TestMaterialOfOtherAlgorithms(t *testing.T) {
	rows := usableRows()
	kind := func(a *Algorithm) string {
		if !a.Asymmetric() {
			return "raw " + string(rune(a.keySize))
		}
		info, err := parsePrivateKeyInfo(must[[]byte](t)(a.EncodePortable(goldenMaterial(t, a))))
		if err != nil {
			t.Fatal(err)
		}
		return info.Algorithm.ID.String() + string(info.Algorithm.Parameters.Bytes) + string(rune(a.keySize))
	}
	refused := 0
	for _, from := range rows {
		portable := must[[]byte](t)(from.EncodePortable(goldenMaterial(t, from)))
		for _, to := range rows {
			_, err := to.DecodePortable(portable)
			if same := kind(from) == kind(to); (err == nil) != same {
				t.Errorf("a key of %s as one of %s: %v", from, to, err)
			} else if !same {
				refused++
				if !errors.Is(err, ErrInvalidMaterial) {
					t.Errorf("a key of %s as one of %s: %v", from, to, err)
				}
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

func TestRefusalsNameWhatIsThere(t *testing.T) {
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	small := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	for _, c := range []struct {
		algorithm string
		portable  []byte
		want      string
	}{
		{"AES_256_GCM", make([]byte, 16), "16 bytes instead of the 32 bytes of a raw key"},
		{"AES_256_GCM", make([]byte, 32), "one byte repeated"},
		{"ECDSA_P256_SHA256", derOf(t, p384), "a key on the curve P-384 instead of P-256"},
		{"ECDH_P256", derOf(t, p384), "a key on the curve P-384 instead of P-256"},
		{"ED25519", derOf(t, p384), "an elliptic-curve key instead of an Ed25519 key"},
		{"ECDSA_P384_SHA384", derOf(t, small), "an RSA key instead of an elliptic-curve key"},
		{"RSA_PSS_3072_SHA256", derOf(t, small), "an RSA key of 2048 bits instead of 3072"},
		{"RSA_PSS_3072_SHA256", []byte("-----BEGIN PRIVATE KEY-----"), "not a private key in PKCS#8"},
		{"ECDSA_P384_SHA384", mismatched(t, p384), "its public key is not the private key's"},
	} {
		a, _ := Lookup(c.algorithm)
		if _, err := a.DecodePortable(c.portable); !errors.Is(err, ErrInvalidMaterial) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.algorithm, err, c.want)
		}
	}
}

func TestEqualHalvesOfAnSIVKey(t *testing.T) {
	a, _ := Lookup("AES_256_SIV")
	if a.approved() != nil {
		t.Skip("AES-SIV is not approved by FIPS 140-3")
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	if _, err := a.DecodePortable(append(key, key...)); !errors.Is(err, ErrInvalidMaterial) || !strings.Contains(err.Error(), "halves") {
		t.Errorf("%v", err)
	}
}

func TestForeignWaysToWriteKeys(t *testing.T) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	a, _ := Lookup("ECDSA_P256_SHA256")
	want := must[[]byte](t)(key.Bytes())
	point := must[[]byte](t)(key.PublicKey.Bytes())
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	for name, inner := range map[string]ecKey{
		"no public key":       {Version: 1, Scalar: want},
		"a compressed point":  {Version: 1, Scalar: want, PublicKey: bits(compressed)},
		"a leading zero":      {Version: 1, Scalar: append([]byte{0}, want...), PublicKey: bits(point)},
		"no leading zeros":    {Version: 1, Scalar: new(big.Int).SetBytes(want).Bytes(), PublicKey: bits(point)},
		"its curve once more": {Version: 1, Scalar: want, Curve: asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}},
	} {
		m, err := a.DecodePortable(ecPKCS8(t, inner))
		if err != nil || !bytes.Equal(m.Bytes(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := ecKey{Version: 1, Scalar: want, Curve: asn1.ObjectIdentifier{1, 3, 132, 0, 34}}
	if _, err := a.DecodePortable(ecPKCS8(t, other)); !errors.Is(err, ErrInvalidMaterial) {
		t.Errorf("two curves: %v", err)
	}
}

// RFC 5958's second version brings the public key along (RFC 8410, section 10.3).
func TestPublicKeyBesideTheSeed(t *testing.T) {
	a, _ := Lookup("ED25519")
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	info, err := parsePrivateKeyInfo(derOf(t, private))
	if err != nil {
		t.Fatal(err)
	}
	info.Version, info.PublicKey = 1, bits(public)
	m, err := a.DecodePortable(must[[]byte](t)(asn1.Marshal(info)))
	if err != nil || !bytes.Equal(m.Bytes(), private.Seed()) {
		t.Fatalf("with its public key: %v", err)
	}
	public[0] ^= 1
	if _, err := a.DecodePortable(must[[]byte](t)(asn1.Marshal(info))); !errors.Is(err, ErrInvalidMaterial) {
		t.Errorf("with another's public key: %v", err)
	}
}

func FuzzDecodePortable(f *testing.F) {
	rows := usableRows()
	for i, a := range rows {
		f.Add(i, must[[]byte](f)(a.EncodePortable(goldenMaterial(f, a))))
	}
	f.Add(0, mismatched(f, must[*ecdsa.PrivateKey](f)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))))
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		a := rows[int(uint(i)%uint(len(rows)))]
		m, err := a.DecodePortable(b)
		if err != nil {
			return
		}
		again := must[[]byte](t)(a.EncodePortable(m))
		if back, err := a.DecodePortable(again); err != nil || !bytes.Equal(back.Bytes(), m.Bytes()) {
			t.Fatalf("%s: what was read is not read again: %v", a, err)
		}
	})
}

func derOf(t testing.TB, key any) []byte { return must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key)) }

func bits(b []byte) asn1.BitString { return asn1.BitString{Bytes: b, BitLength: 8 * len(b)} }

func ecPKCS8(t testing.TB, inner ecKey) []byte {
	t.Helper()
	curve := must[[]byte](t)(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}))
	return must[[]byte](t)(asn1.Marshal(oneAsymmetricKey{
		Algorithm: algorithmIdentifier{ID: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, Parameters: asn1.RawValue{FullBytes: curve}},
		Key:       must[[]byte](t)(asn1.Marshal(inner))}))
}

// mismatched is a key with the public key of another.
func mismatched(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	other := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(key.Curve, rand.Reader))
	mine, others := must[[]byte](t)(key.PublicKey.Bytes()), must[[]byte](t)(other.PublicKey.Bytes())
	return bytes.Replace(derOf(t, key), mine, others, 1)
}
