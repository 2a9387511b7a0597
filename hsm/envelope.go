package hsm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
)

// Where the token does no AES-GCM it protects a data key, 32 random bytes that
// encrypt one blob and nothing else; the rest is AES-256-GCM here, under an IV of
// zeros, which a key that is used once can afford.

const dataKeySize = 32

func newDataKey() []byte {
	key := make([]byte, dataKeySize)
	_, _ = rand.Read(key) // never fails
	return key
}

// sealWith fills in the ciphertext under the data key that blob.WrappedKey holds.
func (b *BlobInfo) sealWith(key, plaintext, aad []byte) error {
	gcm, err := dataCipher(key)
	if err != nil {
		return err
	}
	b.Ciphertext = gcm.Seal(nil, make([]byte, ivSize), plaintext, b.bound(aad))
	return nil
}

// openWith is the inverse of sealWith.
func (b *BlobInfo) openWith(key, aad []byte) ([]byte, error) {
	gcm, err := dataCipher(key)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, make([]byte, ivSize), b.Ciphertext, b.bound(aad))
}

func dataCipher(key []byte) (cipher.AEAD, error) {
	if len(key) != dataKeySize {
		return nil, fmt.Errorf("data key of %d bytes, want %d", len(key), dataKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound is what is authenticated beside the plaintext: all that comes before the
// proof, and the caller's AAD, none of which can be shifted into the other.
func (b *BlobInfo) bound(aad []byte) []byte {
	return slices.Concat(b.header(), binary.BigEndian.AppendUint16(nil, uint16(len(b.WrappedKey))), b.WrappedKey, aad)
}
