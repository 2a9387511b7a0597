package hsm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"slices"

	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// prove tries a key, so that a new one is known to work and a sick token is told
// from a bad ciphertext. Of a secret key it returns a proof, which identifies its
// value without revealing anything of it, and compares it with the one known; a
// pair is identified by its public key.
func (s *session) prove(k heldKey) ([]byte, error) {
	key, err := s.Find(k.row.Object(k.ID))
	if err != nil {
		return nil, err
	}
	return proofs[k.row.Purpose](s, k, key)
}

var proofs = map[algorithm.Purpose]func(*session, heldKey, cryptoki.Handle) ([]byte, error){
	algorithm.Encrypt: (*session).proveCipher,
	algorithm.MAC:     (*session).proveMAC,
	algorithm.Sign:    (*session).proveSigning,
	algorithm.Decrypt: (*session).proveDecryption,
	algorithm.Agree:   (*session).proveAgreement,
}

var errWrong = errors.New("token worked with a key and the result is wrong")

// proveCipher returns the ciphertext of a root key's check value, under the IV that
// is reserved for it or, where the token makes the IVs, with the IV.
func (s *session) proveCipher(k heldKey, key cryptoki.Handle) ([]byte, error) {
	if s.hsmIV {
		return s.proofOf(key, k.proof)
	}
	_, ciphertext, err := s.checkValue(key)
	if err != nil {
		return nil, err
	}
	label, err := s.Decrypt(key, cryptoki.GCM(checkIV, checkLabel), ciphertext, len(ciphertext))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(label, checkLabel) {
		return nil, fault(ClassDevice, errWrong)
	}
	return k.same(ciphertext)
}

var macLabel = []byte("keywright MAC key check value 1")

// proveMAC reveals a tag to nobody but this process.
func (s *session) proveMAC(k heldKey, _ cryptoki.Handle) ([]byte, error) {
	tag, err := s.mac(k, macLabel)
	if err != nil {
		return nil, err
	}
	return k.same(tag)
}

// same compares a proof with the one known.
func (k heldKey) same(proof []byte) ([]byte, error) {
	if k.proof != nil && subtle.ConstantTimeCompare(k.proof, proof) != 1 {
		return nil, errImpostor
	}
	return slices.Clone(proof), nil
}

// errImpostor means that another key has the id of one that was made or found.
var errImpostor = errors.New("another key stands in its place")

func (s *session) proveSigning(k heldKey, _ cryptoki.Handle) ([]byte, error) {
	data := make([]byte, 32)
	if k.row.Hash != 0 {
		data = make([]byte, k.row.Hash.Size())
	}
	_, _ = rand.Read(data) // never fails
	_, err := s.signature(k, data)
	return nil, err
}

func (s *session) proveDecryption(k heldKey, key cryptoki.Handle) ([]byte, error) {
	secret, ciphertext, err := k.encryptOAEP(nil)
	if err != nil {
		return nil, err
	}
	opened, err := s.Decrypt(key, cryptoki.OAEP(k.row.Hash, nil), ciphertext, k.row.Bits/8)
	if err == nil && !bytes.Equal(opened, secret) {
		err = fault(ClassDevice, errWrong)
	}
	return nil, err
}

// encryptOAEP encrypts a fresh secret to a key, outside the token.
func (k heldKey) encryptOAEP(label []byte) (secret, ciphertext []byte, err error) {
	public, ok := k.public.(*rsa.PublicKey)
	if !ok {
		return nil, nil, errWrong
	}
	secret = make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	ciphertext, err = rsa.EncryptOAEP(k.row.Hash.New(), rand.Reader, public, secret, label)
	return secret, ciphertext, err
}

func (s *session) proveAgreement(k heldKey, _ cryptoki.Handle) ([]byte, error) {
	public, ok := k.public.(*ecdh.PublicKey)
	if !ok {
		return nil, errWrong
	}
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	want, err := peer.ECDH(public)
	if err != nil {
		return nil, err
	}
	got, err := s.agreement(k, peer.PublicKey().Bytes())
	if err == nil && subtle.ConstantTimeCompare(want, got) != 1 {
		err = fault(ClassDevice, errWrong)
	}
	return nil, err
}

// provenBy tells whether a secret key's proof shows that its value is the material.
func (k heldKey) provenBy(material []byte) bool {
	if k.row.Purpose == algorithm.MAC {
		mac := hmac.New(k.row.Hash.New, material)
		mac.Write(macLabel)
		return hmac.Equal(mac.Sum(nil), k.proof)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		return false
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block) // which FIPS 140-3 lets decrypt
	if err != nil {
		return false
	}
	labelled := k.proof
	if len(labelled) < labelledSize {
		labelled = slices.Concat(checkIV, k.proof)
	}
	label, err := gcm.Open(nil, nil, labelled, checkLabel)
	return err == nil && bytes.Equal(label, checkLabel)
}
