package transit

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/keywright/keywright/keyring"
)

// root is the key that those of contexts are derived from.
type root struct {
	kdf kdf
	key []byte // HKDF's pseudorandom key, or of the counter mode the key itself
}

func newRoot(k kdf, key []byte) (root, error) {
	if k == counterMode {
		return root{k, slices.Clone(key)}, nil
	}
	extracted, err := hkdf.Extract(sha256.New, key, nil)
	return root{k, extracted}, err
}

// derive makes n bytes for a context; of the counter mode n is 32. They are the caller's
// to wipe.
func (r root) derive(context []byte, n int) ([]byte, error) {
	if r.kdf == hkdfSHA256 {
		return hkdf.Expand(sha256.New, r.key, string(context), n)
	}
	// NIST SP 800-108, 4.1, with the counter before the context and from 0, and only
	// one round of it.
	h := hmac.New(sha256.New, r.key)
	h.Write([]byte{0, 0, 0, 0})
	h.Write(context)
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(8*n)))
	return h.Sum(nil), nil
}

// deriver is an AEAD under a key for each context.
type deriver struct {
	root
	family    aead
	algorithm *keyring.Algorithm
	scheme    scheme
}

const nonceKey = 32 // bytes that scheme 3 derives behind the key

func newDeriver(f aead, a *keyring.Algorithm, o secret) (*deriver, error) {
	r, err := newRoot(o.kdf, o.key)
	return &deriver{r, f, a, o.scheme}, err
}

func (d *deriver) memory() int { return 130 }

func (d *deriver) sealed(n int) int { return n + d.family.overhead }

// forContext derives the key of a context, and of scheme 3 the one of its nonces. Both are
// the caller's to wipe.
func (d *deriver) forContext(context []byte) (key, nonces []byte, err error) {
	size := d.algorithm.KeySize() / 8
	n := size
	if d.scheme == derivedNonce {
		n += nonceKey
	}
	derived, err := d.derive(context, n)
	if err != nil {
		return nil, nil, err
	}
	return derived[:size], derived[size:], nil
}

func (d *deriver) encrypt(dst, plaintext []byte, p Params) ([]byte, error) {
	if d.scheme == callersNonce || d.scheme == contextNonce {
		return nil, input("key_version", "converges by transit's old scheme %d, which only decrypts here; rotate the key, and rewrap its ciphertexts", d.scheme)
	}
	if err := checkLength(d.algorithm, plaintext); err != nil {
		return nil, err
	}
	key, nonces, err := d.forContext(p.Context)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	defer clear(nonces)
	if d.scheme == derivedNonce {
		return d.converge(dst, key, nonces, plaintext)
	}
	c, err := d.family.make(key)
	if err != nil {
		return nil, err
	}
	return c.seal(dst, plaintext, p.AAD), nil
}

// converge makes the same of the same plaintext.
func (d *deriver) converge(dst, key, nonces, plaintext []byte) ([]byte, error) {
	c, err := d.family.bare(key)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, nonces)
	h.Write(plaintext)
	nonce := h.Sum(nil)[:d.family.nonce]
	return c.Seal(append(dst, nonce...), nonce, plaintext, nil), nil
}

func (d *deriver) decrypt(dst, body []byte, p Params) ([]byte, error) {
	if d.scheme == callersNonce {
		if n := d.family.nonce; len(p.Nonce) != n {
			return nil, input("nonce", "has %d bytes, must have the %d that this convergent ciphertext was made with", len(p.Nonce), n)
		}
		body = slices.Concat(p.Nonce, body)
	}
	key, nonces, err := d.forContext(p.Context)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	clear(nonces)
	c, err := d.family.make(key)
	if err != nil {
		return nil, err
	}
	return c.open(dst, body, p.AAD)
}
