package transit

import (
	"bytes"
	"crypto/fips140"
	"fmt"
	"io"

	"github.com/keywright/keywright/keyring"
)

// Sizes in bytes of keys of type hmac, and of the HMAC key that each version of another
// type has beside its own.
const (
	minHMACKey     = 32
	maxHMACKey     = 512
	defaultHMACKey = 32
)

// Settings are those of a key that change what its versions do. They never change.
type Settings struct {
	Type       *Type
	Derived    bool // each use names a context, from which its key is derived (HKDF-SHA256)
	Convergent bool // needs Derived
	// KeySize is that of an hmac key in bytes, 32 to 512; 0 is 32.
	KeySize int
}

// Check tells what does not fit together. Errors: *keyring.InputError with the field
// as transit names it (type, derived, convergent_encryption, key_size).
func (s Settings) Check() error {
	switch t := s.Type; {
	case t == nil:
		return input("type", "is unknown; transit's types are %v", table)
	case s.Derived && !t.derives:
		return input("derived", "keys of type %s cannot be derived; aes*-gcm96, *chacha20-poly1305 and ed25519 can", t)
	case s.Convergent && !t.Converges():
		return input("convergent_encryption", "keys of type %s cannot be convergent; aes*-gcm96 and *chacha20-poly1305 can", t)
	case s.Convergent && !s.Derived:
		return input("convergent_encryption", "needs derived as well")
	case s.KeySize != 0 && t.name != "hmac":
		return input("key_size", "keys of type %s have one size; leave it out", t)
	case s.KeySize != 0 && (s.KeySize < minHMACKey || s.KeySize > maxHMACKey):
		return input("key_size", "is %d bytes, must be %d to %d", s.KeySize, minHMACKey, maxHMACKey)
	}
	return nil
}

// usable is Check, and ErrNotFIPS where FIPS 140-3 is enforced and does not approve of
// the type, or of nonces that the plaintext decides.
func (s Settings) usable() error {
	if err := s.Check(); err != nil {
		return err
	}
	if fips140.Enforced() && (s.Convergent || !s.Type.algorithm.FIPS()) {
		return fmt.Errorf("%s: %w", s, keyring.ErrNotFIPS)
	}
	return nil
}

// String is for messages: "convergent aes256-gcm96".
func (s Settings) String() string {
	switch {
	case s.Convergent:
		return "convergent " + s.Type.name
	case s.Derived:
		return "derived " + s.Type.name
	}
	return s.Type.name
}

// Generate makes the material of a new version: an opaque encoding of the key, the HMAC
// key that transit gives each version beside it, and, of a convergent key, how nonces
// are made (transit's convergent version 3). RSA keys are not drawn from random but from
// the standard library's generator. Errors: those of Check, keyring.ErrRandom,
// keyring.ErrNotFIPS.
func (s Settings) Generate(random io.Reader) (keyring.Material, error) {
	if err := s.usable(); err != nil {
		return keyring.Material{}, err
	}
	if s.Type.name == "hmac" {
		size := s.KeySize
		if size == 0 {
			size = defaultHMACKey
		}
		key, err := randomBytes(random, size)
		return secret{key: key}.encode(), err
	}
	key, err := s.Type.algorithm.Generate(random)
	if err != nil {
		return keyring.Material{}, err
	}
	defer key.Wipe()
	return s.withHMACKey(random, key.Bytes())
}

// Import makes the material of a version from key material as transit's import takes
// it: a raw symmetric key, or a private key in PKCS#8 (DER). A fresh HMAC key is drawn
// from random, except for type hmac, whose key it is. Errors: those of Check,
// keyring.ErrInvalidMaterial with what is there and what should be, keyring.ErrRandom,
// keyring.ErrNotFIPS.
func (s Settings) Import(random io.Reader, key []byte) (keyring.Material, error) {
	if err := s.usable(); err != nil {
		return keyring.Material{}, err
	}
	if s.Type.name == "hmac" {
		if err := checkHMACKey(key); err != nil {
			return keyring.Material{}, err
		}
		return secret{key: key}.encode(), nil
	}
	m, err := s.Type.algorithm.DecodePortable(key)
	if err != nil {
		return keyring.Material{}, err
	}
	defer m.Wipe()
	return s.withHMACKey(random, m.Bytes())
}

func (s Settings) withHMACKey(random io.Reader, key []byte) (keyring.Material, error) {
	hmacKey, err := randomBytes(random, defaultHMACKey)
	if err != nil {
		return keyring.Material{}, err
	}
	defer clear(hmacKey)
	made := secret{key: key, hmacKey: hmacKey}
	if s.Convergent {
		made.scheme = currentScheme
	}
	return made.encode(), nil
}

func checkHMACKey(key []byte) error {
	if len(key) < minHMACKey || len(key) > maxHMACKey {
		return fmt.Errorf("hmac: %w: %d bytes instead of %d to %d", keyring.ErrInvalidMaterial, len(key), minHMACKey, maxHMACKey)
	}
	if bytes.Count(key, key[:1]) == len(key) {
		return fmt.Errorf("hmac: %w: one byte repeated, which is no random key", keyring.ErrInvalidMaterial)
	}
	return nil
}

func randomBytes(random io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		clear(b)
		return nil, keyring.ErrRandom
	}
	return b, nil
}
