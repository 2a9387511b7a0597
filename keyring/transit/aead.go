package transit

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/keywright/keywright/keyring"
)

// sealer is an AEAD whose ciphertexts begin with their nonce: nonce ‖ ciphertext ‖ tag.
// Implementations are safe for concurrent use.
type sealer interface {
	overhead() int
	nonceSize() int
	// seal draws a random nonce.
	seal(dst, plaintext, aad []byte) []byte
	// sealWith uses the nonce, of which the caller knows that it is fresh, or that the
	// plaintext decides it.
	sealWith(dst, nonce, plaintext []byte) ([]byte, error)
	open(dst, sealed, aad []byte) ([]byte, error)
}

// aead is the family of AEAD keys.
type aead struct {
	make func(key []byte) (sealer, error)
}

func (f aead) build(s Settings, o secret) (any, error) {
	a := s.Type.algorithm
	if len(o.key) != a.KeySize()/8 {
		return nil, s.invalid("%d bytes instead of %d", len(o.key), a.KeySize()/8)
	}
	if s.Derived {
		return newDeriver(f, a, o)
	}
	c, err := f.make(o.key)
	return fixed{c, a}, err
}

// fixed is an AEAD under one key.
type fixed struct {
	sealer
	algorithm *keyring.Algorithm
}

func (c fixed) sealed(n int) int { return n + c.overhead() }

func (c fixed) memory() int { return 800 }

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

const gcmNonce = 12

// gcm is AES-GCM with random nonces, all of it made by the standard library.
type gcm struct {
	cipher.AEAD
	block cipher.Block
}

func newGCM(key []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c, err := cipher.NewGCMWithRandomNonce(block)
	return gcm{c, block}, err
}

func (c gcm) overhead() int  { return c.Overhead() }
func (c gcm) nonceSize() int { return gcmNonce }

func (c gcm) seal(dst, plaintext, aad []byte) []byte { return c.Seal(dst, nil, plaintext, aad) }

func (c gcm) sealWith(dst, nonce, plaintext []byte) ([]byte, error) {
	given, err := cipher.NewGCM(c.block)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keyring.ErrNotFIPS, err)
	}
	return given.Seal(append(dst, nonce...), nonce, plaintext, nil), nil
}

func (c gcm) open(dst, sealed, aad []byte) ([]byte, error) { return c.Open(dst, nil, sealed, aad) }

// chacha is (X)ChaCha20-Poly1305 (RFC 8439, draft-irtf-cfrg-xchacha).
type chacha struct{ cipher.AEAD }

func newChaCha(key []byte) (sealer, error) {
	c, err := chacha20poly1305.New(key)
	return chacha{c}, err
}

func newXChaCha(key []byte) (sealer, error) {
	c, err := chacha20poly1305.NewX(key)
	return chacha{c}, err
}

func (c chacha) overhead() int  { return c.NonceSize() + c.Overhead() }
func (c chacha) nonceSize() int { return c.NonceSize() }

func (c chacha) seal(dst, plaintext, aad []byte) []byte {
	start := len(dst)
	dst = slices.Grow(dst, c.overhead()+len(plaintext))[:start+c.NonceSize()]
	nonce := dst[start:]
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	return c.Seal(dst, nonce, plaintext, aad)
}

func (c chacha) sealWith(dst, nonce, plaintext []byte) ([]byte, error) {
	return c.Seal(append(dst, nonce...), nonce, plaintext, nil), nil
}

func (c chacha) open(dst, sealed, aad []byte) ([]byte, error) {
	n := c.NonceSize()
	if len(sealed) < n {
		return nil, keyring.ErrDecrypt
	}
	return c.Open(dst, sealed[:n], sealed[n:], aad)
}
