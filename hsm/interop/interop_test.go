// Package interop tries keys in the token with crypto11, other software that uses
// PKCS#11: keys made by Keywright work there, and the other way round.
package interop

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" //nolint:gosec // RSA-OAEP, where a token does no other hash
	"crypto/sha256"
	"crypto/x509"
	"testing"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// rig is one token, in use by both.
type rig struct {
	*testing.T
	device *hsm.Device
	other  *crypto11.Context
}

func newRig(t *testing.T) rig {
	t.Helper()
	token := softhsmtest.Token(t)
	other, err := crypto11.Configure(&crypto11.Config{Path: token.Module, TokenLabel: token.Label, Pin: softhsmtest.PIN(t, token)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() }) // after the device, which has ended the module's use by then
	device, err := hsm.Open(t.Context(), hsm.Config{Module: token.Module, TokenLabel: token.Label, PIN: hsm.PINFromFile(token.PINFile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := device.Close(); err != nil {
			t.Error(err)
		}
	})
	return rig{t, device, other}
}

func (r rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r rig) make(algorithm string) hsm.Key {
	r.Helper()
	key, err := r.device.GenerateKey(r.Context(), newID(), algorithm)
	r.must(err)
	return key
}

func (r rig) find(id hsm.KeyID, algorithm string) hsm.Key {
	r.Helper()
	key, err := r.device.FindKey(r.Context(), id, algorithm)
	r.must(err)
	return key
}

func (r rig) use(key hsm.Key, use hsm.Use, data, extra []byte) []byte {
	r.Helper()
	made, err := r.device.UseKey(r.Context(), key.ID, key.Algorithm, use, data, extra)
	r.must(err)
	return made
}

func newID() (id hsm.KeyID) {
	_, _ = rand.Read(id[:])
	return id
}

// signing is how crypto11 and the standard library sign and verify for an algorithm.
type signing struct {
	algorithm string
	options   crypto.SignerOpts
	generate  func(rig, []byte) (crypto11.Signer, error)
	verify    func(public crypto.PublicKey, digest, signature []byte) bool
}

func signings() []signing {
	curve := func(name string, c elliptic.Curve, h crypto.Hash) signing {
		return signing{name, h, func(r rig, id []byte) (crypto11.Signer, error) { return r.other.GenerateECDSAKeyPair(id, c) }, verifyECDSA}
	}
	rsaPair := func(r rig, id []byte) (crypto11.Signer, error) { return r.other.GenerateRSAKeyPair(id, 2048) }
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	return []signing{
		curve("ECDSA_P256_SHA256", elliptic.P256(), crypto.SHA256),
		curve("ECDSA_P384_SHA384", elliptic.P384(), crypto.SHA384),
		curve("ECDSA_P521_SHA512", elliptic.P521(), crypto.SHA512),
		{"RSA_PSS_2048_SHA256", pss, rsaPair, func(public crypto.PublicKey, digest, signature []byte) bool {
			key, ok := public.(*rsa.PublicKey)
			return ok && rsa.VerifyPSS(key, crypto.SHA256, digest, signature, pss) == nil
		}},
		{"RSA_PKCS1_2048_SHA256", crypto.SHA256, rsaPair, func(public crypto.PublicKey, digest, signature []byte) bool {
			key, ok := public.(*rsa.PublicKey)
			return ok && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil
		}},
	}
}

func verifyECDSA(public crypto.PublicKey, digest, signature []byte) bool {
	key, ok := public.(*ecdsa.PublicKey)
	return ok && ecdsa.VerifyASN1(key, digest, signature)
}

func TestKeysOfKeywrightSignThere(t *testing.T) {
	r := newRig(t)
	for _, s := range signings() {
		t.Run(s.algorithm, func(t *testing.T) {
			r := rig{t, r.device, r.other}
			key := r.make(s.algorithm)
			public, err := x509.ParsePKIXPublicKey(key.PublicKey)
			r.must(err)
			signer, err := r.other.FindKeyPair(key.ID[:], nil)
			r.must(err)
			if signer == nil {
				t.Fatal("crypto11 does not find it")
			}
			digest := digestFor(s)
			signature, err := signer.Sign(rand.Reader, digest, s.options)
			r.must(err)
			if !s.verify(public, digest, signature) {
				t.Error("crypto11's signature does not verify under Keywright's public key")
			}
			if !s.verify(signer.Public(), digest, r.use(key, hsm.UseSign, digest, nil)) {
				t.Error("Keywright's signature does not verify under crypto11's public key")
			}
		})
	}
}

func TestKeysOfOthersSignHere(t *testing.T) {
	r := newRig(t)
	for _, s := range signings() {
		t.Run(s.algorithm, func(t *testing.T) {
			r := rig{t, r.device, r.other}
			id := newID()
			signer, err := s.generate(r, id[:])
			r.must(err)
			key := r.find(id, s.algorithm)
			digest := digestFor(s)
			if !s.verify(signer.Public(), digest, r.use(key, hsm.UseSign, digest, nil)) {
				t.Error("Keywright's signature does not verify")
			}
		})
	}
}

func digestFor(s signing) []byte {
	digest := make([]byte, s.options.HashFunc().Size())
	_, _ = rand.Read(digest)
	return digest
}

func TestDecryption(t *testing.T) {
	r := newRig(t)
	const algorithm = "RSA_OAEP_3072_SHA1"
	options := &rsa.OAEPOptions{Hash: crypto.SHA1}
	secret := []byte("a secret of 32 bytes ...........")
	encrypt := func(public crypto.PublicKey) []byte {
		ciphertext, err := rsa.EncryptOAEP(crypto.SHA1.New(), rand.Reader, public.(*rsa.PublicKey), secret, nil)
		r.must(err)
		return ciphertext
	}
	ours := r.make(algorithm)
	pair, err := r.other.FindRSAKeyPair(ours.ID[:], nil)
	r.must(err)
	public, err := x509.ParsePKIXPublicKey(ours.PublicKey)
	r.must(err)
	opened, err := pair.Decrypt(nil, encrypt(public), options)
	r.must(err)
	if !bytes.Equal(opened, secret) {
		t.Error("crypto11 opened something else with Keywright's key")
	}
	id := newID()
	theirs, err := r.other.GenerateRSAKeyPair(id[:], 3072)
	r.must(err)
	if opened := r.use(r.find(id, algorithm), hsm.UseDecryptAsymmetric, encrypt(theirs.Public()), nil); !bytes.Equal(opened, secret) {
		t.Error("Keywright opened something else with crypto11's key")
	}
}

func TestAESGCM(t *testing.T) {
	r := newRig(t)
	plaintext, aad := []byte("plaintext"), []byte("aad")
	ours := r.make("AES_256_GCM")
	id := newID()
	_, err := r.other.GenerateSecretKey(id[:], 256, crypto11.CipherAES)
	r.must(err)
	for name, key := range map[string]hsm.Key{"made by Keywright": ours, "made by crypto11": r.find(id, "AES_256_GCM")} {
		secret, err := r.other.FindKey(key.ID[:], nil)
		r.must(err)
		gcm, err := secret.NewGCM()
		r.must(err)
		body := r.use(key, hsm.UseEncrypt, plaintext, aad)
		opened, err := gcm.Open(nil, body[:12], body[12:], aad)
		if err != nil || !bytes.Equal(opened, plaintext) {
			t.Errorf("%s: crypto11 does not open what Keywright sealed: %v", name, err)
		}
		nonce := make([]byte, 12)
		_, _ = rand.Read(nonce)
		sealed := append(bytes.Clone(nonce), gcm.Seal(nil, nonce, plaintext, aad)...)
		if opened := r.use(key, hsm.UseDecrypt, sealed, aad); !bytes.Equal(opened, plaintext) {
			t.Errorf("%s: Keywright opens something else than crypto11 sealed", name)
		}
	}
}

func TestHMAC(t *testing.T) {
	r := newRig(t)
	id := newID()
	_, err := r.other.GenerateSecretKey(id[:], 256, crypto11.CipherGeneric)
	r.must(err)
	for name, key := range map[string]hsm.Key{"made by Keywright": r.make("HMAC_SHA256"), "made by crypto11": r.find(id, "HMAC_SHA256")} {
		secret, err := r.other.FindKey(key.ID[:], nil)
		r.must(err)
		mac, err := secret.NewHMAC(pkcs11.CKM_SHA256_HMAC, 0)
		r.must(err)
		_, err = mac.Write([]byte("message"))
		r.must(err)
		if tag := mac.Sum(nil); len(tag) != sha256.Size || !hmac.Equal(tag, r.use(key, hsm.UseMAC, []byte("message"), nil)) {
			t.Errorf("%s: two tags of one message", name)
		}
	}
}
