package hsm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"
	"time"

	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// Whoever can write the store knows the public key, and can encrypt to it.
func TestPlantedSecretIsRefused(t *testing.T) {
	token := softhsmtest.Token(t)
	d, err := Open(t.Context(), Config{Module: token.Module, TokenLabel: token.Label, PIN: PINFromFile(token.PINFile),
		Timeout: time.Minute, rootWrap: MechanismRSAOAEP})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	root, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	aad := []byte("aad")
	genuine, err := d.Wrap(t.Context(), root.ID, 1, []byte("secret"), aad)
	if err != nil {
		t.Fatal(err)
	}
	kind := oaepRoot{hash: crypto.SHA1, proof: proofHMAC}
	keys, err := call(t.Context(), d, "read", func(s *session) (oaepKeys, error) { return kind.keys(s, root.ID) })
	if err != nil {
		t.Fatal(err)
	}
	planted, err := ParseBlob(genuine)
	if err != nil {
		t.Fatal(err)
	}
	data := newDataKey()
	planted.WrappedKey, err = rsa.EncryptOAEP(kind.hash.New(), rand.Reader, keys.public, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := planted.sealWith(data, []byte("known to the attacker"), aad); err != nil {
		t.Fatal(err)
	}
	for _, proof := range [][]byte{planted.Proof, make([]byte, 32), make([]byte, 64)} {
		planted.Proof = proof
		if got, err := d.Unwrap(t.Context(), planted.bytes(), aad); !errors.Is(err, ErrUnwrap) {
			t.Errorf("unwrapped %q, %v", got, err)
		}
	}
	if got, err := d.Unwrap(t.Context(), genuine, aad); err != nil || string(got) != "secret" {
		t.Errorf("the genuine one: %q, %v", got, err)
	}
}

// A blob's parts cannot be shifted into each other.
func TestEnvelopeBindsAll(t *testing.T) {
	b := BlobInfo{Mechanism: MechanismAESKW, WrappedKey: bytes.Repeat([]byte{7}, wrappedKeySize)}
	other := b
	other.RootVersion = 1
	shifted := b
	shifted.WrappedKey = b.WrappedKey[:wrappedKeySize-1]
	for name, pair := range map[string][2][]byte{
		"version": {b.bound(nil), other.bound(nil)},
		"AAD":     {b.bound(nil), shifted.bound([]byte{7})},
	} {
		if bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s is not bound", name)
		}
	}
	key := newDataKey()
	if err := b.sealWith(key, []byte("secret"), []byte("aad")); err != nil {
		t.Fatal(err)
	}
	if got, err := b.openWith(key, []byte("aad")); err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.openWith(newDataKey(), []byte("aad")); err == nil {
		t.Error("another key opens it")
	}
	if _, err := b.openWith(key[1:], nil); err == nil {
		t.Error("a short key was taken")
	}
}
