package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/internal/disk"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// ErrTampered is what errors.Is finds when the lines are not those that the
// saved checkpoint was made of.
var ErrTampered = errors.New("audit log was tampered with")

// TamperedError says how the lines differ from the checkpoint. It is ErrTampered
// to errors.Is.
type TamperedError struct {
	Dir    string
	Size   uint64 // lines that the checkpoint covers
	Lines  uint64 // lines in the log
	Reason string
}

func (e *TamperedError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrTampered, e.Dir, e.Reason)
}

// Is makes every TamperedError an ErrTampered.
func (e *TamperedError) Is(target error) bool { return target == ErrTampered }

// loadSaved reads the checkpoint and the keys, if there are any, and compares
// the checkpoint with the lines. Its signature is the caller's matter.
func (l *Log) loadSaved() (err error) {
	if l.keys, err = layout.ReadIfThere(l.path(layout.Keys)); err != nil {
		return err
	}
	if l.checkpoint, err = layout.ReadIfThere(l.path(layout.Checkpoint)); err != nil || l.checkpoint == nil {
		return err
	}
	c, err := checkpoint.Peek(l.checkpoint)
	if err != nil {
		return &CorruptError{File: l.path(layout.Checkpoint), Reason: err.Error()}
	}
	err = l.compare(c)
	if errors.As(err, &l.rejected) && l.options.RolledBack {
		l.checkpoint = nil
		return nil
	}
	if err == nil {
		l.signed.Store(c.Size)
	}
	return err
}

func (l *Log) compare(c checkpoint.Checkpoint) error {
	tampered := &TamperedError{Dir: l.dir, Size: c.Size, Lines: l.next.Load()}
	if c.Size > tampered.Lines {
		tampered.Reason = fmt.Sprintf("the log is shorter than its checkpoint: %d lines, %d were signed; from entry %d on they are missing",
			tampered.Lines, c.Size, tampered.Lines)
		return tampered
	}
	root, err := l.Root(c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		tampered.Reason = fmt.Sprintf("the first %d lines differ from what was signed; `keywright audit verify %s` names the entry", c.Size, l.dir)
		return tampered
	}
	return nil
}

// Rejected returns how the log differs from the checkpoint that was saved, where
// Options.RolledBack opened it all the same; else nil. That checkpoint stays where
// it is until the next is saved, and is put aside then.
func (l *Log) Rejected() *TamperedError {
	if !l.options.RolledBack {
		return nil
	}
	return l.rejected
}

// putAside keeps a rejected checkpoint under a name of its own, in the turn to save.
func (l *Log) putAside() error {
	if l.rejected == nil {
		return nil
	}
	path := l.path(layout.Checkpoint)
	if err := os.Rename(path, fmt.Sprintf("%s.%d", path, l.rejected.Size)); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	l.rejected = nil
	return nil
}

// Root returns the root of the tree of the first size lines (RFC 6962). ErrRange.
func (l *Log) Root(size uint64) ([32]byte, error) {
	if err := l.checkSize(size); err != nil {
		return [32]byte{}, err
	}
	return l.tree.Root(size)
}

// Inclusion proves that the line with the given number, dropped or not, is among
// the first size lines (RFC 6962 section 2.1.1). ErrRange.
func (l *Log) Inclusion(sequence, size uint64) ([][32]byte, error) {
	if err := l.checkSize(size); err != nil {
		return nil, err
	}
	return arrays(l.tree.Inclusion(sequence, size))
}

// Consistency proves that the first size lines begin with the first old lines
// (RFC 6962 section 2.1.2). ErrRange.
func (l *Log) Consistency(old, size uint64) ([][32]byte, error) {
	if err := l.checkSize(size); err != nil {
		return nil, err
	}
	return arrays(l.tree.Consistency(old, size))
}

// checkSize keeps readers from lines that the tree has before they are published.
func (l *Log) checkSize(size uint64) error {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if next := l.next.Load(); size > next {
		return fmt.Errorf("%w: of %d lines, there are %d", ErrRange, size, next)
	}
	return nil
}

func arrays[H ~[32]byte](hashes []H, err error) ([][32]byte, error) {
	if err != nil {
		return nil, err
	}
	converted := make([][32]byte, len(hashes))
	for i, hash := range hashes {
		converted[i] = [32]byte(hash)
	}
	return converted, nil
}

// SyncAll puts on disk what is written when it is called, and returns how many
// lines that covers at least: what a checkpoint may say.
func (l *Log) SyncAll() (size uint64, err error) {
	size = l.next.Load()
	return size, l.syncTo(size)
}

// Checkpoint returns the signed note that was last saved, or nil, and the number
// of lines that it covers. The note is not to be changed.
func (l *Log) Checkpoint() (signed []byte, size uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checkpoint, l.signed.Load()
}

// SaveCheckpoint keeps a signed note, on disk when it returns, in place of the
// last. Its form, size and root are checked, its signature is not: an error that
// is ErrTampered says that it is not of this log, ErrRange that it is older than
// the one that is kept.
func (l *Log) SaveCheckpoint(signed []byte, size uint64) error {
	c, err := checkpoint.Peek(signed)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if c.Size != size {
		return fmt.Errorf("checkpoint: %w: it says %d lines, not %d", checkpoint.ErrForm, c.Size, size)
	}
	l.saving.Lock()
	defer l.saving.Unlock()
	if size < l.signed.Load() {
		return fmt.Errorf("checkpoint: %w: of %d lines, %d are signed already", ErrRange, size, l.signed.Load())
	}
	if err := l.compare(c); err != nil {
		return err
	}
	if err := l.showHashes(); err != nil {
		return err
	}
	if err := l.putAside(); err != nil {
		return err
	}
	return l.save(layout.Checkpoint, signed, func(kept []byte) {
		l.checkpoint = kept
		l.signed.Store(size)
	})
}

// showHashes makes the file have the hashes of all that a checkpoint may cover, for
// those who verify and prove by the files alone.
func (l *Log) showHashes() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.writeHashes(laneManagement)
}

// Keys returns the succession of keys that was last saved, or nil. It is not to
// be changed.
func (l *Log) Keys() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys
}

// SaveKeys keeps a succession of keys, on disk when it returns, in place of the
// last. What it says is the caller's matter.
func (l *Log) SaveKeys(succession []byte) error {
	l.saving.Lock()
	defer l.saving.Unlock()
	return l.save(layout.Keys, succession, func(kept []byte) { l.keys = kept })
}

// save replaces a file, in the turn to save.
func (l *Log) save(name string, content []byte, keep func(kept []byte)) error {
	if err := disk.Replace(l.path(name), content); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	keep(bytes.Clone(content))
	return nil
}

// unsigned refuses lines while too many are without a checkpoint. Management
// gets a quarter more, so that operators can act.
func (l *Log) unsigned(lane lane) error {
	bound := l.options.MaxUnsigned
	if bound == 0 {
		return nil
	}
	allowed := bound
	if lane == laneManagement {
		allowed += max(bound/4, 100)
	}
	signed := l.signed.Load() // first: it never passes next
	if unsigned := l.next.Load() - signed; unsigned >= allowed {
		return fmt.Errorf("%w: %w: %d lines wait, audit.max_unsigned is %d", ErrUnavailable, ErrUnsigned, unsigned, bound)
	}
	return nil
}
