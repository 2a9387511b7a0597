package hsm

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// limited opens a device on a fresh token that is taken for one that lists only
// the given signature algorithms.
func limited(t *testing.T, algorithms ...string) *Device {
	t.Helper()
	token := softhsmtest.Token(t)
	d, err := Open(t.Context(), Config{Module: token.Module, TokenLabel: token.Label, PIN: PINFromFile(token.PINFile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	d.capabilities.Signing = algorithms
	return d
}

func TestSignerFallsBackToECDSA(t *testing.T) {
	d := limited(t, ECDSAP256)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil || signer.Algorithm != ECDSAP256 {
		t.Fatalf("GenerateSigner = %v, %v", signer.Algorithm, err)
	}
	found, err := d.FindSigner(t.Context(), signer.ID)
	if err != nil || found.Algorithm != ECDSAP256 {
		t.Fatalf("FindSigner = %v, %v", found.Algorithm, err)
	}
	sum := sha256.Sum256([]byte("message"))
	for range 50 { // leading zeros of R and S come up
		signature, err := d.Sign(t.Context(), signer.ID, []byte("message"))
		if err != nil || !ecdsa.VerifyASN1(signer.PublicKey.(*ecdsa.PublicKey), sum[:], signature) {
			t.Fatalf("Sign: %v", err)
		}
	}
}

func TestNoSigningMechanism(t *testing.T) {
	d := limited(t)
	if _, err := d.GenerateSigner(t.Context()); !errors.Is(err, ErrNoSigningMechanism) {
		t.Fatalf("error = %v, want ErrNoSigningMechanism", err)
	}
}

func TestNoWrapMechanism(t *testing.T) {
	d := limited(t)
	d.capabilities.RootWrap = false
	if _, err := d.GenerateRoot(t.Context()); !errors.Is(err, ErrNoWrapMechanism) {
		t.Fatalf("error = %v, want ErrNoWrapMechanism", err)
	}
}
