package keywrap

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

var recipient = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// open is what a recipient does.
func open(t testing.TB, h crypto.Hash, wrapped []byte) ([]byte, error) {
	t.Helper()
	encrypted, rest, err := Split(wrapped, 2048)
	if err != nil {
		return nil, err
	}
	key, err := rsa.DecryptOAEP(h.New(), nil, recipient(), encrypted, nil)
	if err != nil {
		return nil, ErrUnwrap
	}
	return Unwrap(key, rest)
}

func TestRoundTrip(t *testing.T) {
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		for _, n := range []int{MinMaterial, 17, 24, 32, 121, 1218, MaxMaterial} {
			material := make([]byte, n)
			rand.Read(material)
			wrapped, err := Wrap(&recipient().PublicKey, h, material)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := open(t, h, wrapped); err != nil || !bytes.Equal(got, material) {
				t.Errorf("%d bytes with %s: %v", n, HashName(h), err)
			}
		}
	}
	for _, n := range []int{0, MinMaterial - 1, MaxMaterial + 1} {
		if _, err := Wrap(&recipient().PublicKey, crypto.SHA256, make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestNoChangedByteUnwraps(t *testing.T) {
	material := make([]byte, 121) // padded by 7
	rand.Read(material)
	wrapped, err := Wrap(&recipient().PublicKey, crypto.SHA256, material)
	if err != nil {
		t.Fatal(err)
	}
	for i := range wrapped {
		changed := bytes.Clone(wrapped)
		changed[i] ^= 1 << (i % 8)
		if _, err := open(t, crypto.SHA256, changed); !errors.Is(err, ErrUnwrap) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for n := range wrapped {
		if _, err := open(t, crypto.SHA256, wrapped[:n]); !errors.Is(err, ErrUnwrap) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, 16, 24, 31, 33} {
		if _, err := Unwrap(make([]byte, n), wrapped[256:]); !errors.Is(err, ErrUnwrap) {
			t.Errorf("a key of %d bytes: %v", n, err)
		}
	}
}

type vectors struct {
	NumberOfTests int `json:"numberOfTests"`
	TestGroups    []struct {
		KeySize int `json:"keySize"`
		Tests   []struct {
			ID     int      `json:"tcId"`
			Flags  []string `json:"flags"`
			Key    string   `json:"key"`
			Msg    string   `json:"msg"`
			Ct     string   `json:"ct"`
			Result string   `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// Only 256-bit keys are used here; keys of material shorter than 16 bytes, which
// no algorithm has, are refused though valid.
func TestWycheproof(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "aes_kwp_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	accepted, refused, short := 0, 0, 0
	for _, g := range v.TestGroups {
		if g.KeySize != 256 {
			continue
		}
		for _, c := range g.Tests {
			got, err := Unwrap(unhex(t, c.Key), unhex(t, c.Ct))
			switch {
			case slices.Contains(c.Flags, "SmallKey") && len(c.Msg) < 2*MinMaterial:
				short++
				if !errors.Is(err, ErrUnwrap) {
					t.Errorf("test %d: short material was taken: %v", c.ID, err)
				}
			case c.Result == "invalid":
				refused++
				if !errors.Is(err, ErrUnwrap) {
					t.Errorf("test %d: %v", c.ID, err)
				}
			default:
				accepted++
				if err != nil || !bytes.Equal(got, unhex(t, c.Msg)) {
					t.Errorf("test %d: %v", c.ID, err)
				}
			}
		}
	}
	if accepted == 0 || refused == 0 || short == 0 {
		t.Errorf("%d accepted, %d refused, %d short", accepted, refused, short)
	}
	t.Logf("%d accepted, %d refused, %d short", accepted, refused, short)
}

// OpenSSL is the second implementation.
func TestOpenSSLAgrees(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	key, material := make([]byte, 32), make([]byte, 45)
	rand.Read(key)
	rand.Read(material)
	dir := t.TempDir()
	plain, cipher := filepath.Join(dir, "plain"), filepath.Join(dir, "cipher")
	if err := os.WriteFile(plain, material, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), openssl, "enc", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K", hex.EncodeToString(key), "-in", plain, "-out", cipher).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wrapped, err := os.ReadFile(cipher)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Unwrap(key, wrapped); err != nil || !bytes.Equal(got, material) {
		t.Errorf("what openssl wrapped: %v", err)
	}
}

func TestPublicKeys(t *testing.T) {
	public := &recipient().PublicKey
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	for name, b := range map[string][]byte{"DER": spki, "PKCS#1": pkcs1, "PEM": text,
		"PEM of PKCS#1": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1})} {
		if got, err := ParsePublicKey(b); err != nil || !got.Equal(public) {
			t.Errorf("%s: %v", name, err)
		}
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curveDER, err := x509.MarshalPKIXPublicKey(curve.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "text": []byte("key"), "two": append(bytes.Clone(text), text...),
		"1024 bits": x509.MarshalPKCS1PublicKey(&small.PublicKey), "a curve": curveDER, "a byte more": append(bytes.Clone(spki), 0),
		"a private key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: spki})} {
		if _, err := ParsePublicKey(b); !errors.Is(err, ErrPublicKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	if got := Method(3072, crypto.SHA256); got != "RSA_OAEP_3072_SHA256_AES_256" {
		t.Error(got)
	}
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		if got, ok := ParseHash(HashName(h)); !ok || got != h {
			t.Errorf("%v", h)
		}
	}
	if _, ok := ParseHash("MD5"); ok {
		t.Error("MD5 is taken")
	}
}

// FuzzUnwrap: whatever arrives is refused, or is what wrapping makes of the result.
func FuzzUnwrap(f *testing.F) {
	key := bytes.Repeat([]byte{7}, keySize)
	wrapped, err := Wrap(&recipient().PublicKey, crypto.SHA256, make([]byte, 45))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key, wrapped[256:])
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, wrapped []byte) {
		material, err := Unwrap(key, wrapped)
		if err != nil {
			return
		}
		if len(material) < MinMaterial || len(wrapped) != (len(material)+7)/8*8+8 {
			t.Fatalf("%d bytes from %d", len(material), len(wrapped))
		}
	})
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
