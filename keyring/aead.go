package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"io"
	"slices"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
	"golang.org/x/crypto/chacha20poly1305"
)

// aead seals and opens bodies: nonce ‖ ciphertext ‖ tag. dst must not overlap
// the other arguments. Implementations are safe for concurrent use.
type aead interface {
	seal(dst, plaintext, aad []byte) ([]byte, error)
	open(dst, body, aad []byte) ([]byte, error)
}

// symmetric is the family of keys that are random bytes.
type symmetric struct {
	size  int // bytes
	build func(key []byte) (any, error)
}

func (f symmetric) generate(random io.Reader) ([]byte, error) {
	return randomBytes(random, f.size)
}

func (f symmetric) private(key []byte) (any, error) {
	if len(key) != f.size {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", ErrInvalidMaterial, len(key), f.size)
	}
	return f.build(key)
}

func (f symmetric) public([]byte) (any, error) {
	return nil, fmt.Errorf("%w: a symmetric key has no public key", ErrPurpose)
}

// gcm is AES-GCM with random nonces (NIST SP 800-38D): nonce(12) ‖ ciphertext ‖
// tag(16), all of it made by the standard library.
type gcm struct{ cipher.AEAD }

func newGCM(key []byte) (any, error) {
	c, err := randomNonceGCM(key)
	return gcm{c}, err
}

func randomNonceGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (c gcm) seal(dst, plaintext, aad []byte) ([]byte, error) {
	return c.Seal(dst, nil, plaintext, aad), nil
}

func (c gcm) open(dst, body, aad []byte) ([]byte, error) {
	return c.Open(dst, nil, body, aad)
}

// chacha is (X)ChaCha20-Poly1305 (RFC 8439, draft-irtf-cfrg-xchacha) with random
// nonces: nonce(12 or 24) ‖ ciphertext ‖ tag(16).
type chacha struct{ cipher.AEAD }

func newChaCha(key []byte) (any, error) {
	c, err := chacha20poly1305.New(key)
	return chacha{c}, err
}

func newXChaCha(key []byte) (any, error) {
	c, err := chacha20poly1305.NewX(key)
	return chacha{c}, err
}

func (c chacha) seal(dst, plaintext, aad []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, make([]byte, c.NonceSize())...)
	nonce := dst[start:]
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return c.Seal(dst, nonce, plaintext, aad), nil
}

func (c chacha) open(dst, body, aad []byte) ([]byte, error) {
	n := c.NonceSize()
	if len(body) < n {
		return nil, ErrDecrypt
	}
	return c.Open(dst, body[:n], body[n:], aad)
}

// siv is AES-SIV (RFC 5297) with the AAD as its single associated data and no
// nonce: SIV(16) ‖ ciphertext.
type siv struct{ *subtle.AESSIV }

func newSIV(key []byte) (any, error) {
	s, err := subtle.NewAESSIV(slices.Clone(key)) // tink keeps the slice
	return siv{s}, err
}

func (c siv) seal(dst, plaintext, aad []byte) ([]byte, error) {
	body, err := c.EncryptDeterministically(plaintext, aad)
	return append(dst, body...), err
}

func (c siv) open(dst, body, aad []byte) ([]byte, error) {
	plaintext, err := c.DecryptDeterministically(body, aad)
	return append(dst, plaintext...), err
}
