package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// The keys of protection level HSM are objects on the token, which no transaction
// of the store covers. So that neither a crash nor a lost reply leaves an object
// that nobody knows of, or a version without its object:
//
//	make      orphan/ID is durable before the token is asked for the object; the
//	          version's transaction replaces it by object/NAMESPACE/ID.
//	destroy   the transaction that makes the version DESTROYED replaces object/ by
//	          orphan/; then the object is removed, and last orphan/.
//
// What is below orphan/ and not being made just now is removed in the background
// (orphans.go). Before that the record is changed, so that a version's transaction
// that comes late fails instead of taking an object that is about to go.

// objectRecord is a key on the token that a version owns.
type objectRecord struct {
	Key       ID     `json:"key"`
	Version   uint32 `json:"version"`
	Algorithm string `json:"algorithm"`
	Token     string `json:"token,omitempty"` // which has it; empty: the default one
}

// orphanRecord is a key on the token that no version owns, yet or any more. It may
// not be there, yet or any more.
type orphanRecord struct {
	objectRecord
	Namespace     ID        `json:"namespace"`
	NamespaceName string    `json:"namespace_name"`
	Created       time.Time `json:"created"`
	Doomed        bool      `json:"doomed,omitempty"` // no version can take it any more
	// Until is how long it is looked for: a call whose reply was lost may still be at
	// work in the device. Zero: it is certain whether the object is there.
	Until time.Time `json:"until,omitzero"`
}

// objectRef is what a version knows of its object: all but the private key.
type objectRef struct {
	ID        ObjectID `json:"id"`
	PublicKey []byte   `json:"public_key,omitempty"` // SubjectPublicKeyInfo, DER
}

func prefixObjects(ns ID) string           { return prefixObject + ns.String() + "/" }
func pathObject(ns ID, id ObjectID) string { return prefixObjects(ns) + id.String() }
func pathOrphan(id ObjectID) string        { return prefixOrphan + id.String() }

// objectAt returns the object that the path of its record names.
func objectAt(path string) (id ObjectID, err error) {
	err = id.UnmarshalText([]byte(path[strings.LastIndexByte(path, '/')+1:]))
	if err != nil {
		err = dataLoss(path, err)
	}
	return id, err
}

// newObject is an object that is being made for a version.
type newObject struct {
	HSMKey
	token  string         // which has it
	orphan store.Revision // of its record
	made   bool           // the token says so
	taken  bool           // by a version, durably
}

// objects follows the objects that this server is making, and those that it is to
// remove.
type objects struct {
	lock   sync.Mutex
	making map[ObjectID]struct{}
	sure   map[ObjectID]struct{} // made for certain, and not taken
	swept  map[ObjectID]struct{} // removed once, but looked for again
	wake   chan struct{}
	turns  [lockStripes]chan struct{} // by key id: one new object for a key at a time
	round  sync.Mutex                 // of removing orphans
	found  atomic.Pointer[ObjectCounts]
	left   atomic.Int64 // orphans after the last round
}

func newObjects() *objects {
	o := &objects{making: map[ObjectID]struct{}{}, sure: map[ObjectID]struct{}{}, swept: map[ObjectID]struct{}{}, wake: make(chan struct{}, 1)}
	for i := range o.turns {
		o.turns[i] = make(chan struct{}, 1)
	}
	return o
}

// turn waits until no other object is made for the key, so that of many callers
// that find its uses spent only one makes one. The key's own lock is not held
// meanwhile: the token may take its time, and other keys share that lock.
func (o *objects) turn(ctx context.Context, key ID) (done func(), err error) {
	turn := o.turns[uint64(key)%lockStripes]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return func() {}, hsmError("", ctx.Err())
	}
}

func (o *objects) begin(id ObjectID) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.making[id] = struct{}{}
}

// end lets an object go: what no version has taken is removed from now on.
func (o *objects) end(n *newObject) {
	o.lock.Lock()
	delete(o.making, n.ID)
	if n.made && !n.taken {
		o.sure[n.ID] = struct{}{}
	}
	o.lock.Unlock()
	if !n.taken {
		o.soon()
	}
}

func (o *objects) isMaking(id ObjectID) bool {
	o.lock.Lock()
	defer o.lock.Unlock()
	_, making := o.making[id]
	return making
}

// soon has the orphans looked after now.
func (o *objects) soon() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// makeObject makes a key on the token for a version that the trace's change is
// about to write, after the intent. done must be called when that is over, well or
// not; it is never nil.
func (s *Service) makeObject(ctx context.Context, t *trace, ns *namespace, o objectRecord) (done func(), err error) {
	return s.makeObjectBy(ctx, t, ns, o, func(ctx context.Context, hsm HSM, id ObjectID) (HSMKey, error) {
		return hsm.GenerateKey(ctx, id, o.Algorithm)
	})
}

// makeObjectBy is makeObject with another way to make the key, such as to import
// it. A key that wraps what is to be imported belongs to no key: o.Key is 0 then.
func (s *Service) makeObjectBy(ctx context.Context, t *trace, ns *namespace, o objectRecord,
	make func(context.Context, HSM, ObjectID) (HSMKey, error)) (done func(), err error) {
	n := &newObject{token: ns.Token}
	rand.Read(n.ID[:])
	o.Token = ns.Token
	hsm, err := s.tokenHSM(ns.Token)
	if err != nil {
		return func() {}, err
	}
	t.entry.Details = map[string]string{"algorithm": o.Algorithm, "object": n.ID.String()}
	if o.Key != 0 {
		t.entry.KeyID, t.entry.Version, t.algorithm = uint64(o.Key), o.Version, o.Algorithm
		t.entry.Details["key_id"] = o.Key.String()
	}
	if err := s.beginIntent(t); err != nil {
		return func() {}, err
	}
	s.objects.begin(n.ID)
	done = func() { s.objects.end(n) }
	if err := s.putOrphan(ctx, n, ns, o); err != nil {
		return done, err
	}
	made, err := make(ctx, hsm, n.ID)
	if err != nil {
		return done, s.notMade(ctx, n, o.Algorithm, err)
	}
	n.HSMKey, n.made = made, true
	t.object = n
	return done, nil
}

// putOrphan writes down that the object may be on the token.
func (s *Service) putOrphan(ctx context.Context, n *newObject, ns *namespace, o objectRecord) error {
	tx := &transaction{}
	tx.put(s.system, pathOrphan(n.ID), 0, orphanRecord{objectRecord: o, Namespace: ns.ID, NamespaceName: ns.Name, Created: s.now().UTC()})
	tx.then(func(revision store.Revision) { n.orphan = revision })
	err := tx.commit(ctx, s)
	if errors.Is(err, store.ErrUnknown) { // it is known: the change itself was not begun
		return &Error{Code: Unavailable, Reason: "STORE_UNAVAILABLE", Message: "the store is not available; try again later, nothing was changed", Cause: err}
	}
	return storeError(err)
}

// notMade words that the token has not made an object. Where that is certain its
// record is removed at once.
func (s *Service) notMade(ctx context.Context, n *newObject, algorithm string, err error) error {
	if errors.Is(err, ErrUnknownOutcome) || ctx.Err() != nil {
		return keyError(algorithm, err)
	}
	tx := &transaction{}
	tx.delete(pathOrphan(n.ID), n.orphan)
	if failed := tx.commit(ctx, s); failed != nil {
		s.log.Warn("the record of an object that was not made is removed later", "object", n.ID, "error", failed)
	}
	return keyError(algorithm, err)
}

// putOwned writes a version whose key the trace has made on the token, and takes
// that. Without one, something has changed since it was decided to make it.
func (s *Service) putOwned(t *trace, tx *transaction, d *domain.Domain, ns ID, k Key, a *keyring.Algorithm, number uint32) error {
	n := t.object
	if in := s.namespaceOfID(ns); n == nil || in == nil || in.Token != n.token {
		return storeError(store.ErrConflict)
	}
	record := versionRecord{Version: number, State: Enabled, Created: s.now().UTC(), Imported: t.importedTime(), Object: &objectRef{ID: n.ID, PublicKey: n.PublicKey}}
	if _, err := keyring.ExternalVersion(a, uint64(k.ID), number, n.PublicKey, nil); err != nil {
		return hsmError("", err)
	}
	if k.Transit != nil {
		var err error
		if record.Material, err = s.sealHMACKey(d, materialPlace(ns, k.ID, number, a.Name())); err != nil {
			return err
		}
	}
	tx.delete(pathOrphan(n.ID), n.orphan)
	tx.put(s.system, pathObject(ns, n.ID), 0, objectRecord{Key: k.ID, Version: number, Algorithm: a.Name(), Token: n.token})
	tx.put(d, pathVersion(ns, k.ID, number), 0, record)
	tx.put(d, pathUsage(ns, k.ID, number), 0, usageRecord{})
	tx.detail("protection", string(HSMLevel))
	tx.detail("object", n.ID.String())
	tx.then(func(store.Revision) { n.taken = true })
	return nil
}

// putOrphaned gives a version's object up: it is removed once the transaction is
// durable. The version keeps the id, to tell when that is done.
func (s *Service) putOrphaned(tx *transaction, at *target, v *versionRecord) {
	if v.Object == nil {
		return
	}
	id := v.Object.ID
	v.Object = &objectRef{ID: id}
	tx.discard(pathObject(at.key.ns.ID, id))
	tx.put(s.system, pathOrphan(id), 0, orphanRecord{Namespace: at.key.ns.ID, NamespaceName: at.key.ns.Name, Created: s.now().UTC(), Doomed: true,
		objectRecord: objectRecord{Key: at.key.ID, Version: v.Version, Algorithm: at.key.Algorithm, Token: at.key.ns.Token}})
	tx.then(func(store.Revision) { s.objects.soon() })
}
