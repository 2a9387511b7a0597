package kms

import (
	"context"
	"errors"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/policy"
)

// Checkpoint is the audit log's newest signed checkpoint.
type Checkpoint struct {
	Note        []byte     // C2SP signed-note
	Consistency [][32]byte // from the size that was asked about (RFC 6962, 2.1.2)
	Keys        []byte     // the log's keys and their succession
}

// EntryProof is an entry with a proof that it is in the log.
type EntryProof struct {
	Sequence uint64
	Line     []byte
	Proof    []byte // C2SP tlog-proof, with the newest checkpoint
	Keys     []byte
}

// GetCheckpoint returns the newest checkpoint and, if knownSize is not 0, a proof
// that its log begins with the entries of a checkpoint of that size.
func (s *Service) GetCheckpoint(ctx context.Context, call Call, knownSize uint64) (Checkpoint, error) {
	return perform(ctx, s, call, policy.GetCheckpoint, knownSize, func(s *Service, ctx context.Context, t *trace, knownSize uint64) (Checkpoint, error) {
		if err := s.authorize(t, policy.GetCheckpoint, &policy.Resource{}, nil); err != nil {
			return Checkpoint{}, err
		}
		note, size, err := s.checkpointNow(ctx)
		if err != nil {
			return Checkpoint{}, err
		}
		c := Checkpoint{Note: note, Keys: s.audit.Keys()}
		switch {
		case knownSize > size:
			return c, &Error{Code: FailedPrecondition, Reason: "LOG_IS_SHORTER", Field: "known_size",
				Message: "the audit log has fewer entries than the checkpoint that you know: it was put back to an older state, or is another log"}
		case knownSize > 0:
			c.Consistency, err = s.audit.Consistency(knownSize, size)
		}
		return c, readAuditError(err)
	})
}

// checkpointNow returns the newest checkpoint, made first if there is none yet.
func (s *Service) checkpointNow(ctx context.Context) (note []byte, size uint64, err error) {
	if note, size = s.audit.Checkpoint(); note != nil {
		return note, size, nil
	}
	if err := s.makeCheckpoint(ctx); err != nil {
		return nil, 0, err
	}
	note, size = s.audit.Checkpoint()
	return note, size, nil
}

// ProveEntry returns an entry, with a proof that the newest checkpoint covers
// it; with an entry about a namespace, the right to read that namespace's
// entries suffices.
func (s *Service) ProveEntry(ctx context.Context, call Call, sequence uint64) (EntryProof, error) {
	return perform(ctx, s, call, policy.ReadAudit, sequence, func(s *Service, ctx context.Context, t *trace, sequence uint64) (EntryProof, error) {
		line, namespace, missing := s.lineOf(sequence)
		if err := s.admitAudit(ctx, t, audit.Filter{Namespace: namespace}); err != nil {
			return EntryProof{}, err
		}
		if missing != nil {
			return EntryProof{}, missing
		}
		note, size, err := s.checkpointNow(ctx)
		if err == nil && size <= sequence { // written a moment ago
			if err = s.makeCheckpoint(ctx); err == nil {
				note, size = s.audit.Checkpoint()
			}
		}
		if err != nil {
			return EntryProof{}, err
		}
		hashes, err := s.audit.Inclusion(sequence, size)
		if err != nil {
			return EntryProof{}, readAuditError(err)
		}
		proof := checkpoint.Proof{Index: sequence, Hashes: hashes, Note: note}
		return EntryProof{Sequence: sequence, Line: line, Proof: proof.Text(), Keys: s.audit.Keys()}, nil
	})
}

// lineOf reads a line and the namespace that it is about.
func (s *Service) lineOf(sequence uint64) (line []byte, namespace string, err error) {
	line, err = s.audit.Line(sequence)
	switch {
	case errors.Is(err, audit.ErrRange):
		return nil, "", notFound("ENTRY_NOT_FOUND", "the audit log has no entry %d; its last is %d", sequence, s.audit.Next()-1)
	case errors.Is(err, audit.ErrDropped):
		return nil, "", notFound("ENTRY_DROPPED", "entry %d was dropped when audit.retention was over; the oldest kept is %d", sequence, s.audit.Stats().First)
	case err != nil:
		return nil, "", readAuditError(err)
	}
	e, err := audit.ParseEntry(line)
	if err != nil {
		return nil, "", readAuditError(err)
	}
	return line, e.Namespace, nil
}
