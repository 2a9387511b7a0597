package hsm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// seal encrypts with AES-GCM in the token into out, which has room for the tag. It
// fills in iv: with random bytes or, where the token writes its own IV there (NIST SP
// 800-38D section 8.2.1, as FIPS 140-3 modules do), with zeros for the token.
func (s *session) seal(out []byte, key cryptoki.Handle, iv, plaintext, aad []byte) ([]byte, error) {
	if s.hsmIV {
		clear(iv)
	} else {
		_, _ = rand.Read(iv) // never fails
	}
	sealed, err := s.EncryptInto(out, key, cryptoki.GCM(iv, aad), plaintext)
	switch {
	case err != nil:
		return nil, err
	case len(sealed) != len(plaintext)+tagSize:
		return nil, fault(ClassDevice, fmt.Errorf("AES-GCM in the token returned %d bytes, want %d", len(sealed), len(plaintext)+tagSize))
	case s.hsmIV && bytes.Equal(iv, make([]byte, ivSize)):
		return nil, fault(ClassDevice, errors.New("the token encrypted under an IV of zeros instead of one of its own"))
	}
	return sealed, nil
}

// labelled is how a key is recognised whose token makes the IVs: a ciphertext of the
// check label, IV ‖ ciphertext ‖ tag, which opens under no other key.
var labelledSize = ivSize + len(checkLabel) + tagSize

func (s *session) sealLabel(key cryptoki.Handle) ([]byte, error) {
	labelled := make([]byte, labelledSize)
	if _, err := s.seal(labelled[ivSize:], key, labelled[:ivSize:ivSize], checkLabel, checkLabel); err != nil {
		return nil, err
	}
	return labelled, s.opens(key, labelled)
}

// opens decrypts what sealLabel made.
func (s *session) opens(key cryptoki.Handle, labelled []byte) error {
	label, err := s.Decrypt(key, cryptoki.GCM(labelled[:ivSize:ivSize], checkLabel), labelled[ivSize:], labelledSize-ivSize)
	if err == nil && !bytes.Equal(label, checkLabel) {
		err = fault(ClassDevice, errWrong)
	}
	return err
}

// recognise is opens that tells another key, whose error is different, from a sick
// token: a key that is well opens what it sealed itself.
func (s *session) recognise(key cryptoki.Handle, labelled []byte, different error) error {
	if len(labelled) != labelledSize {
		return different
	}
	failure := s.opens(key, labelled)
	if !ambiguous(failure) {
		return failure
	}
	if err := s.Renew(); err != nil {
		return sick(errors.Join(err, failure))
	}
	if _, err := s.sealLabel(key); err != nil {
		return sick(errors.Join(err, failure))
	}
	if s.opens(key, labelled) == nil { // it was an error of a moment
		return nil
	}
	return different
}

// hsmIVRoot is an AES-256 key for AES-GCM whose IVs the token makes.
type hsmIVRoot struct{}

func (hsmIVRoot) code() []byte { return []byte{byte(MechanismAESGCMHSMIV)} }

func (hsmIVRoot) size() int { return labelledSize }

func (hsmIVRoot) make(s *session, id KeyID) error {
	return s.makeRow(rootAlgorithm, id, rootLabel(id), false)
}

func (hsmIVRoot) prove(s *session, id KeyID, known []byte) ([]byte, error) {
	key, err := s.protected(rootObject(id), id)
	if err != nil {
		return nil, err
	}
	if known == nil {
		return s.sealLabel(key)
	}
	return known, s.recognise(key, known, fmt.Errorf("%w: %s", ErrWrongRoot, id))
}

func (hsmIVRoot) wrap(s *session, blob *BlobInfo, plaintext, aad []byte) error {
	key, err := s.rootKey(blob.Root)
	if err != nil {
		return err
	}
	blob.IV = make([]byte, ivSize)
	blob.Ciphertext, err = s.seal(make([]byte, len(plaintext)+tagSize), key, blob.IV, plaintext, blob.authenticated(aad))
	return err
}

func (hsmIVRoot) unwrap(s *session, blob BlobInfo, aad []byte) ([]byte, error) {
	return s.unwrap(blob, blob.authenticated(aad))
}

// proofOf is what identifies an AES key whose token makes the IVs; known is nil for a
// new key.
func (s *session) proofOf(key cryptoki.Handle, known []byte) ([]byte, error) {
	if known == nil {
		return s.sealLabel(key)
	}
	return slices.Clone(known), s.recognise(key, known, errImpostor)
}
