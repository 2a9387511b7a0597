// Package token makes and verifies Keywright's bearer tokens.
//
// A token is text around a signed Statement:
//
//	kwt_ ‖ base62(payload ‖ Ed25519 signature) ‖ base62(CRC-32 of all before)
//
// The prefix and the six-digit checksum let secret scanners find tokens and tell
// them from look-alikes without any key. The digits are 0-9, a-z, A-Z; the body
// is one big-endian number without leading zeros, the checksum (IEEE, RFC 1952)
// is padded with zeros to six digits. The signature (RFC 8032) covers the words
// "keywright token v1" and then the payload:
//
//	byte  0       version, 0x01
//	bytes 1..16   installation id
//	bytes 17..20  epoch of the signer, big endian
//	bytes 21..36  token id
//	bytes 37..52  origin, zero for none
//	bytes 53..68  issued and expires, Unix seconds, 64 bits big endian each
//	byte  69      flags: 1 renewable, 2 once
//	then          principal, groups, actions, resources
//	then          a byte of the number of ancestors, nearest first, each:
//	              id (16 bytes), issued (8), flags (1), principal, groups, actions, resources
//
// A text has a byte of length before it, a list a byte of its number of texts. A
// payload has at most MaxPayload bytes.
//
// Each statement has exactly one payload, and each payload and signature exactly
// one text: anything else is refused. The package holds no state and its errors
// never hold a token's text.
package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Limits of a Statement, in bytes and items, and the clock skew that Verify
// grants between the server that signed and the one that verifies.
const (
	MaxName      = 63
	MaxResource  = 2*MaxName + 1
	MaxGroups    = 16
	MaxActions   = 16
	MaxResources = 16
	MaxAncestors = 4
	MaxPayload   = 4096
	MaxSkew      = time.Minute
)

// domain separates these signatures from any other use of the same key.
const domain = "keywright token v1"

// Errors of Sign (ErrStatement) and of Verifier.Verify.
var (
	ErrStatement    = errors.New("token statement is out of bounds")
	ErrMalformed    = errors.New("token is malformed")
	ErrInstallation = errors.New("token belongs to another installation")
	ErrSignature    = errors.New("token signature does not match")
	ErrNotYetValid  = errors.New("token is not valid yet")
	ErrExpired      = errors.New("token has expired")
)

// Sign returns the token for s. Fractions of a second in its times are cut off.
// A statement outside the limits is an ErrStatement that names the field; one
// that is too long in all is too.
func Sign(s Statement, key ed25519.PrivateKey) (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	if len(key) != ed25519.PrivateKeySize {
		return "", fmt.Errorf("%w: the signing key is not an Ed25519 private key", ErrStatement)
	}
	payload, err := s.marshal()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if len(payload) > MaxPayload {
		return "", fmt.Errorf("%w: it has %d bytes, the limit is %d: give it and its ancestors fewer groups, actions and resources", ErrStatement, len(payload), MaxPayload)
	}
	return encode(append(payload, ed25519.Sign(key, signed(payload))...)), nil
}

// Verifier verifies the tokens of one installation. It is not changed by use
// and serves any number of goroutines.
type Verifier struct {
	Installation [16]byte
	Keys         map[uint32]ed25519.PublicKey // by epoch
}

// Verify returns what text says if it is genuine and valid at now, else one of
// ErrMalformed, ErrInstallation, ErrSignature (also for an unknown epoch),
// ErrNotYetValid and ErrExpired.
func (v *Verifier) Verify(text string, now time.Time) (Statement, error) {
	body, ok := decode(text)
	if !ok || len(body) <= ed25519.SignatureSize || len(body) > maxBody {
		return Statement{}, ErrMalformed
	}
	payload, signature := body[:len(body)-ed25519.SignatureSize], body[len(body)-ed25519.SignatureSize:]
	s, ok := unmarshal(payload)
	if !ok || s.check() != nil {
		return Statement{}, ErrMalformed
	}
	if err := v.accept(s, payload, signature, now); err != nil {
		return Statement{}, err
	}
	return s, nil
}

func (v *Verifier) accept(s Statement, payload, signature []byte, now time.Time) error {
	if s.Installation != v.Installation {
		return ErrInstallation
	}
	key := v.Keys[s.Epoch]
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signed(payload), signature) {
		return ErrSignature
	}
	if now.Add(MaxSkew).Before(s.Issued) {
		return ErrNotYetValid
	}
	if !now.Before(s.Expires) {
		return ErrExpired
	}
	return nil
}

func signed(payload []byte) []byte { return append([]byte(domain), payload...) }

// OriginOf stands for a principal, as Cedar text, in Statement.Origin: the first
// 16 bytes of its SHA-256.
func OriginOf(principal string) [16]byte {
	sum := sha256.Sum256([]byte(principal))
	return [16]byte(sum[:16])
}
