// Package entropy mixes the token's randomness with the operating system's, so
// that a key is unguessable as long as either source is.
//
// A Source is seeded by the caller from the token from time to time; reading it
// costs no call to the device. It is safe for concurrent use.
package entropy

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"
)

// SeedSize is how many bytes of the token's randomness a seed has.
const SeedSize = 32

// maxBlock is what one HKDF-SHA-256 expansion yields at most (RFC 5869).
const maxBlock = 255 * sha256.Size

// ErrNotSeeded says that no seed was given yet.
var ErrNotSeeded = errors.New("entropy: the token's randomness has not been read yet")

// Source yields HKDF-SHA-256(key = token's seed, salt = 32 fresh bytes of the
// operating system) combined by exclusive or with further bytes of the
// operating system.
type Source struct {
	seed atomic.Pointer[[SeedSize]byte]
}

// Seed replaces the token's part.
func (s *Source) Seed(b [SeedSize]byte) { s.seed.Store(&b) }

// Read fills p, or fails with ErrNotSeeded.
func (s *Source) Read(p []byte) (int, error) {
	seed := s.seed.Load()
	if seed == nil {
		return 0, ErrNotSeeded
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxBlock)
		if err := mix(rand.Reader, rest[:n], seed[:]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func mix(system io.Reader, p, seed []byte) error {
	var salt [32]byte
	if _, err := io.ReadFull(system, salt[:]); err != nil {
		return err
	}
	stream, err := hkdf.Key(sha256.New, seed, salt[:], "keywright entropy v1", len(p))
	if err != nil {
		return err
	}
	defer clear(stream)
	if _, err := io.ReadFull(system, p); err != nil {
		return err
	}
	for i, b := range stream {
		p[i] ^= b
	}
	return nil
}
