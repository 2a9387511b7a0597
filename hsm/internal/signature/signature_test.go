package signature_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"slices"
	"testing"

	"github.com/keywright/keywright/hsm/internal/signature"
)

// keys sign as a token does, and give the point of their public key.
func keys(t *testing.T) map[string]struct {
	point []byte
	sign  func(input []byte) []byte
} {
	t.Helper()
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]struct {
		point []byte
		sign  func(input []byte) []byte
	}{
		signature.Ed25519: {edPublic, func(input []byte) []byte { return ed25519.Sign(edPrivate, input) }},
		signature.ECDSAP256: {point, func(input []byte) []byte {
			r, s, err := ecdsa.Sign(rand.Reader, ec, input)
			if err != nil {
				t.Fatal(err)
			}
			raw := make([]byte, signature.RawSize)
			r.FillBytes(raw[:32])
			s.FillBytes(raw[32:])
			return raw
		}},
	}
}

func TestEveryAlgorithm(t *testing.T) {
	keys := keys(t)
	for _, row := range signature.Algorithms() {
		t.Run(row.Name, func(t *testing.T) {
			key, ok := keys[row.Name]
			if !ok {
				t.Fatal("no key to try it with")
			}
			public, err := row.Public(key.point)
			if err != nil {
				t.Fatal(err)
			}
			message := []byte("message")
			for range 50 { // leading zeros of R and S come up
				encoded, err := row.Encode(key.sign(row.Input(message)))
				if err != nil || !row.Verify(public, message, encoded) {
					t.Fatalf("a good signature does not verify (%v)", err)
				}
				encoded[len(encoded)-1] ^= 1
				if row.Verify(public, message, encoded) {
					t.Fatal("a changed signature verifies")
				}
			}
			if row.Verify(crypto.PublicKey("no key"), message, make([]byte, signature.RawSize)) {
				t.Fatal("verifies under no key")
			}
			if _, err := row.Public(key.point[1:]); err == nil {
				t.Fatal("took a point of wrong size")
			}
		})
	}
}

func TestOfCurve(t *testing.T) {
	for _, row := range signature.Algorithms() {
		for _, params := range row.Params {
			if got, ok := signature.OfCurve(slices.Clone(params)); !ok || got != row {
				t.Errorf("%s is not found by %x", row.Name, params)
			}
		}
	}
	if _, ok := signature.OfCurve([]byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}); ok { // secp384r1
		t.Error("an unknown curve has an algorithm")
	}
}

func TestPoint(t *testing.T) {
	raw := append([]byte{0x04}, make([]byte, 64)...)
	wrapped, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, attribute := range map[string][]byte{"wrapped": wrapped, "bare": raw} {
		if got := signature.Point(attribute); !slices.Equal(got, raw) {
			t.Errorf("%s: point %x", name, got)
		}
	}
}
