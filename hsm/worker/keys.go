package worker

import (
	"context"
	"fmt"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// GenerateKey implements hsm.Keys.
func (s *Supervisor) GenerateKey(ctx context.Context, id hsm.KeyID, algorithm string) (hsm.Key, error) {
	q, made := keyQuery("generate key", methodGenerateKey, id, algorithm, nil)
	return s.newKey(ctx, q, made)
}

// ImportKey implements hsm.Keys.
func (s *Supervisor) ImportKey(ctx context.Context, id hsm.KeyID, algorithm string, material []byte) (hsm.Key, error) {
	q, made := keyQuery("import key", methodImportKey, id, algorithm,
		func(to []byte) []byte { return wire.AppendBytes(to, material) })
	return s.newKey(ctx, q, made)
}

// newKey asks for a key that is not there yet.
func (s *Supervisor) newKey(ctx context.Context, q query, made *hsm.Key) (hsm.Key, error) {
	q.once = true
	p, err := s.do(ctx, q)
	if err != nil {
		return hsm.Key{}, err
	}
	s.learn(p, object{id: made.ID, key: made})
	return *made, nil
}

// FindKey implements hsm.Keys.
func (s *Supervisor) FindKey(ctx context.Context, id hsm.KeyID, algorithm string) (hsm.Key, error) {
	q, found := findKey(id, algorithm)
	p, err := s.do(ctx, q)
	if err != nil {
		return hsm.Key{}, err
	}
	s.learn(p, object{id: id, key: found})
	return *found, nil
}

// UseKey implements hsm.Keys.
func (s *Supervisor) UseKey(ctx context.Context, id hsm.KeyID, algorithm string, use hsm.Use, data, extra []byte) (out []byte, err error) {
	_, err = s.do(ctx, query{op: "use key", method: methodUseKey, object: id,
		body: func(to []byte) []byte {
			to = append(wire.AppendBytes(appendID(to, id), algorithm), byte(use))
			return wire.AppendBytes(wire.AppendBytes(to, data), extra)
		},
		result: func(b *wire.Body) error {
			out = b.Bytes()
			return expectUse(use, len(data), len(out))
		}})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// overhead is how much longer a ciphertext of UseEncrypt is than its plaintext: IV
// and tag, in bytes.
const overhead = 12 + tagSize

// most is the longest signature, tag or secret of one use, in bytes: an RSA-8192
// signature.
const most = 1 << 10

// expectUse checks the size of what a use of a key returns.
func expectUse(use hsm.Use, in, out int) error {
	low, high := 1, most
	switch use {
	case hsm.UseEncrypt:
		low, high = in+overhead, in+overhead
	case hsm.UseDecrypt:
		low, high = in-overhead, in-overhead
	case hsm.UseDecryptAsymmetric: // of which the empty plaintext is one
		low, high = 0, in
	}
	if out < low || out > high {
		return fmt.Errorf("%w: use %d of %d bytes returned %d, want %d to %d", wire.ErrNonsense, use, in, out, low, high)
	}
	return nil
}

// ListKeys implements hsm.Keys.
func (s *Supervisor) ListKeys(ctx context.Context) (ids []hsm.KeyID, err error) {
	_, err = s.do(ctx, query{op: "list keys", method: methodListKeys,
		result: func(b *wire.Body) error {
			ids = readIDs(b)
			return nil
		}})
	if err != nil {
		return nil, err
	}
	return ids, nil
}
