package kms

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/store"
)

// Store and audit log vouch for each other. The store holds an anchor, the size
// and root of the log at a recent time: a log that does not reach so far, or had
// another past, is older or another one. And each change that the log says was
// made has either left its mark in the store or lies before the record that says
// which marks were removed: a store without it is older. What was put back is
// refused at start until an operator accepts it by name.

// anchorInterval is how old the anchor may become while the log grows.
const anchorInterval = 10 * time.Second

// anchor is a state of the audit log that was on disk when it was written.
type anchor struct {
	Size uint64 `json:"size"`
	Root []byte `json:"root,omitempty"` // of the tree of so many lines (RFC 6962)
}

func (s *Service) anchorDue(next uint64) bool {
	return next > s.intents.stored.value.Anchor.Size && s.now().Sub(s.intents.anchored) >= anchorInterval
}

// dropAnchor describes the log as it is on disk now.
func (s *Service) dropAnchor() (anchor, error) {
	size, err := s.audit.SyncAll()
	if err != nil {
		return anchor{}, auditError(err)
	}
	root, err := s.audit.Root(size)
	if err != nil {
		return anchor{}, auditError(err)
	}
	return anchor{Size: size, Root: root[:]}, nil
}

// RollbackError says that store or audit log were put back to an older state, or
// are not of each other. A start is refused until AcceptRollback is told its Name.
type RollbackError struct {
	Name    string // such as "store-before-1042"
	Message string

	lost []uint64 // intents of which the store does not have the change
	kept []uint64 // those after the first lost one that it has
}

// ErrRollback is what errors.Is finds in every RollbackError.
var ErrRollback = errors.New("store or audit log were put back")

// rollbackOfLog begins the names of what became of the log, not of the store.
const rollbackOfLog = "log-"

func (e *RollbackError) ofLog() bool { return strings.HasPrefix(e.Name, rollbackOfLog) }

// Is makes every RollbackError an ErrRollback.
func (e *RollbackError) Is(target error) bool { return target == ErrRollback }

// Error says what was found, and how to accept it.
func (e *RollbackError) Error() string {
	return fmt.Sprintf("%s. If you put it back on purpose, and know what is lost: keywrightd accept-rollback %s", e.Message, e.Name)
}

// checkFresh makes sure, at start, that store and log are of each other and of
// the same time. It returns the intents that a crash left open.
func (s *Service) checkFresh(ctx context.Context) (open map[uint64]audit.Entry, err error) {
	if err := s.readIntents(ctx); err != nil {
		return nil, err
	}
	if err := s.checkAnchor(); err != nil {
		return nil, err
	}
	if open, err = s.readOutcomes(ctx); err != nil {
		return open, err
	}
	if err := s.checkMarks(ctx); err != nil {
		return open, err
	}
	return open, s.checkSigned()
}

// checkAnchor compares the log with the anchor in the store.
func (s *Service) checkAnchor() error {
	at, next := s.intents.stored.value.Anchor, s.audit.Next()
	if at.Size > next {
		return shortLog(at.Size, next)
	}
	root, err := s.audit.Root(at.Size)
	if err != nil {
		return fmt.Errorf("compare the audit log with the store: %w", err)
	}
	if at.Size > 0 && string(root[:]) != string(at.Root) {
		return &RollbackError{Name: fmt.Sprintf("log-differs-%d", at.Size),
			Message: fmt.Sprintf("the first %d entries of the audit log are not those that the store has seen: the log was changed, or is another one; keywright audit verify names the entry", at.Size)}
	}
	return nil
}

// readOutcomes returns the intents that have no outcome, and fails with a
// RollbackError if the store lacks a change whose outcome says that it was made.
func (s *Service) readOutcomes(ctx context.Context) (open map[uint64]audit.Entry, err error) {
	open = map[uint64]audit.Entry{}
	below := s.intents.stored.value.Below
	rollback := &RollbackError{}
	err = s.audit.Scan(ctx, audit.Filter{From: below}, func(e audit.Entry) error {
		switch {
		case e.Phase == audit.PhaseIntent:
			open[e.Sequence] = e
		case e.Phase == audit.PhaseOutcome && e.Reason != reasonOutcomeUnknown:
			delete(open, e.Intent)
			if e.Outcome == string(OK) && e.Intent >= below {
				return s.checkMark(ctx, e, rollback)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for open intents: %w", err)
	}
	if len(rollback.lost) > 0 {
		return open, rollback
	}
	return open, nil
}

// checkMarks makes sure that the log has the intent of each change that left a
// mark: it was on disk before the change, perhaps after the anchor.
func (s *Service) checkMarks(ctx context.Context) error {
	seen := uint64(0)
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefixIntent, after, store.MaxPageRecords)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			sequence, err := strconv.ParseUint(strings.TrimPrefix(record.Key, prefixIntent), 16, 64)
			if err != nil {
				return dataLoss(record.Key, err)
			}
			seen = max(seen, sequence+1)
		}
		after = page.Next
	}
	if next := s.audit.Next(); seen > next {
		return shortLog(seen, next)
	}
	return nil
}

// shortLog says that the log has fewer entries than the store has seen.
func shortLog(seen, next uint64) *RollbackError {
	return &RollbackError{Name: fmt.Sprintf("log-before-%d", seen),
		Message: fmt.Sprintf("the audit log has %d entries, but the store has seen %d: the log was put back to an older state, or its end was cut off; entries %d to %d are missing",
			next, seen, next, seen-1)}
}

// AcceptRollback makes an installation start again whose store or audit log was
// put back, and says so in the log. name is the RollbackError's; any other, or
// none to accept, is an error, and nothing is changed. The server must be stopped.
func AcceptRollback(ctx context.Context, c Config, name string) error {
	s := newService(c.withDefaults())
	if err := s.load(ctx); err != nil {
		return err
	}
	open, err := s.checkFresh(ctx)
	if rejected := s.audit.Rejected(); err == nil && rejected != nil { // in entries that the store has not seen
		err = &RollbackError{Name: fmt.Sprintf("log-unlike-checkpoint-%d", rejected.Size), Message: rejected.Reason}
	}
	var rollback *RollbackError
	switch {
	case err == nil:
		return precondition("NO_ROLLBACK", "store and audit log are of each other and of the same time; there is nothing to accept")
	case !errors.As(err, &rollback):
		return err
	case rollback.Name != name:
		return precondition("OTHER_ROLLBACK", "what is to be accepted is %s, not %q: %s", rollback.Name, name, rollback.Message)
	}
	if len(s.audit.Keys()) == 0 { // the log begins anew
		err = s.beginSuccession(ctx, *s.checkpoints.current.Load())
	} else {
		err = s.completeSuccession(ctx, s.installation)
	}
	if err != nil {
		return err
	}
	if err := s.auditRollback(rollback); err != nil {
		return err
	}
	if rollback.ofLog() {
		if err := s.auditRecords(ctx); err != nil {
			return err
		}
	}
	if err := s.resolveIntents(ctx, open); err != nil {
		return err
	}
	return s.goOnFromHere(ctx)
}

// Details of the event AcceptRollback, by which VerifyStore knows which changes
// in the log the store no longer has.
const (
	eventAcceptRollback = "AcceptRollback"
	detailRollback      = "rollback"  // its name
	detailLostFrom      = "lost_from" // intents from this one on are lost
	detailKept          = "kept"      // but for these, separated by commas
)

func (s *Service) auditRollback(rollback *RollbackError) error {
	details := map[string]string{detailRollback: rollback.Name, "message": rollback.Message}
	if len(rollback.lost) > 0 {
		details["lost"] = fmt.Sprint(len(rollback.lost))
		details[detailLostFrom] = fmt.Sprint(rollback.lost[0])
		details[detailKept] = strings.Trim(strings.ReplaceAll(fmt.Sprint(rollback.kept), " ", ","), "[]")
	}
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal,
		Action: eventAcceptRollback, Outcome: string(OK), Details: details}, audit.Sync)
	if err != nil {
		return auditError(err)
	}
	return nil
}

// goOnFromHere has the store vouch for the log as it is, under an epoch that no
// checkpoint has seen.
func (s *Service) goOnFromHere(ctx context.Context) error {
	tx := &transaction{epoch: s.head.epoch.Load()}
	if note, _ := s.audit.Checkpoint(); note != nil {
		if c, err := checkpoint.Peek(note); err == nil {
			tx.epoch = max(tx.epoch, c.Epoch)
		}
	}
	if err := s.putIntents(tx, s.audit.Next()); err != nil {
		return err
	}
	if err := tx.commit(ctx, s); err != nil {
		return storeError(err)
	}
	return s.makeCheckpoint(ctx)
}

// subjectOf says what an entry is about.
func subjectOf(e audit.Entry) string {
	name := e.Namespace
	if e.Key != "" {
		name += "/" + e.Key
	}
	if e.Version != 0 {
		name += fmt.Sprintf(" version %d", e.Version)
	}
	if p := e.Details["policy"]; p != "" {
		name = strings.TrimPrefix(name+"/"+p, "/")
	}
	return name
}

// checkMark notes whether the store has the change of an outcome.
func (s *Service) checkMark(ctx context.Context, outcome audit.Entry, rollback *RollbackError) error {
	_, err := read[intentMark](ctx, s, s.system, pathIntent(outcome.Intent))
	if errors.Is(err, store.ErrNotFound) { // another server may have settled it since
		if err := s.readIntents(ctx); err != nil || outcome.Intent < s.intents.stored.value.Below {
			return err
		}
	}
	switch {
	case err == nil && len(rollback.lost) > 0:
		rollback.kept = append(rollback.kept, outcome.Intent)
	case errors.Is(err, store.ErrNotFound):
		if len(rollback.lost) == 0 {
			rollback.Name = fmt.Sprintf("store-before-%d", outcome.Sequence)
			rollback.Message = fmt.Sprintf("the store is older than its audit log: it lacks the change that entry %d says was made, %s %s by %s at %s, and perhaps later ones",
				outcome.Sequence, outcome.Action, subjectOf(outcome), outcome.Principal, outcome.Time.UTC().Format(time.RFC3339))
		}
		rollback.lost = append(rollback.lost, outcome.Intent)
	case err != nil:
		return err
	}
	return nil
}
