package audit

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/keywright/keywright/kms/audit/internal/disk"
	"github.com/keywright/keywright/kms/audit/internal/index"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// DropBefore removes whole segments from the start of the log: those whose lines
// all have numbers below sequence and are covered by the saved checkpoint; the
// last segment stays. Their hashes are kept, so proofs go on. It returns which
// lines were removed, from..to (excluded); the same number twice says none. On
// error some may have been.
func (l *Log) DropBefore(ctx context.Context, sequence uint64) (from, to uint64, err error) {
	l.saving.Lock()
	defer l.saving.Unlock()
	sequence = min(sequence, l.signed.Load())
	segments, _ := l.snapshot()
	from, to = segments[0].first, segments[0].first
	for _, s := range segments[1:] {
		if s.first <= sequence {
			to = s.first
		}
	}
	if from == to {
		return from, to, nil
	}
	if err := l.tree.Sync(); err != nil {
		return from, from, fmt.Errorf("audit log: hashes: %w", err)
	}
	if err := disk.Replace(l.path(layout.First), fmt.Appendf(nil, "%d\n", to)); err != nil {
		return from, from, fmt.Errorf("audit log: %w", err)
	}
	return from, to, l.removeBefore(ctx, to)
}

// removeBefore removes the segments before the one that begins with to, oldest
// first.
func (l *Log) removeBefore(ctx context.Context, to uint64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, ok := l.forgetBefore(to)
		if !ok {
			return disk.SyncDir(l.dir)
		}
		if err := os.Remove(l.path(s.name())); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		if err := index.Remove(l.path(s.indexName())); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
	}
}

func (l *Log) forgetBefore(to uint64) (segment, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.segments[0]
	if s.first >= to {
		return segment{}, false
	}
	l.segments = l.segments[1:]
	return s, true
}

// loadFirst finishes what a crash left of DropBefore, and makes sure that the
// log begins where it should.
func (l *Log) loadFirst() error {
	first, err := layout.ReadFirst(l.dir)
	if err != nil {
		return err
	}
	if len(l.segments) == 0 {
		if first > 0 {
			return &CorruptError{File: l.path(layout.First), Reason: fmt.Sprintf("the log begins with sequence %d, but all files are gone; restore them from a copy", first)}
		}
		return nil
	}
	// What lies before the beginning was to be removed: but only if the rest is there.
	if last := l.segments[len(l.segments)-1]; last.first >= first {
		if err := l.removeBefore(context.Background(), first); err != nil {
			return err
		}
	}
	if s := l.segments[0]; s.first != first {
		return &CorruptError{File: l.path(s.name()), Reason: fmt.Sprintf(
			"is the oldest file, but the log begins with sequence %d; restore the files before it from a copy", first)}
	}
	return nil
}

// Line returns the line with the given number, without its newline. It reads a
// few blocks, however long the log. ErrRange, ErrDropped, or a *CorruptError.
func (l *Log) Line(sequence uint64) ([]byte, error) {
	segments, next := l.snapshot()
	if sequence >= next {
		return nil, fmt.Errorf("%w: line %d, there are %d", ErrRange, sequence, next)
	}
	if first := segments[0].first; sequence < first {
		return nil, fmt.Errorf("%w: line %d, the oldest kept is %d", ErrDropped, sequence, first)
	}
	s := segments[0]
	for _, later := range segments[1:] {
		if later.first <= sequence {
			s = later
		}
	}
	file, err := os.Open(l.path(s.name()))
	if errors.Is(err, os.ErrNotExist) && l.Stats().First > sequence { // meanwhile
		return nil, fmt.Errorf("%w: line %d", ErrDropped, sequence)
	}
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	defer file.Close()
	r := seek(file, s, sequence)
	for r.next < sequence {
		if err := r.skip(); err != nil {
			return nil, r.ended(err)
		}
	}
	if _, err := r.read(); err != nil {
		return nil, r.ended(err)
	}
	return r.line, nil
}
