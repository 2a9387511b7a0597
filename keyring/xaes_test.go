package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/sha3"
	"encoding/hex"
	"io"
	"slices"
	"testing"
)

type xaesVectors struct {
	Vectors []struct {
		Key        hexBytes `json:"key"`
		Nonce      string   `json:"nonce_ascii"`
		K1         hexBytes `json:"K1"`
		Kx         hexBytes `json:"Kx"`
		Plaintext  string   `json:"plaintext_ascii"`
		AAD        string   `json:"aad_ascii"`
		Ciphertext hexBytes `json:"ciphertext"`
	} `json:"vectors"`
	Accumulated map[string]string `json:"accumulated"`
}

func readXAES(t *testing.T) xaesVectors {
	t.Helper()
	var v xaesVectors
	readVectors(t, "xaes-256-gcm.json", &v)
	return v
}

func newTestXAES(t *testing.T, key []byte) *xaes {
	t.Helper()
	return must[any](t)(newXAES(key)).(*xaes)
}

func TestXAESVectors(t *testing.T) {
	vectors := readXAES(t).Vectors
	if len(vectors) < 2 {
		t.Fatalf("%d vectors", len(vectors))
	}
	for _, c := range vectors {
		x := newTestXAES(t, c.Key)
		if !bytes.Equal(x.k1[:], c.K1) {
			t.Errorf("K1 is %x", x.k1)
		}
		var d derivation
		if x.deriveKey(&d, []byte(c.Nonce[:xaesPrefix])); !bytes.Equal(d.key[:], c.Kx) {
			t.Errorf("Kx is %x", d.key)
		}
		if ct := sealXAES(t, x, []byte(c.Nonce), []byte(c.Plaintext), []byte(c.AAD)); !bytes.Equal(ct, c.Ciphertext) {
			t.Errorf("ciphertext is %x", ct)
		}
		got, err := x.open(nil, slices.Concat([]byte(c.Nonce), c.Ciphertext), []byte(c.AAD))
		if err != nil || string(got) != c.Plaintext {
			t.Errorf("opened to %q, %v", got, err)
		}
	}
}

// sealXAES seals under a nonce of the test's choice, which the product cannot.
func sealXAES(t *testing.T, x *xaes, nonce, plaintext, aad []byte) []byte {
	t.Helper()
	var d derivation
	x.deriveKey(&d, nonce[:xaesPrefix])
	block := must[cipher.Block](t)(aes.NewCipher(d.key[:]))
	var inner cipher.AEAD
	fips140.WithoutEnforcement(func() { inner = must[cipher.AEAD](t)(cipher.NewGCM(block)) })
	return inner.Seal(nil, nonce[xaesPrefix:], plaintext, aad)
}

// The specification's accumulated test: random keys, nonces, plaintexts and AADs
// whose ciphertexts hash to a published value. Each is opened again, too. The
// million takes some ten seconds, and more under the race detector, which has
// nothing to find here; the ten thousand run everywhere.
func TestXAESAccumulated(t *testing.T) {
	t.Parallel()
	accumulated := readXAES(t).Accumulated
	for name, n := range map[string]int{"10000": 10_000, "1000000": 1_000_000} {
		t.Run(name, func(t *testing.T) {
			if n > 10_000 && (raceEnabled || testing.Short() || fips140.Enforced()) {
				t.Skip("a million iterations run only without -race, -short and FIPS mode")
			}
			t.Parallel()
			if got := accumulateXAES(t, n); got != accumulated[name] {
				t.Errorf("%s iterations hash to %s", name, got)
			}
		})
	}
}

func accumulateXAES(t *testing.T, n int) string {
	source, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(b []byte) []byte {
		_, _ = io.ReadFull(source, b)
		return b
	}
	short := func() []byte { return read(make([]byte, read(make([]byte, 1))[0])) }
	for range n {
		x := newTestXAES(t, read(make([]byte, 32)))
		nonce, plaintext, aad := read(make([]byte, 24)), short(), short()
		ct := sealXAES(t, x, nonce, plaintext, aad)
		_, _ = sum.Write(ct)
		if got, err := x.open(nil, slices.Concat(nonce, ct), aad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened to %x, %v", got, err)
		}
	}
	return hex.EncodeToString(read32(sum))
}

func read32(s *sha3.SHAKE) []byte {
	b := make([]byte, 32)
	_, _ = s.Read(b)
	return b
}
