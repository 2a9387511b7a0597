package hsm

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// kwRoot is an AES-256 key that wraps data keys with CKM_AES_KEY_WRAP as a cipher
// (0x2109; NIST SP 800-38F). A wrapped key cannot be made without the root, and the
// data key authenticates the rest, so that a blob needs no further proof.
type kwRoot struct{}

const wrappedKeySize = dataKeySize + 8

func (kwRoot) code() []byte { return []byte{byte(MechanismAESKW)} }

func (kwRoot) size() int { return identitySize }

func (kwRoot) make(s *session, id KeyID) error {
	return s.makeRow(rootAlgorithm, id, rootLabel(id), false)
}

// prove wraps a value that no data key has but by chance. Its wrapping says nothing
// about any other, and is hashed.
func (kwRoot) prove(s *session, id KeyID, _ []byte) ([]byte, error) {
	key, err := s.protected(rootObject(id), id)
	if err != nil {
		return nil, err
	}
	label := sha256.Sum256([]byte("keywright root key check value 2"))
	wrapped, err := s.Encrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), label[:], wrappedKeySize)
	if err != nil {
		return nil, err
	}
	opened, err := s.Decrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), wrapped, wrappedKeySize)
	if err == nil && (len(wrapped) != wrappedKeySize || subtle.ConstantTimeCompare(opened, label[:]) != 1) {
		err = fault(ClassDevice, errors.New("canary came back changed"))
	}
	identity := sha256.Sum256(wrapped)
	return identity[:identitySize], err
}

func (kwRoot) wrap(s *session, blob *BlobInfo, plaintext, aad []byte) error {
	key, err := s.rootKey(blob.Root)
	if err != nil {
		return err
	}
	data := newDataKey()
	defer clear(data)
	if blob.WrappedKey, err = s.Encrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), data, wrappedKeySize); err != nil {
		return err
	}
	if len(blob.WrappedKey) != wrappedKeySize {
		return fault(ClassDevice, errors.New("AES-KW in the token returned a key of wrong size"))
	}
	return blob.sealWith(data, plaintext, aad)
}

func (kwRoot) unwrap(s *session, blob BlobInfo, aad []byte) ([]byte, error) {
	key, err := s.rootKey(blob.Root)
	if err != nil {
		return nil, err
	}
	data, err := s.Decrypt(key, cryptoki.Plain(pkcs11.CKM_AES_KEY_WRAP), blob.WrappedKey, wrappedKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return blob.openWith(data, aad)
}
