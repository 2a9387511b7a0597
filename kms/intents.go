package kms

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/store"
)

// A change leaves a mark in the store, in its own transaction and under its
// intent's sequence: so a restart can tell of an intent that has no outcome
// whether the change was made, and write the outcome that the crash prevented.
// The other way round, an outcome in the log whose mark is missing tells that the
// store was put back to an older state (freshness.go). So a mark is removed only
// together with moving on the record that takes its place.

// intentMark says that the change of an intent was committed, and what it wrote.
type intentMark struct {
	Records map[string]string `json:"records,omitempty"` // as in audit.Entry
}

// intentsRecord says where a restart must begin to look for open intents.
type intentsRecord struct {
	Below  uint64 `json:"below"` // all intents with a lower sequence have outcomes
	Anchor anchor `json:"anchor"`
}

const (
	// settlePage is how many marks are removed in one transaction.
	settlePage = 100
	// settleLines is how many lines the log may grow by, without a change, before
	// the record moves on.
	settleLines = 100_000
)

// reasonResolved marks an outcome that was found out after a restart.
const reasonResolved = "RESOLVED_AT_START"

func pathIntent(sequence uint64) string { return fmt.Sprintf("%s%016x", prefixIntent, sequence) }

// openIntents follows the intents of this life of the server.
type openIntents struct {
	lock     sync.Mutex
	open     map[*openIntent]struct{}
	settled  []uint64              // have an outcome, and a mark that is not removed yet
	stored   stored[intentsRecord] // changed by the jobs' goroutine alone
	anchored time.Time             // when stored was written
}

// openIntent has no outcome yet. floor is a bound below its sequence, known
// before the intent is written.
type openIntent struct{ floor, sequence uint64 }

func (o *openIntents) begin(floor uint64) *openIntent {
	o.lock.Lock()
	defer o.lock.Unlock()
	intent := &openIntent{floor: floor}
	if o.open == nil {
		o.open = map[*openIntent]struct{}{}
	}
	o.open[intent] = struct{}{}
	return intent
}

// end forgets an intent; with a mark, that is to be removed.
func (o *openIntents) end(intent *openIntent, marked bool) {
	o.lock.Lock()
	defer o.lock.Unlock()
	delete(o.open, intent)
	if marked {
		o.settled = append(o.settled, intent.sequence)
	}
}

// take returns up to settlePage settled intents, lowest first, and a sequence
// below which no intent is open and no other is settled, next at most and never
// lower than before: who took its floor long before it began may have one below,
// but the sequence that it gets is not.
func (o *openIntents) take(next uint64) (settled []uint64, below uint64) {
	o.lock.Lock()
	defer o.lock.Unlock()
	below = next
	for intent := range o.open {
		below = min(below, intent.floor)
	}
	below = max(below, o.stored.value.Below)
	slices.Sort(o.settled)
	n, _ := slices.BinarySearch(o.settled, below)
	if n > settlePage {
		n, below = settlePage, o.settled[settlePage]
	}
	settled, o.settled = o.settled[:n:n], o.settled[n:]
	return settled, below
}

func (o *openIntents) keep(record stored[intentsRecord]) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.stored = record
}

// floor returns a sequence below which no intent is needed at the next start.
func (o *openIntents) floor() uint64 {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.stored.value.Below
}

func (o *openIntents) giveBack(settled []uint64) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.settled = append(o.settled, settled...)
}

// settleIntents removes the marks of intents that have outcomes, and moves the
// anchor on. Only the jobs' goroutine calls it, and Close after that has ended.
func (s *Service) settleIntents(ctx context.Context) error {
	for {
		next := s.audit.Next() // before looking: what is begun later has a higher sequence
		settled, below := s.intents.take(next)
		if len(settled) == 0 && below < s.intents.stored.value.Below+settleLines && !s.anchorDue(next) {
			return nil
		}
		tx := &transaction{}
		for _, sequence := range settled {
			tx.discard(pathIntent(sequence))
		}
		err := s.putIntents(tx, below)
		if err == nil {
			err = storeError(tx.commit(ctx, s))
		}
		if err != nil {
			s.intents.giveBack(settled)
			return errors.Join(err, s.readIntents(ctx))
		}
		if len(settled) < settlePage {
			return nil
		}
	}
}

func (s *Service) putIntents(tx *transaction, below uint64) error {
	at, err := s.dropAnchor()
	if err != nil {
		return err
	}
	record := intentsRecord{Below: below, Anchor: at}
	tx.put(s.system, pathIntents, s.intents.stored.revision, record)
	tx.then(func(revision store.Revision) {
		s.intents.keep(stored[intentsRecord]{value: record, revision: revision})
		s.intents.anchored = s.now()
	})
	return nil
}

func (s *Service) readIntents(ctx context.Context) error {
	record, err := read[intentsRecord](ctx, s, s.system, pathIntents)
	if errors.Is(err, store.ErrNotFound) {
		return dataLoss(pathIntents, err)
	}
	if err == nil {
		s.intents.keep(record)
	}
	return err
}

// resolveIntents writes, at start, the outcomes that a crash prevented.
func (s *Service) resolveIntents(ctx context.Context, open map[uint64]audit.Entry) error {
	for _, sequence := range slices.Sorted(maps.Keys(open)) {
		if err := s.resolveIntent(ctx, open[sequence]); err != nil {
			return err
		}
	}
	return s.removeMarks(ctx)
}

// resolveIntent writes the outcome of one intent: OK if its mark is there, which
// came with the change, else ABORTED.
func (s *Service) resolveIntent(ctx context.Context, intent audit.Entry) error {
	outcome := intent
	outcome.Time, outcome.Phase, outcome.Intent = s.now(), audit.PhaseOutcome, intent.Sequence
	outcome.Outcome, outcome.Reason = string(OK), reasonResolved
	mark, err := read[intentMark](ctx, s, s.system, pathIntent(intent.Sequence))
	outcome.Records = mark.value.Records
	if errors.Is(err, store.ErrNotFound) {
		outcome.Outcome, err = string(Aborted), nil
	}
	if err != nil {
		return err
	}
	_, err = s.audit.Append(&outcome, audit.Sync)
	return err
}

// removeMarks removes what earlier lives left, once all their intents have outcomes.
func (s *Service) removeMarks(ctx context.Context) error {
	for {
		page, err := s.store.List(ctx, prefixIntent, "", settlePage)
		if err != nil {
			return storeError(err)
		}
		if len(page.Records) == 0 {
			return nil
		}
		tx := &transaction{}
		for _, record := range page.Records {
			tx.discard(record.Key)
		}
		if err := s.putIntents(tx, s.audit.Next()); err != nil {
			return err
		}
		if err := tx.commit(ctx, s); err != nil {
			return storeError(err)
		}
	}
}
