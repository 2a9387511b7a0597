package transit

import (
	"encoding/binary"
	"fmt"

	"github.com/keywright/keywright/keyring"
)

// secret is what the material of a version holds. Its encoding:
//
//	byte  0      format, 0x01
//	byte  1      convergent scheme, 0 unless the key is convergent
//	byte  2      key derivation of a derived key: 0 HKDF-SHA256, 1 transit's old counter mode
//	bytes 3..4   length of the HMAC key, big endian; 0 of type hmac, and of old versions without one
//	then         HMAC key ‖ key, encoded as package keyring says for the type's algorithm
//
// How a version derives keys and nonces is its own matter, since a key that comes from
// an old transit goes on with better versions.
type secret struct {
	scheme  scheme
	kdf     kdf
	hmacKey []byte
	key     []byte
}

const (
	materialFormat = 1
	materialHeader = 5
)

// scheme is how a convergent version makes nonces, by transit's numbers.
type scheme uint8

const (
	noScheme      scheme = iota
	callersNonce         // 1: the caller gives it, and it is not in the ciphertext
	contextNonce         // 2: HMAC of the plaintext, keyed by the context
	derivedNonce         // 3: HMAC of the plaintext, keyed by what the context derives
	currentScheme = derivedNonce
)

// kdf is how a derived version makes the key of a context.
type kdf uint8

const (
	hkdfSHA256  kdf = iota
	counterMode     // HMAC-SHA256 in counter mode (NIST SP 800-108)
)

// encode copies the secret into material.
func (s secret) encode() keyring.Material {
	b := make([]byte, 0, materialHeader+len(s.hmacKey)+len(s.key))
	b = append(b, materialFormat, byte(s.scheme), byte(s.kdf))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.hmacKey)))
	b = append(b, s.hmacKey...)
	return keyring.NewMaterial(append(b, s.key...))
}

// open reads material, whose bytes the result shares. The key itself is checked by
// whoever builds something from it. Error: keyring.ErrInvalidMaterial.
func (s Settings) open(m keyring.Material) (secret, error) {
	b := m.Bytes()
	if len(b) < materialHeader || b[0] != materialFormat {
		return secret{}, s.invalid("not made here")
	}
	opened := secret{scheme: scheme(b[1]), kdf: kdf(b[2])}
	n := int(binary.BigEndian.Uint16(b[3:]))
	if rest := b[materialHeader:]; n < len(rest) {
		opened.hmacKey, opened.key = rest[:n:n], rest[n:]
		return opened, s.fits(opened)
	}
	return secret{}, s.invalid("cut short")
}

// fits tells whether o can be of a key of these settings.
func (s Settings) fits(o secret) error {
	switch isHMAC := s.Type.name == "hmac"; {
	case s.Convergent != (o.scheme != noScheme) || o.scheme > currentScheme:
		return s.invalid("its convergent scheme is %d", o.scheme)
	case o.kdf > counterMode || o.kdf == counterMode && !s.countable(o.scheme):
		return s.invalid("its key derivation is %d", o.kdf)
	case len(o.hmacKey) > maxHMACKey || isHMAC && len(o.hmacKey) > 0:
		return s.invalid("its HMAC key has %d bytes", len(o.hmacKey))
	case isHMAC && (len(o.key) < minHMACKey || len(o.key) > maxHMACKey):
		return s.invalid("its key has %d bytes", len(o.key))
	}
	return nil
}

// countable tells whether transit could make anything with its old key derivation, which
// gives 32 bytes, neither more nor less.
func (s Settings) countable(n scheme) bool {
	return s.Derived && s.Type.AcceptsAAD() && s.Type.algorithm.KeySize() == 256 && n < derivedNonce
}

func (s Settings) invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", s, keyring.ErrInvalidMaterial, fmt.Sprintf(format, args...))
}
