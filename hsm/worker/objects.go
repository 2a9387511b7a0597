package worker

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// object is a root key, a signer or a key that was generated or found, as every
// later worker has to find it again. Exactly one field beside the id is set.
type object struct {
	id     hsm.KeyID
	root   *hsm.Root
	signer *hsm.Signer
	key    *hsm.Key
}

// objects remembers what was seen, across workers. The zero value is empty. Safe for
// concurrent use.
type objects struct {
	mu   sync.RWMutex
	seen map[hsm.KeyID]object
}

func (o *objects) get(id hsm.KeyID) (object, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	seen, ok := o.seen[id]
	return seen, ok
}

func (o *objects) put(seen object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil {
		o.seen = map[hsm.KeyID]object{}
	}
	o.seen[seen.id] = seen
}

func (o *objects) remove(id hsm.KeyID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.seen, id)
}

func (o *objects) roots() (roots []object) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, seen := range o.seen {
		if seen.root != nil {
			roots = append(roots, seen)
		}
	}
	return roots
}

// learn remembers an object that a worker has generated or found.
func (s *Supervisor) learn(p *process, o object) {
	s.objects.put(o)
	p.known.Store(o.id, true)
}

// introduce has a worker find an object that another one has generated or found. What
// was never seen is left to the worker to refuse.
func (s *Supervisor) introduce(ctx context.Context, p *process, id hsm.KeyID) error {
	if id == (hsm.KeyID{}) {
		return nil
	}
	if _, ok := p.known.Load(id); ok {
		return nil
	}
	o, ok := s.objects.get(id)
	if !ok {
		return nil
	}
	return s.find(ctx, p, o)
}

// find has a worker find an object that was seen before. That a root key or signer is
// not there, or is another one now, is the device's fault; a key may have been
// destroyed by others, and the worker has made sure of the token before it says so.
func (s *Supervisor) find(ctx context.Context, p *process, o object) error {
	var err error
	switch {
	case o.root != nil:
		var q query
		q, _ = findRoot(*o.root)
		err = p.ask(ctx, q)
	case o.signer != nil:
		q, found := findSigner(o.id)
		if err = p.ask(ctx, q); err == nil {
			err = sameSigner(*found, *o.signer)
		}
	default:
		q, found := findKey(o.id, o.key.Algorithm)
		if err = p.ask(ctx, q); err == nil && !bytes.Equal(found.PublicKey, o.key.PublicKey) {
			err = unavailable(q.op, fmt.Errorf("public key of %s is another one now", o.id))
		}
	}
	var e *hsm.Error
	if o.key == nil && errors.As(err, &e) && e.Class == hsm.ClassCaller && ctx.Err() == nil {
		return &hsm.Error{Op: e.Op, Class: hsm.ClassDevice, Code: e.Code, Err: e.Err}
	}
	if err == nil {
		p.known.Store(o.id, true)
	}
	return err
}

func findRoot(want hsm.Root) (query, *hsm.Root) {
	found := new(hsm.Root)
	return query{op: "find root", method: methodFindRoot,
		body:   func(to []byte) []byte { return appendRoot(to, want) },
		result: func(b *wire.Body) error { *found = readRoot(b); return expectRoot(*found, want) },
	}, found
}

func expectRoot(got, want hsm.Root) error {
	if got.ID != want.ID || !bytes.Equal(got.CheckValue, want.CheckValue) {
		return fmt.Errorf("%w: another root key", wire.ErrNonsense)
	}
	return nil
}

func findSigner(id hsm.KeyID) (query, *hsm.Signer) {
	return signerQuery("find signer", methodFindSigner, id)
}

// signerQuery asks for a signer by its id.
func signerQuery(op string, m method, id hsm.KeyID) (query, *hsm.Signer) {
	found := new(hsm.Signer)
	return query{op: op, method: m,
		body: func(to []byte) []byte { return appendID(to, id) },
		result: func(b *wire.Body) error {
			*found = readSigner(b)
			return expectID(found.ID, id)
		},
	}, found
}

func findKey(id hsm.KeyID, algorithm string) (query, *hsm.Key) {
	return keyQuery("find key", methodFindKey, id, algorithm, nil)
}

// keyQuery asks for a key by its id and algorithm, and what more there is to say.
func keyQuery(op string, m method, id hsm.KeyID, algorithm string, more func([]byte) []byte) (query, *hsm.Key) {
	found := new(hsm.Key)
	return query{op: op, method: m,
		body: func(to []byte) []byte {
			to = wire.AppendBytes(appendID(to, id), algorithm)
			if more != nil {
				to = more(to)
			}
			return to
		},
		result: func(b *wire.Body) error {
			*found = readKey(b)
			if found.Algorithm != algorithm {
				return fmt.Errorf("%w: key of algorithm %.40q", wire.ErrNonsense, found.Algorithm)
			}
			return expectID(found.ID, id)
		},
	}, found
}

func expectID(got, want hsm.KeyID) error {
	if got != want {
		return fmt.Errorf("%w: object %s in place of %s", wire.ErrNonsense, got, want)
	}
	return nil
}

// sameSigner tells whether a signer is still the one first seen.
func sameSigner(got, want hsm.Signer) error {
	key, ok := want.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || got.Algorithm != want.Algorithm || !key.Equal(got.PublicKey) {
		return unavailable("find signer", fmt.Errorf("public key of signer %s is another one now", want.ID))
	}
	return nil
}
