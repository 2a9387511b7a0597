package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"sync"
)

const (
	xaesPrefix = 12 // bytes of the 24-byte nonce that select the derived key
	xaesKey    = 32
)

// xaes is XAES-256-GCM (c2sp.org/XAES-256-GCM): a 24-byte random nonce, whose
// first half goes into deriving a key per message (a CMAC-based KDF in counter
// mode, NIST SP 800-108r1) and whose second half is the nonce of AES-256-GCM
// under that key. Body: nonce(24) ‖ ciphertext ‖ tag(16).
//
// The inner cipher is one with random nonces: it writes its 12 bytes right
// behind the first 12, which makes the 24, and is approved in FIPS 140-3 mode.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC subkey for complete blocks (NIST SP 800-38B)
}

func newXAES(key []byte) (any, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	double(&x.k1)
	return x, nil
}

// double multiplies by x in GF(2^128), in constant time.
func double(b *[aes.BlockSize]byte) {
	var carry byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i], carry = b[i]<<1|carry, b[i]>>7
	}
	b[len(b)-1] ^= 0x87 & -carry
}

// derivation is the room for one key derivation, reused so that only the
// derived cipher is allocated.
type derivation struct {
	input [aes.BlockSize]byte
	key   [xaesKey]byte
}

var derivations = sync.Pool{New: func() any { return new(derivation) }}

func (d *derivation) release() {
	clear(d.key[:])
	derivations.Put(d)
}

// derive returns the cipher of all messages whose nonce begins with prefix.
func (x *xaes) derive(prefix []byte) (cipher.AEAD, error) {
	d := derivations.Get().(*derivation)
	defer d.release()
	x.deriveKey(d, prefix)
	return randomNonceGCM(d.key[:])
}

// deriveKey sets d.key to AES(K, M1 ⊕ K1) ‖ AES(K, M2 ⊕ K1), where Mi is
// 0 ‖ i ‖ "X" ‖ 0 ‖ prefix.
func (x *xaes) deriveKey(d *derivation, prefix []byte) {
	for i := range byte(2) {
		d.input = [aes.BlockSize]byte{0, i + 1, 'X', 0}
		copy(d.input[4:], prefix)
		subtle.XORBytes(d.input[:], d.input[:], x.k1[:])
		x.block.Encrypt(d.key[int(i)*aes.BlockSize:], d.input[:])
	}
}

func (x *xaes) seal(dst, plaintext, aad []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, make([]byte, xaesPrefix)...)
	_, _ = rand.Read(dst[start:]) // never fails: crypto/rand ends the process instead
	inner, err := x.derive(dst[start:])
	if err != nil {
		return nil, err
	}
	return inner.Seal(dst, nil, plaintext, aad), nil
}

func (x *xaes) open(dst, body, aad []byte) ([]byte, error) {
	if len(body) < xaesPrefix {
		return nil, ErrDecrypt
	}
	inner, err := x.derive(body[:xaesPrefix])
	if err != nil {
		return nil, err
	}
	return inner.Open(dst, nil, body[xaesPrefix:], aad)
}
