package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
)

// checkpointInterval is how long entries of uses wait for a signature; changes
// do not wait.
const checkpointInterval = time.Second

// checkpoints signs what the audit log holds.
type checkpoints struct {
	lock    sync.Mutex // one is made at a time, and no key changes meanwhile
	current atomic.Pointer[auditKey]
	wake    chan struct{} // holds a token when a change awaits its checkpoint
	failed  bool          // the last one could not be made
	made    atomic.Int64  // when the last one was, Unix nanoseconds
}

// soon asks for a checkpoint without waiting for the next tick.
func (c *checkpoints) soon() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// makeCheckpoint signs all that the log holds, synced first, unless that is
// signed already.
func (s *Service) makeCheckpoint(ctx context.Context) error {
	s.checkpoints.lock.Lock()
	defer s.checkpoints.lock.Unlock()
	epoch := s.head.epoch.Load() // before the size: what it counts is in the store already
	size, err := s.audit.SyncAll()
	if err != nil {
		return auditError(err)
	}
	if note, signed := s.audit.Checkpoint(); note != nil && signed == size {
		return nil
	}
	root, err := s.audit.Root(size)
	if err != nil {
		return auditError(err)
	}
	current := s.checkpoints.current.Load()
	note, err := checkpoint.Sign(ctx, checkpoint.Checkpoint{Origin: s.Origin(), Size: size, Root: root, Epoch: epoch}, current.key, current.signer)
	if err != nil {
		return hsmError("audit key", err)
	}
	err = s.audit.SaveCheckpoint(note, size)
	if err != nil && !errors.Is(err, audit.ErrRange) { // that is: another signed more meanwhile
		return auditError(err)
	}
	s.checkpoints.made.Store(s.now().UnixNano())
	return nil
}

// signCheckpoints makes checkpoints until ctx ends.
func (s *Service) signCheckpoints(ctx context.Context) {
	tick := time.NewTicker(checkpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.checkpoints.wake:
		}
		s.noteCheckpoint(s.checkpointWithin(ctx))
	}
}

func (s *Service) checkpointWithin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	return s.makeCheckpoint(ctx)
}

// noteCheckpoint logs when checkpoints begin or cease to fail.
func (s *Service) noteCheckpoint(err error) {
	switch {
	case err != nil && !s.checkpoints.failed:
		s.log.Error("the audit log's checkpoint cannot be signed; operations are refused once audit.max_unsigned entries wait", "error", err)
	case err == nil && s.checkpoints.failed:
		s.log.Info("checkpoints are signed again")
	}
	s.checkpoints.failed = err != nil
}

// checkSigned verifies, at start, that the saved checkpoint is this
// installation's and that the store is not older than it.
func (s *Service) checkSigned() error {
	note, _ := s.audit.Checkpoint()
	if note == nil {
		return nil // the anchor still vouches for the log
	}
	succession, err := s.succession()
	if err != nil {
		return err
	}
	var trusted []checkpoint.Span
	for _, from := range []checkpoint.Key{succession.First(), succession.Current()} { // two ways, where there is a break
		spans, _, err := succession.Trusted(from)
		if err != nil {
			return fmt.Errorf("audit keys: %w", err)
		}
		trusted = append(trusted, spans...)
	}
	c, err := checkpoint.OpenTrusted(note, trusted)
	if err != nil {
		return fmt.Errorf("the audit log's saved checkpoint: %w: restore the log's file checkpoint from a copy, or remove it", err)
	}
	if epoch := s.head.epoch.Load(); c.Epoch > epoch {
		return &RollbackError{Name: fmt.Sprintf("store-before-epoch-%d", c.Epoch),
			Message: fmt.Sprintf("the store is older than its audit log: its policies, namespaces and revocations are those of epoch %d, a signed checkpoint has seen epoch %d", epoch, c.Epoch)}
	}
	return nil
}
