package badger

import (
	"context"
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/keywright/keywright/kms/store"
)

// Bounds of a group. One more transaction of any size always fits: together they
// stay below what badger takes in one of its own (2.4 MiB, about 25,000 entries).
const (
	maxGroupBytes   = 64 << 10
	maxGroupChanges = 1024
	maxGroupTxns    = 256
	trimPerTxn      = 8 // change records given up for each transaction, at most
)

// request is a transaction on its way through the committer.
type request struct {
	txn  store.Txn
	done chan outcome // buffered, takes exactly one
}

type outcome struct {
	revision store.Revision
	err      error
}

// Commit implements store.Store. The context counts until the committer takes
// the transaction; from then on the outcome is awaited, so that it is known.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	if err := txn.Validate(); err != nil {
		return 0, err
	}
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	req := &request{txn: txn, done: make(chan outcome, 1)}
	select {
	case s.commits <- req:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.closing:
		return 0, store.ErrClosed
	}
	result := <-req.done
	return result.revision, result.err
}

// usable returns why a call need not begin.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

func (s *Store) commitLoop() {
	for {
		select {
		case first := <-s.commits:
			s.commitWaiting(first)
		case <-s.closing:
			return
		}
	}
}

// commitWaiting commits first together with those that wait behind it, as far as
// they fit into one group.
func (s *Store) commitWaiting(first *request) {
	g := s.newGroup()
	defer g.txn.Discard()
	for next := first; next != nil; next = s.waiting(g) {
		g.add(next)
	}
	g.settle(s.commitGroup(g))
}

// waiting returns the next transaction that can join g now, or nil.
func (s *Store) waiting(g *group) *request {
	if !g.hasRoom() {
		return nil
	}
	select {
	case next := <-s.commits:
		return next
	default:
		return nil
	}
}

// commitGroup makes the group durable, then visible.
func (s *Store) commitGroup(g *group) error {
	if g.failed != nil || g.head.revision == g.base.revision {
		return g.failed
	}
	if s.broken != nil {
		return s.broken
	}
	if err := s.dir.requireFree(s.opts.MinFree); err != nil {
		return err
	}
	if err := g.finish(s.opts.KeepRevisions); err != nil {
		return err
	}
	if err := s.write(g); err != nil {
		// What is on disk is no longer known, and a failed sync may not be
		// repeated: only reading everything anew tells.
		s.broken = fmt.Errorf("%w: an earlier write failed: restart the server", store.ErrUnavailable)
		return fmt.Errorf("%w: %w", store.ErrUnknown, err)
	}
	s.position.publish(g.head)
	return nil
}

func (s *Store) writeSynced(g *group) error {
	return errors.Join(g.txn.CommitAt(uint64(g.head.revision), nil), s.dir.syncNames())
}

// group is a run of transactions that become durable together.
type group struct {
	txn     *badgerdb.Txn // sees its own writes, so each transaction sees its predecessors
	base    head          // before the group
	head    head          // after it
	members []member
	bytes   int
	changes int
	failed  error // the group as a whole cannot be written
}

type member struct {
	*request
	outcome
	changed bool
}

func (s *Store) newGroup() *group {
	base := s.position.now().head
	return &group{txn: s.db.NewTransactionAt(uint64(base.revision), true), base: base, head: base}
}

// hasRoom tells whether any transaction, however large, still fits.
func (g *group) hasRoom() bool {
	return g.bytes < maxGroupBytes && g.changes < maxGroupChanges && len(g.members) < maxGroupTxns
}

func (g *group) add(req *request) {
	revision, err := g.apply(req.txn)
	changed := err == nil && revision > g.head.revision
	if changed {
		g.head.revision = revision
	}
	g.members = append(g.members, member{req, outcome{revision, err}, changed})
}

// apply checks a transaction and, if it changes anything, stages it under the
// next revision. It stages nothing when it returns an error, or else the whole
// group has failed.
func (g *group) apply(txn store.Txn) (store.Revision, error) {
	if err := g.check(txn.Expect); err != nil {
		return 0, err
	}
	revision := g.head.revision + 1
	events, err := g.events(txn, revision)
	if err != nil || len(events) == 0 {
		return g.head.revision, err
	}
	for _, e := range events {
		g.stage(e)
	}
	changes := encodeChanges(events)
	g.set(changeKey(revision), changes)
	g.bytes += len(changes)
	g.changes += len(events)
	return revision, nil
}

func (g *group) check(expectations []store.Expect) error {
	for _, e := range expectations {
		record, err := getRecord(g.txn, e.Key)
		if err != nil {
			return err
		}
		if record.Revision != e.Revision {
			return &store.ConflictError{Key: e.Key, Want: e.Revision, Have: record.Revision}
		}
	}
	return nil
}

// events are the changes that txn makes: all puts, and deletes of what exists.
func (g *group) events(txn store.Txn, revision store.Revision) ([]store.Event, error) {
	events := make([]store.Event, 0, len(txn.Puts)+len(txn.Deletes))
	for _, p := range txn.Puts {
		events = append(events, store.Event{Key: p.Key, Value: p.Value, Revision: revision})
	}
	for _, key := range txn.Deletes {
		record, err := getRecord(g.txn, key)
		if err != nil {
			return nil, err
		}
		if record.Revision != 0 {
			events = append(events, store.Event{Key: key, Revision: revision, Deleted: true})
		}
	}
	return events, nil
}

func (g *group) stage(e store.Event) {
	if e.Deleted {
		g.remove(recordKey(e.Key))
		return
	}
	g.set(recordKey(e.Key), encodeRecord(e.Revision, e.Value))
}

// finish adds the head and gives up the oldest changes beyond keep.
func (g *group) finish(keep uint64) error {
	most := trimPerTxn * len(g.members)
	for range most {
		if uint64(g.head.revision-g.head.oldest) < keep {
			break
		}
		g.remove(changeKey(g.head.oldest))
		g.head.oldest++
	}
	g.set(headKey(), g.head.encode())
	return g.failed
}

func (g *group) set(key, value []byte) { g.fail(g.txn.Set(key, value)) }

func (g *group) remove(key []byte) { g.fail(g.txn.Delete(key)) }

func (g *group) fail(err error) {
	if err != nil && g.failed == nil {
		g.failed = storageError("stage transaction", err)
	}
}

// settle tells every member its outcome; err is what became of the group. A
// member that changed nothing is not in doubt even if the group is, but what it
// saw may be.
func (g *group) settle(err error) {
	for _, m := range g.members {
		switch {
		case err == nil || m.err != nil:
		case m.changed:
			m.outcome = outcome{err: err}
		default:
			m.outcome = outcome{err: fmt.Errorf("%w: a transaction before this one failed", store.ErrUnavailable)}
		}
		m.done <- m.outcome
	}
}
