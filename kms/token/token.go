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
//	bytes 37..52  parent's id, zero for none
//	bytes 53..68  issued and expires, Unix seconds, 64 bits big endian each
//	then          principal, a byte of length before it
//	rest          groups: a byte of their number, each with a byte of length before it
//
// Each statement has exactly one payload, and each payload and signature exactly
// one text: anything else is refused. The package holds no state and its errors
// never hold a token's text.
package token

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Limits of a Statement, in bytes and items, and the clock skew that Verify
// grants between the server that signed and the one that verifies.
const (
	MaxName   = 63
	MaxGroups = 16
	MaxSkew   = time.Minute
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

// Statement is what a token says. It holds no secret: who only knows the
// statement cannot make the token.
type Statement struct {
	Installation [16]byte
	Epoch        uint32   // which of the installation's signers signed it
	ID           [16]byte // random, never reused
	Parent       [16]byte // the token that made this one; zero for none
	Principal    string   // 1 to MaxName bytes of UTF-8
	Groups       []string // at most MaxGroups of 1 to MaxName bytes of UTF-8, in the order given
	Issued       time.Time
	Expires      time.Time // after Issued; both count whole seconds from 1970 on
}

// Sign returns the token for s. Fractions of a second in its times are cut off.
// A statement outside the limits is an ErrStatement that names the field.
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
	if !ok || len(body) <= ed25519.SignatureSize {
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

func (s Statement) check() error {
	if !validName(s.Principal) {
		return fmt.Errorf("%w: the principal must be 1 to %d bytes of UTF-8", ErrStatement, MaxName)
	}
	if len(s.Groups) > MaxGroups {
		return fmt.Errorf("%w: there may be at most %d groups", ErrStatement, MaxGroups)
	}
	for _, group := range s.Groups {
		if !validName(group) {
			return fmt.Errorf("%w: a group must be 1 to %d bytes of UTF-8", ErrStatement, MaxName)
		}
	}
	if s.Issued.Unix() < 0 || s.Expires.Unix() <= s.Issued.Unix() || s.Expires.Unix() > maxTime {
		return fmt.Errorf("%w: it must be issued after 1970 and expire after that, before the year 10000", ErrStatement)
	}
	return nil
}

func validName(name string) bool {
	return name != "" && len(name) <= MaxName && utf8.ValidString(name)
}
