package hsm_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/keywright/keywright/hsm"
)

// verifies checks a signature with the standard library alone.
func verifies(t *testing.T, signer hsm.Signer, message, signature []byte) bool {
	t.Helper()
	switch key := signer.PublicKey.(type) {
	case ed25519.PublicKey:
		return signer.Algorithm == hsm.Ed25519 && ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return signer.Algorithm == hsm.ECDSAP256 && ecdsa.VerifyASN1(key, sum[:], signature)
	}
	t.Fatalf("public key is a %T", signer.PublicKey)
	return false
}

func TestSignerPrefersEd25519(t *testing.T) {
	d, token := fresh(t)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if signer.Algorithm != hsm.Ed25519 {
		t.Fatalf("algorithm %s on a token that can do %v", signer.Algorithm, d.Status().Capabilities.Signing)
	}
	for _, message := range [][]byte{{}, []byte("checkpoint"), make([]byte, hsm.MaxMessage)} {
		signature, err := d.Sign(t.Context(), signer.ID, message)
		if err != nil || !verifies(t, signer, message, signature) {
			t.Fatalf("%d bytes: %v", len(message), err)
		}
	}
	if n := len(newOutsider(t, token).find(idAttribute(signer.ID))); n != 2 {
		t.Fatalf("%d objects, want a key pair", n)
	}
}

func TestFindSignerAfterReopening(t *testing.T) {
	d, token := fresh(t)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, configFor(token))
	_, err = again.Sign(t.Context(), signer.ID, []byte("early"))
	want(t, err, hsm.ErrSignerNotFound, hsm.ClassCaller)
	_, err = again.FindSigner(t.Context(), hsm.KeyID{9})
	want(t, err, hsm.ErrSignerNotFound, hsm.ClassCaller)

	found, err := again.FindSigner(t.Context(), signer.ID)
	if err != nil || found.Algorithm != signer.Algorithm {
		t.Fatalf("FindSigner = %v, %v", found, err)
	}
	signature, err := again.Sign(t.Context(), signer.ID, []byte("message"))
	if err != nil || !verifies(t, signer, []byte("message"), signature) {
		t.Fatalf("Sign with a found signer: %v", err)
	}
}

func TestSignRefusesLongMessage(t *testing.T) {
	d, _ := fresh(t)
	_, err := d.Sign(t.Context(), hsm.KeyID{}, make([]byte, hsm.MaxMessage+1))
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
}

func TestDestroyRemovesTheSigner(t *testing.T) {
	d, token := fresh(t)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Destroy(t.Context(), signer.ID); err != nil {
		t.Fatal(err)
	}
	if n := len(newOutsider(t, token).find(idAttribute(signer.ID))); n != 0 {
		t.Fatalf("%d objects left", n)
	}
	_, err = d.FindSigner(t.Context(), signer.ID)
	want(t, err, hsm.ErrSignerNotFound, hsm.ClassCaller)
}

func TestCapabilities(t *testing.T) {
	d, _ := fresh(t)
	c := d.Status().Capabilities
	if !c.RootWrap || !slices.Contains(c.Signing, hsm.ECDSAP256) {
		t.Fatalf("SoftHSM2 can do more than %+v", c)
	}
}
