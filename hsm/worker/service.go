package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/algorithm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

var _ hsm.Service = (*Supervisor)(nil)

// do makes a call of some worker, and returns which. What a lost worker had is asked
// once more, of another.
func (s *Supervisor) do(ctx context.Context, q query) (*process, error) {
	p, err := s.try(ctx, q)
	if err == nil {
		s.health.good()
		return p, nil
	}
	e := asError(err)
	s.health.bad(e)
	return nil, e
}

func (s *Supervisor) try(ctx context.Context, q query) (*process, error) {
	if ctx.Err() != nil {
		return nil, own(q.op, context.Cause(ctx))
	}
	began := time.Now()
	for again := false; ; {
		p, err := s.pick(ctx, q.op)
		if err != nil {
			return nil, err
		}
		if err = s.introduce(ctx, p, q.object); err == nil {
			err = p.ask(ctx, q)
		}
		var lost *lostError
		if !errors.As(err, &lost) {
			return p, err
		}
		if lost.sent && q.once {
			return nil, &hsm.Error{Op: q.op, Class: hsm.ClassUnknown, Err: lost}
		}
		if lost.sent && again || time.Since(began) >= s.config.HSM.Timeout {
			return nil, unavailable(q.op, lost)
		}
		again = again || lost.sent
	}
}

func newID() (id hsm.KeyID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// GenerateRoot implements hsm.Service.
func (s *Supervisor) GenerateRoot(ctx context.Context) (hsm.Root, error) {
	return s.GenerateRootAs(ctx, newID())
}

// GenerateRootAs implements hsm.Service.
func (s *Supervisor) GenerateRootAs(ctx context.Context, id hsm.KeyID) (hsm.Root, error) {
	var made hsm.Root
	p, err := s.do(ctx, query{op: "generate root", method: methodGenerateRoot, once: true,
		body: func(to []byte) []byte { return appendID(to, id) },
		result: func(b *wire.Body) error {
			made = readRoot(b)
			if n := len(made.CheckValue); n < minCheckValue || n > maxCheckValue {
				b.Fail("check value of %d bytes, want %d to %d", n, minCheckValue, maxCheckValue)
			}
			return expectID(made.ID, id)
		}})
	if err != nil {
		return hsm.Root{ID: id}, err
	}
	s.learn(p, object{id: id, root: &made})
	return made, nil
}

// Bounds of hsm.Root.CheckValue, in bytes.
const (
	minCheckValue = 16
	maxCheckValue = 64
)

// FindRoot implements hsm.Service.
func (s *Supervisor) FindRoot(ctx context.Context, id hsm.KeyID, checkValue []byte) (hsm.Root, error) {
	q, found := findRoot(hsm.Root{ID: id, CheckValue: slices.Clone(checkValue)})
	_, known := s.objects.get(id)
	p, err := s.do(ctx, q)
	if known && errors.Is(err, hsm.ErrRootNotFound) {
		return hsm.Root{}, unavailable(q.op, asError(err).Err) // it was there
	}
	if err != nil {
		return hsm.Root{}, err
	}
	s.learn(p, object{id: id, root: found})
	return *found, nil
}

// Wrap implements hsm.Service.
func (s *Supervisor) Wrap(ctx context.Context, root hsm.KeyID, version uint32, plaintext, aad []byte) (blob []byte, err error) {
	_, err = s.do(ctx, query{op: "wrap", method: methodWrap, object: root,
		body: func(to []byte) []byte {
			to = wire.AppendUint32(appendID(to, root), version)
			return wire.AppendBytes(wire.AppendBytes(to, plaintext), aad)
		},
		result: func(b *wire.Body) error {
			blob = b.Bytes()
			return expectBlob(blob, root, version, len(plaintext))
		}})
	if err != nil {
		return nil, err
	}
	return blob, nil
}

// tagSize is that of AES-GCM in the token, in bytes.
const tagSize = 16

func expectBlob(blob []byte, root hsm.KeyID, version uint32, size int) error {
	info, err := hsm.ParseBlob(blob)
	if err != nil {
		return fmt.Errorf("%w: %w", wire.ErrNonsense, err)
	}
	if info.Root != root || info.RootVersion != version || len(info.Ciphertext) != size+tagSize {
		return fmt.Errorf("%w: wrap blob of something else", wire.ErrNonsense)
	}
	return nil
}

// Unwrap implements hsm.Service.
func (s *Supervisor) Unwrap(ctx context.Context, blob, aad []byte) (plaintext []byte, err error) {
	info, err := hsm.ParseBlob(blob)
	if err != nil {
		return nil, own("unwrap", err)
	}
	_, err = s.do(ctx, query{op: "unwrap", method: methodUnwrap, object: info.Root,
		body: func(to []byte) []byte { return wire.AppendBytes(wire.AppendBytes(to, blob), aad) },
		result: func(b *wire.Body) error {
			plaintext = b.Bytes()
			return expectSize(plaintext, len(info.Ciphertext)-tagSize)
		}})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

func expectSize(got []byte, want int) error {
	if len(got) != want {
		return fmt.Errorf("%w: %d bytes, want %d", wire.ErrNonsense, len(got), want)
	}
	return nil
}

// Random implements hsm.Service.
func (s *Supervisor) Random(ctx context.Context, n int) (random []byte, err error) {
	if n < 1 || n > hsm.MaxRandom {
		return nil, own("random", fmt.Errorf("%w: %d random bytes, want 1 to %d", hsm.ErrInvalidArgument, n, hsm.MaxRandom))
	}
	_, err = s.do(ctx, query{op: "random", method: methodRandom,
		body: func(to []byte) []byte { return wire.AppendUint32(to, uint32(n)) },
		result: func(b *wire.Body) error {
			random = b.Bytes()
			return expectSize(random, n)
		}})
	if err != nil {
		return nil, err
	}
	return random, nil
}

// GenerateSigner implements hsm.Service.
func (s *Supervisor) GenerateSigner(ctx context.Context) (hsm.Signer, error) {
	id := newID()
	q, made := signerQuery("generate signer", methodGenerateSigner, id)
	q.once = true
	p, err := s.do(ctx, q)
	if err != nil {
		return hsm.Signer{ID: id}, err
	}
	s.learn(p, object{id: id, signer: made})
	return *made, nil
}

// FindSigner implements hsm.Service.
func (s *Supervisor) FindSigner(ctx context.Context, id hsm.KeyID) (hsm.Signer, error) {
	q, found := findSigner(id)
	p, err := s.do(ctx, q)
	if err != nil {
		return hsm.Signer{}, err
	}
	if seen, ok := s.objects.get(id); ok && seen.signer != nil {
		if err := sameSigner(*found, *seen.signer); err != nil {
			return hsm.Signer{}, err
		}
	}
	s.learn(p, object{id: id, signer: found})
	return *found, nil
}

// Sign implements hsm.Service. The signature is verified here too, with the public
// key that was seen first.
func (s *Supervisor) Sign(ctx context.Context, id hsm.KeyID, message []byte) (signed []byte, err error) {
	seen, ok := s.objects.get(id)
	if !ok || seen.signer == nil {
		return nil, own("sign", fmt.Errorf("%w: %s was neither generated nor found on this token", hsm.ErrSignerNotFound, id))
	}
	_, err = s.do(ctx, query{op: "sign", method: methodSign, object: id,
		body: func(to []byte) []byte { return wire.AppendBytes(appendID(to, id), message) },
		result: func(b *wire.Body) error {
			signed = b.Bytes()
			return expectSignature(*seen.signer, message, signed)
		}})
	if err != nil {
		return nil, err
	}
	return signed, nil
}

func expectSignature(by hsm.Signer, message, signed []byte) error {
	row, ok := algorithm.Lookup(by.Algorithm)
	if ok && row.Signing != nil && row.Signing.Verify(by.PublicKey, row.Digest(message), signed) {
		return nil
	}
	return fmt.Errorf("%w: a signature that does not verify", wire.ErrNonsense)
}

// Destroy implements hsm.Service. Every worker forgets the object: one that does not
// would take its absence for a fault of the token, and is replaced.
func (s *Supervisor) Destroy(ctx context.Context, id hsm.KeyID) error {
	q := query{op: "destroy", method: methodDestroy, body: func(to []byte) []byte { return appendID(to, id) }}
	first, err := s.do(ctx, q)
	if err != nil {
		return err
	}
	s.objects.remove(id)
	first.known.Delete(id)
	for _, p := range *s.live.Load() {
		if p == first {
			continue
		}
		p.known.Delete(id)
		if err := p.ask(context.WithoutCancel(ctx), q); err != nil {
			p.lose(fmt.Errorf("it did not forget an object that was destroyed: %w", err))
		}
	}
	return nil
}
