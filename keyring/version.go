package keyring

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
)

// Version is one version of a key, ready for use: its cipher or key is built
// once. It is immutable and safe for concurrent use, and prints as [redacted].
type Version struct {
	redacted
	header     Header
	algorithm  *Algorithm
	hidden     hidden[any]
	publicOnly bool
	bind       func(context.Context) any // makes the primitive for one call; nil unless the key is held elsewhere
	bound      [HeaderSize + 1]byte      // what the AEAD authenticates without AAD
}

// NewVersion builds a version from its material, of which it keeps its own copy:
// m may be wiped afterwards. Errors: ErrInvalidMaterial, ErrNotFIPS.
func NewVersion(a *Algorithm, keyID uint64, version uint32, m Material) (*Version, error) {
	p, err := a.private(m)
	if err != nil {
		return nil, err
	}
	return newVersion(a, Header{keyID, version}, p), nil
}

// PublicVersion builds a version that can verify and show its public key, from a
// SubjectPublicKeyInfo in DER. Errors: ErrInvalidPublicKey, ErrPurpose where the
// algorithm is symmetric, ErrNotFIPS.
func PublicVersion(a *Algorithm, keyID uint64, version uint32, publicDER []byte) (*Version, error) {
	if err := a.approved(); err != nil {
		return nil, err
	}
	p, err := a.keys.public(publicDER)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.name, err)
	}
	v := newVersion(a, Header{keyID, version}, p)
	v.publicOnly = true
	return v, nil
}

func newVersion(a *Algorithm, h Header, primitive any) *Version {
	v := &Version{header: h, algorithm: a, hidden: hide(primitive)}
	NoAAD().AppendTo(v.bound[:0], h)
	return v
}

// primitive can do what the row's family built it for.
func (v *Version) primitive() any { return *v.hidden.Get() }

// KeyID is the id of the key that the version belongs to.
func (v *Version) KeyID() uint64 { return v.header.KeyID }

// Number is the version's number in its key.
func (v *Version) Number() uint32 { return v.header.Version }

// Algorithm is the row that the version was built from.
func (v *Version) Algorithm() *Algorithm { return v.algorithm }

const versionMemory = 112 // a Version without its primitive

// MemorySize is about how many bytes the version holds, for cache budgets.
func (v *Version) MemorySize() int { return versionMemory + v.algorithm.memory }

// Seal encrypts plaintext and appends the native ciphertext, Algorithm.Overhead
// bytes longer, to dst, which must not overlap plaintext or the AAD. Nothing is
// allocated where dst has room, but for AES_256_SIV, XAES_256_GCM's derived cipher
// and keys held elsewhere. Errors: ErrPurpose, InputError above MaxPlaintext,
// ExternalError.
func (v *Version) Seal(dst, plaintext []byte, aad AAD) ([]byte, error) {
	c, ok := v.primitive().(aead)
	if !ok {
		return nil, v.refuse(PurposeEncryptDecrypt, "encrypt")
	}
	if uint64(len(plaintext)) > v.algorithm.maxPlaintext {
		return nil, v.tooLong(len(plaintext))
	}
	dst = slices.Grow(dst, v.algorithm.Overhead()+len(plaintext))
	dst = append(dst, v.bound[:HeaderSize]...)
	if aad.kind == kindNone {
		return c.seal(dst, plaintext, v.bound[:])
	}
	b := v.authenticated(aad)
	defer b.release()
	return c.seal(dst, plaintext, b.bytes)
}

// Open decrypts a native ciphertext and appends the plaintext to dst, which must
// not overlap ciphertext or the AAD. Errors: ErrPurpose, ErrWrongKey where the
// header names another key or version, which anybody can see; else ErrDecrypt,
// whatever the reason, unless a key that is held elsewhere could not be used: that
// is an ExternalError.
func (v *Version) Open(dst, ciphertext []byte, aad AAD) ([]byte, error) {
	c, ok := v.primitive().(aead)
	if !ok {
		return nil, v.refuse(PurposeEncryptDecrypt, "decrypt")
	}
	h, err := ParseHeader(ciphertext)
	if err != nil || uint64(len(ciphertext)) > v.algorithm.maxPlaintext+uint64(v.algorithm.Overhead()) {
		return nil, ErrDecrypt
	}
	if h != v.header {
		return nil, ErrWrongKey
	}
	plaintext, err := v.open(c, dst, ciphertext[HeaderSize:], aad)
	if err != nil {
		return nil, decryptError(err)
	}
	return plaintext, nil
}

// decryptError hides why a decryption failed, unless nobody tried it.
func decryptError(err error) error {
	var external *ExternalError
	if errors.As(err, &external) {
		return external
	}
	return ErrDecrypt
}

func (v *Version) open(c aead, dst, body []byte, aad AAD) ([]byte, error) {
	if aad.kind == kindNone {
		return c.open(dst, body, v.bound[:])
	}
	b := v.authenticated(aad)
	defer b.release()
	return c.open(dst, body, b.bytes)
}

func (v *Version) authenticated(aad AAD) *aadBuffer {
	b := aadBuffers.Get().(*aadBuffer)
	b.bytes = aad.AppendTo(b.bytes[:0], v.header)
	return b
}

// Sign signs a message, or a digest, as o says. Errors: ErrPurpose,
// ErrPublicOnly, InputError, ExternalError.
func (v *Version) Sign(message []byte, o SignOptions) ([]byte, error) {
	s, ok := v.primitive().(signer)
	if !ok {
		return nil, v.refuse(PurposeSignVerify, "sign")
	}
	input, err := v.algorithm.signInput(message, o)
	if err != nil {
		return nil, err
	}
	native, err := s.sign(input)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", v.algorithm.name, err)
	}
	return v.algorithm.encodeSignature(native, o.Format)
}

// Verify checks a signature of a message, or of a digest, in the format that o
// names. Errors: ErrVerify, ErrPurpose, InputError.
func (v *Version) Verify(message, signature []byte, o SignOptions) error {
	p, ok := v.primitive().(verifier)
	if !ok {
		return v.refuse(PurposeSignVerify, "verify a signature")
	}
	input, err := v.algorithm.signInput(message, o)
	if err != nil {
		return err
	}
	native, ok := v.algorithm.decodeSignature(signature, o.Format)
	if !ok || !p.verify(input, native) {
		return ErrVerify
	}
	return nil
}

// MAC returns the full-length tag of message (FIPS 198-1). Errors: ErrPurpose,
// ExternalError.
func (v *Version) MAC(message []byte) ([]byte, error) {
	m, ok := v.primitive().(macer)
	if !ok {
		return nil, v.refuse(PurposeMAC, "make a MAC")
	}
	return m.mac(message)
}

// VerifyMAC checks a tag in constant time. A truncated tag does not hold. Errors:
// ErrVerify, ErrPurpose, ExternalError.
func (v *Version) VerifyMAC(message, tag []byte) error {
	m, ok := v.primitive().(macer)
	if !ok {
		return v.refuse(PurposeMAC, "verify a MAC")
	}
	own, err := m.mac(message)
	if err != nil {
		return err
	}
	if !hmac.Equal(own, tag) {
		return ErrVerify
	}
	return nil
}

// DecryptAsymmetric opens what was encrypted to the public key (RSAES-OAEP, RFC
// 8017) with the same label, which may be empty. Errors: ErrDecrypt, ErrPurpose,
// ErrPublicOnly, ExternalError.
func (v *Version) DecryptAsymmetric(ciphertext, label []byte) ([]byte, error) {
	d, ok := v.primitive().(decrypter)
	if !ok {
		return nil, v.refuse(PurposeAsymmetricDecrypt, "decrypt asymmetrically")
	}
	plaintext, err := d.decrypt(ciphertext, label)
	if err != nil {
		return nil, decryptError(err)
	}
	return plaintext, nil
}

// SharedSecret agrees with the holder of a public key, given as PEM, as DER
// (SubjectPublicKeyInfo), or raw: X25519's 32 bytes, or an uncompressed point.
// The result is the raw x coordinate (32 or 48 bytes) or X25519's 32 bytes: put
// it through a KDF before use. Errors: ErrInvalidPublicKey, also for points that
// make the secret zero; ErrPurpose, ErrPublicOnly, ExternalError.
func (v *Version) SharedSecret(peerPublic []byte) ([]byte, error) {
	p, ok := v.primitive().(agreer)
	if !ok {
		return nil, v.refuse(PurposeKeyAgreement, "derive a shared secret")
	}
	return p.agree(peerPublic)
}

// refuse explains why the primitive lacks an operation, which belongs to p.
func (v *Version) refuse(p Purpose, operation string) error {
	if v.publicOnly && v.algorithm.purpose == p {
		return fmt.Errorf("%w: %s cannot %s", ErrPublicOnly, v.algorithm.name, operation)
	}
	return fmt.Errorf("%w: %s is for %s and cannot %s; use a key of the fitting purpose",
		ErrPurpose, v.algorithm.name, v.algorithm.purpose, operation)
}

func (v *Version) tooLong(n int) error {
	return &InputError{"plaintext", fmt.Sprintf("has %d bytes, %s takes at most %d; split it, or encrypt it under a data key",
		n, v.algorithm.name, v.algorithm.maxPlaintext)}
}
