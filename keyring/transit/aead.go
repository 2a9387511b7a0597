package transit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/keywright/keywright/keyring"
)

// sealer is an AEAD whose ciphertexts begin with their nonce: nonce ‖ ciphertext ‖ tag.
// Implementations are safe for concurrent use.
type sealer interface {
	// seal draws a random nonce.
	seal(dst, plaintext, aad []byte) []byte
	open(dst, sealed, aad []byte) ([]byte, error)
	memory() int // bytes that it holds, about
}

// aead is the family of AEAD keys.
type aead struct {
	nonce, overhead int // bytes of the nonce, and of nonce and tag
	make            func(key []byte) (sealer, error)
	// bare takes nonces, of which the caller knows that the plaintext decides them.
	bare func(key []byte) (cipher.AEAD, error)
}

const tagSize = 16

var (
	aesGCM  = aead{12, 12 + tagSize, newGCM, newBareGCM}
	chacha  = aead{12, 12 + tagSize, newChaCha, chacha20poly1305.New}
	xchacha = aead{24, 24 + tagSize, newXChaCha, chacha20poly1305.NewX}
)

func (f aead) build(s Settings, o secret) (any, error) {
	a := s.Type.algorithm
	if len(o.key) != a.KeySize()/8 {
		return nil, s.invalid("%d bytes instead of %d", len(o.key), a.KeySize()/8)
	}
	if s.Derived {
		return newDeriver(f, a, o)
	}
	c, err := f.make(o.key)
	return fixed{c, a, f.overhead}, err
}

// fixed is an AEAD under one key.
type fixed struct {
	sealer
	algorithm *keyring.Algorithm
	overhead  int
}

func (c fixed) sealed(n int) int { return n + c.overhead }

func (c fixed) encrypt(dst, plaintext []byte, p Params) ([]byte, error) {
	if err := checkLength(c.algorithm, plaintext); err != nil {
		return nil, err
	}
	return c.seal(dst, plaintext, p.AAD), nil
}

func (c fixed) decrypt(dst, body []byte, p Params) ([]byte, error) {
	return c.open(dst, body, p.AAD)
}

func checkLength(a *keyring.Algorithm, plaintext []byte) error {
	if uint64(len(plaintext)) > a.MaxPlaintext() {
		return input("plaintext", "has %d bytes, %s takes at most %d; split it, or encrypt it under a data key", len(plaintext), a, a.MaxPlaintext())
	}
	return nil
}

// gcm is AES-GCM with random nonces, all of it made by the standard library.
type gcm struct{ cipher.AEAD }

func newGCM(key []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c, err := cipher.NewGCMWithRandomNonce(block)
	return gcm{c}, err
}

func newBareGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (c gcm) memory() int { return 800 }

func (c gcm) seal(dst, plaintext, aad []byte) []byte { return c.Seal(dst, nil, plaintext, aad) }

func (c gcm) open(dst, sealed, aad []byte) ([]byte, error) { return c.Open(dst, nil, sealed, aad) }

// poly is (X)ChaCha20-Poly1305 (RFC 8439, draft-irtf-cfrg-xchacha).
type poly struct{ cipher.AEAD }

func newChaCha(key []byte) (sealer, error) {
	c, err := chacha20poly1305.New(key)
	return poly{c}, err
}

func newXChaCha(key []byte) (sealer, error) {
	c, err := chacha20poly1305.NewX(key)
	return poly{c}, err
}

func (c poly) memory() int { return 80 }

func (c poly) seal(dst, plaintext, aad []byte) []byte {
	start, n := len(dst), c.NonceSize()
	dst = slices.Grow(dst, n+len(plaintext)+tagSize)[:start+n]
	nonce := dst[start:]
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return c.Seal(dst, nonce, plaintext, aad)
}

func (c poly) open(dst, sealed, aad []byte) ([]byte, error) {
	n := c.NonceSize()
	if len(sealed) < n {
		return nil, keyring.ErrDecrypt
	}
	return c.Open(dst, sealed[:n], sealed[n:], aad)
}
