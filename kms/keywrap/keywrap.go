// Package keywrap is the form in which key material travels: an ephemeral
// AES-256 key, encrypted to the recipient's RSA key by RSAES-OAEP (RFC 8017) with
// an empty label, and behind it the material, wrapped under that AES key by AES
// key wrap with padding (NIST SP 800-38F, KWP; RFC 5649).
//
//	RSA-OAEP(AES key)   as long as the modulus
//	KWP(material)       the material, padded to 8 bytes, and 8 bytes
//
// PKCS#11 v3.0 calls it CKM_RSA_AES_KEY_WRAP (section 2.1.21). KWP itself is
// tink-go's. The package keeps no state; its functions are safe for concurrent use.
package keywrap

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1"   //nolint:gosec // linked in for crypto.SHA1: some tokens do OAEP with nothing else, and it needs no collision resistance
	_ "crypto/sha256" // linked in for crypto.SHA256
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// Limits of what travels, in bytes or bits.
const (
	MinMaterial = subtle.MinWrapSize
	MaxMaterial = subtle.MaxWrapSize
	MinModulus  = 2048
	MaxModulus  = 8192
	// MaxWrapped is the most that Wrap makes.
	MaxWrapped = MaxModulus/8 + MaxMaterial + 8

	keySize = 32
)

// Errors are told apart by errors.Is.
var (
	// ErrUnwrap says that something wrapped did not open, and no more.
	ErrUnwrap = errors.New("the wrapped key cannot be unwrapped")
	// ErrPublicKey says that bytes are no public key to wrap to.
	ErrPublicKey = errors.New("must be one RSA public key of 2048 to 8192 bits, in PEM or DER")
	// ErrSize says that material is too short or too long to be wrapped.
	ErrSize = fmt.Errorf("key material must have %d to %d bytes", MinMaterial, MaxMaterial)
)

// Method is the name of the form for a modulus of that many bits and a hash of
// OAEP, such as RSA_OAEP_3072_SHA256_AES_256, as Google Cloud KMS names it.
func Method(bits int, h crypto.Hash) string {
	return fmt.Sprintf("RSA_OAEP_%d_%s_AES_256", bits, HashName(h))
}

// HashName is how the API names a hash, such as SHA256.
func HashName(h crypto.Hash) string {
	if h == crypto.SHA1 {
		return "SHA1"
	}
	return fmt.Sprintf("SHA%d", 8*h.Size())
}

// ParseHash is HashName the other way round, for the hashes that OAEP is used with here.
func ParseHash(name string) (crypto.Hash, bool) {
	for _, h := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		if HashName(h) == name {
			return h, true
		}
	}
	return 0, false
}

// ParsePublicKey reads an RSA public key as SubjectPublicKeyInfo (RFC 5280) or
// RSAPublicKey (RFC 8017), in PEM or DER, and nothing else beside it. Error:
// ErrPublicKey.
func ParsePublicKey(b []byte) (*rsa.PublicKey, error) {
	if block, rest := pem.Decode(b); block != nil {
		if len(bytes.TrimSpace(rest)) > 0 || block.Type != "PUBLIC KEY" && block.Type != "RSA PUBLIC KEY" {
			return nil, ErrPublicKey
		}
		b = block.Bytes
	}
	parsed, err := x509.ParsePKIXPublicKey(b)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil {
		key, err = x509.ParsePKCS1PublicKey(b)
		ok = err == nil
	}
	if !ok || key.N.BitLen() < MinModulus || key.N.BitLen() > MaxModulus {
		return nil, ErrPublicKey
	}
	return key, nil
}

// Wrap wraps material to a public key, with h in OAEP and in its MGF1. Errors:
// ErrSize; others where the key or, in FIPS mode, the hash does not serve.
func Wrap(to *rsa.PublicKey, h crypto.Hash, material []byte) ([]byte, error) {
	if len(material) < MinMaterial || len(material) > MaxMaterial {
		return nil, ErrSize
	}
	key := make([]byte, keySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	encrypted, err := rsa.EncryptOAEP(h.New(), rand.Reader, to, key, nil)
	if err != nil {
		return nil, err
	}
	kwp, err := subtle.NewKWP(key)
	if err != nil {
		return nil, err
	}
	wrapped, err := kwp.Wrap(material)
	if err != nil {
		return nil, err
	}
	return append(encrypted, wrapped...), nil
}

// Split takes apart what Wrap made for a modulus of that many bits: the part that
// the private key decrypts, and the part for Unwrap. The slices are parts of
// wrapped. Error: ErrUnwrap where the lengths cannot be right.
func Split(wrapped []byte, bits int) (encryptedKey, material []byte, err error) {
	n := (bits + 7) / 8
	if rest := len(wrapped) - n; rest < MinMaterial+8 || rest > MaxMaterial+8 || rest%8 != 0 {
		return nil, nil, ErrUnwrap
	}
	return wrapped[:n], wrapped[n:], nil
}

// Unwrap opens the second part with the AES key that was in the first. The result
// is the caller's to wipe. Error: ErrUnwrap.
func Unwrap(key, wrapped []byte) ([]byte, error) {
	if len(key) != keySize {
		return nil, ErrUnwrap
	}
	kwp, err := subtle.NewKWP(key)
	if err != nil {
		return nil, ErrUnwrap
	}
	material, err := kwp.Unwrap(wrapped)
	if err != nil || len(material) < MinMaterial {
		return nil, ErrUnwrap
	}
	return material, nil
}
