package worker

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"syscall"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/algorithm"
)

// Keys in the token are made by one worker and used by all, later ones too.
func TestKeysThroughWorkers(t *testing.T) {
	s, _, _ := fresh(t, 2)
	ctx := t.Context()
	aes, ec, imported := newID(), newID(), newID()
	if key, err := s.GenerateKey(ctx, aes, "AES_256_GCM"); err != nil || key.ID != aes || !key.Origin.Local || !key.Origin.NeverExtractable {
		t.Fatalf("key %+v, %v", key, err)
	}
	pair, err := s.GenerateKey(ctx, ec, hsm.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	material := make([]byte, 32)
	_, _ = rand.Read(material) // never fails
	if key, err := s.ImportKey(ctx, imported, "HMAC_SHA256", material); err != nil || key.Origin.Local {
		t.Fatalf("key %+v, %v", key, err)
	}
	sealed, err := s.UseKey(ctx, aes, "AES_256_GCM", hsm.UseEncrypt, secret, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for range 4 {
			if got, err := s.UseKey(ctx, aes, "AES_256_GCM", hsm.UseDecrypt, sealed, []byte("aad")); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("decrypted to %q, %v", got, err)
			}
			digest := sha256.Sum256(secret)
			signed, err := s.UseKey(ctx, ec, hsm.ECDSAP256, hsm.UseSign, digest[:], nil)
			if err != nil || !verifies(t, pair.PublicKey, digest[:], signed) {
				t.Errorf("signature %x, %v", signed, err)
			}
			if tag, err := s.UseKey(ctx, imported, "HMAC_SHA256", hsm.UseMAC, secret, nil); err != nil || len(tag) != 32 {
				t.Errorf("tag %x, %v", tag, err)
			}
		}
	}
	check()
	for _, p := range workers(t, s) {
		send(t, p, syscall.SIGKILL)
		<-p.reaped
	}
	check()
	ids, err := s.ListKeys(ctx)
	for _, id := range []hsm.KeyID{aes, ec, imported} {
		if !slices.Contains(ids, id) {
			t.Errorf("list %v, %v lacks %s", ids, err, id)
		}
	}
	sealed[len(sealed)-1] ^= 1
	_, err = s.UseKey(ctx, aes, "AES_256_GCM", hsm.UseDecrypt, sealed, []byte("aad"))
	want(t, err, hsm.ErrDecrypt, hsm.ClassCaller)
	_, err = s.GenerateKey(ctx, newID(), "NO_SUCH_ALGORITHM")
	want(t, err, hsm.ErrAlgorithm, hsm.ClassCaller)
	_, err = s.FindKey(ctx, newID(), "AES_256_GCM")
	want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
	if err := s.Destroy(ctx, aes); err != nil {
		t.Error(err)
	}
	for range 4 {
		_, err = s.UseKey(ctx, aes, "AES_256_GCM", hsm.UseEncrypt, secret, nil)
		want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
	}
}

func verifies(t *testing.T, public, digest, signed []byte) bool {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	row, _ := algorithm.Lookup(hsm.ECDSAP256)
	return row.Signing.Verify(key, digest, signed)
}
