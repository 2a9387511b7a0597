package keyring

import (
	"crypto"
	"crypto/fips140"
	"fmt"
	"io"
	"slices"
)

// Purpose is what a key may be used for.
type Purpose string

// The purposes. A key has exactly one, for ever.
const (
	PurposeEncryptDecrypt    Purpose = "ENCRYPT_DECRYPT"
	PurposeSignVerify        Purpose = "SIGN_VERIFY"
	PurposeMAC               Purpose = "MAC"
	PurposeAsymmetricDecrypt Purpose = "ASYMMETRIC_DECRYPT"
	PurposeKeyAgreement      Purpose = "KEY_AGREEMENT"
)

// Algorithm is one row of the table. It is immutable, safe for concurrent use,
// and compared by pointer.
type Algorithm struct {
	name          string
	purpose       Purpose
	keySize       int
	fips          bool
	deterministic bool
	bodyOverhead  int    // bytes of nonce and tag in a ciphertext's body
	nonceLimit    uint64 // messages under one key, 0 without a limit
	maxPlaintext  uint64
	memory        int         // bytes that a version holds, about
	hash          crypto.Hash // of signatures, MACs and OAEP; 0 where the message itself is signed
	scalar        int         // bytes of r and of s in ECDSA signatures, 0 elsewhere
	jwa           string      // "alg" of the public JWK (RFC 7518), may be empty
	keys          keyFamily
}

// keyFamily is how a row's keys are made, and the constructor of its primitives.
// A primitive implements what it can do: aead, signer, verifier, macer,
// decrypter, agreer, publicKey.
type keyFamily interface {
	generate(random io.Reader) ([]byte, error)
	// private builds the primitive, which keeps no reference to material.
	private(material []byte) (any, error)
	public(der []byte) (any, error)
}

// Lookup finds a row by its exact name.
func Lookup(name string) (*Algorithm, bool) {
	a, ok := byName[name]
	return a, ok
}

// Algorithms returns all rows in table order. The slice is the caller's.
func Algorithms() []*Algorithm { return slices.Clone(table) }

// Default returns the algorithm of a key whose creator named none, or nil for an
// unknown purpose. Every default is approved by FIPS 140-3.
func Default(p Purpose) *Algorithm { return byName[defaults[p]] }

// Name is the row's name in the API, for example "XAES_256_GCM".
func (a *Algorithm) Name() string { return a.name }

// String returns the name.
func (a *Algorithm) String() string { return a.name }

// Purpose is the one purpose that the algorithm serves.
func (a *Algorithm) Purpose() Purpose { return a.purpose }

// KeySize is in bits: of a symmetric key, of the field of a curve, of an RSA
// modulus.
func (a *Algorithm) KeySize() int { return a.keySize }

// FIPS tells whether the algorithm works where FIPS 140-3 is enforced.
func (a *Algorithm) FIPS() bool { return a.fips }

// Deterministic tells whether equal plaintexts give equal ciphertexts. Such keys
// are used to look things up, so nothing rotates them unasked.
func (a *Algorithm) Deterministic() bool { return a.deterministic }

// Overhead is how many bytes a native ciphertext is longer than its plaintext,
// header included; 0 unless the purpose is ENCRYPT_DECRYPT.
func (a *Algorithm) Overhead() int {
	if a.purpose != PurposeEncryptDecrypt {
		return 0
	}
	return HeaderSize + a.bodyOverhead
}

// RandomNonceLimit is how many messages one version may encrypt before random
// nonces may collide (2^32 for 96 bits, NIST SP 800-38D section 8.3), or 0
// where no server lives that long. The caller counts.
func (a *Algorithm) RandomNonceLimit() uint64 { return a.nonceLimit }

// MaxPlaintext is the longest plaintext of one message in bytes, by the
// algorithm's own definition; 0 where the purpose encrypts nothing.
func (a *Algorithm) MaxPlaintext() uint64 { return a.maxPlaintext }

// Generate makes fresh key material. All of it is drawn from random, by
// rejection where a scalar must be in range, except RSA: the standard library
// ignores the reader given to it and uses its own approved generator. Errors:
// ErrRandom, ErrNotFIPS.
func (a *Algorithm) Generate(random io.Reader) (Material, error) {
	if err := a.approved(); err != nil {
		return Material{}, err
	}
	b, err := a.keys.generate(random)
	if err != nil {
		return Material{}, fmt.Errorf("generate %s: %w", a.name, err)
	}
	return NewMaterial(b), nil
}

// Validate tells whether m is a key of this algorithm: its size, its curve, its
// modulus, and that its parts belong together. Errors: ErrInvalidMaterial,
// ErrNotFIPS.
func (a *Algorithm) Validate(m Material) error {
	_, err := a.private(m)
	return err
}

func (a *Algorithm) private(m Material) (any, error) {
	if err := a.approved(); err != nil {
		return nil, err
	}
	p, err := a.keys.private(m.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.name, err)
	}
	return p, nil
}

func (a *Algorithm) approved() error {
	if !a.fips && fips140.Enforced() {
		return fmt.Errorf("%s: %w", a.name, ErrNotFIPS)
	}
	return nil
}
