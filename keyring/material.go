package keyring

import "io"

// Material is the secret bytes of one key version, encoded as the package
// comment says for its algorithm. It prints as [redacted] in fmt, JSON and slog.
// Copies share the bytes: wiping one wipes all. Not safe for concurrent use
// with Wipe.
type Material struct {
	redacted
	secret hidden[[]byte]
}

// NewMaterial takes ownership of b: the caller neither changes nor keeps it.
func NewMaterial(b []byte) Material { return Material{secret: hide(b)} }

// Bytes returns the secret itself, not a copy, to seal it; nil once wiped.
func (m Material) Bytes() []byte {
	if b := m.secret.Get(); b != nil {
		return *b
	}
	return nil
}

// Wipe zeroes the bytes and forgets them. Versions built before live on.
func (m Material) Wipe() {
	if b := m.secret.Get(); b != nil {
		clear(*b)
		*b = nil
	}
}

// randomBytes draws n bytes, or fails with ErrRandom.
func randomBytes(random io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		clear(b)
		return nil, ErrRandom
	}
	return b, nil
}

// scalarAttempts bounds rejection sampling. Every curve in the table accepts
// nearly every draw, so only a stuck source gets there.
const scalarAttempts = 32

// randomScalar draws a private scalar by rejection (FIPS 186-5, A.2.2), which
// makes it uniform in [1, n-1]; valid tells whether a candidate is in range.
func randomScalar(random io.Reader, bits int, valid func([]byte) bool) ([]byte, error) {
	size := (bits + 7) / 8
	for range scalarAttempts {
		b, err := randomBytes(random, size)
		if err != nil {
			return nil, err
		}
		b[0] &= 0xff >> (8*size - bits)
		if valid(b) {
			return b, nil
		}
		clear(b)
	}
	return nil, ErrRandom
}
