package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keywright/keywright/kms/audit/internal/disk"
	"github.com/keywright/keywright/kms/audit/internal/index"
	"github.com/keywright/keywright/kms/audit/internal/layout"
	"github.com/keywright/keywright/kms/audit/tree"
)

// segment is a file of lines, named by the sequence of its first.
type segment struct {
	first uint64
	size  int64
}

func (s segment) name() string { return layout.SegmentName(s.first) }

// CorruptError says where a log is damaged.
type CorruptError = layout.CorruptError

// lockDir keeps other processes, and other Logs of this one, off the directory.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrLocked, dir), file.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("audit log: lock %s: %w", dir, err), file.Close())
	}
	return file, nil
}

// load finds the segments, checks that they follow each other, repairs the end
// of the last and opens it, completes the tree and compares it with the
// checkpoint.
func (l *Log) load() (err error) {
	if l.segments, err = listSegments(l.dir); err != nil {
		return err
	}
	if err := l.loadFirst(); err != nil {
		return err
	}
	if l.tree, err = tree.Open(l.path(layout.Tree)); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if len(l.segments) == 0 {
		err = errors.Join(l.tree.Cut(0), l.create())
	} else {
		err = l.loadLines()
	}
	if err != nil {
		return err
	}
	return l.loadSaved()
}

func (l *Log) loadLines() (err error) {
	for i, s := range l.segments[:len(l.segments)-1] {
		if err := l.checkSuccession(s, l.segments[i+1]); err != nil {
			return err
		}
	}
	last := &l.segments[len(l.segments)-1]
	if err := l.regrow(last.first); err != nil {
		return err
	}
	if l.file, err = os.OpenFile(l.path(last.name()), os.O_RDWR, 0); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	l.startIndex(*last)
	grower := newGrower(l.tree)
	var terms []index.Term
	lines, sound, err := soundPrefix(l.file, *last, func(e Entry, line []byte) error {
		terms = e.terms(terms[:0])
		l.addToIndex(len(line)+1, e.Time.UnixMicro(), terms)
		return grower.add(line)
	})
	if err == nil {
		err = grower.flush()
	}
	if err == nil {
		err = l.cut(last, sound)
	}
	if err != nil {
		return err
	}
	l.next.Store(last.first + lines)
	l.synced.Store(last.first + lines)
	l.syncedBytes = last.size
	return nil
}

func listSegments(dir string) (found []segment, err error) {
	listed, err := layout.Segments(dir)
	for _, s := range listed {
		found = append(found, segment{s.First, s.Size})
	}
	return found, err
}

// checkSuccession makes sure that no segment is missing or cut between a and b.
func (l *Log) checkSuccession(a, b segment) error {
	file, err := os.Open(l.path(a.name()))
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	defer file.Close()
	last, err := lastSequence(file, a.size)
	if err != nil {
		return err
	}
	if last+1 != b.first {
		return &CorruptError{File: file.Name(), Reason: fmt.Sprintf(
			"ends with sequence %d, but the next file begins with %d; restore the missing lines from a copy", last, b.first)}
	}
	return nil
}

// lastSequence reads the sequence of the last line from the end of a file.
func lastSequence(file *os.File, size int64) (uint64, error) {
	for tail := int64(64 << 10); ; tail *= 4 {
		block := make([]byte, min(tail, size))
		if _, err := file.ReadAt(block, size-int64(len(block))); err != nil {
			return 0, fmt.Errorf("audit log: %w", err)
		}
		line, ended := bytes.CutSuffix(block, []byte{'\n'})
		start := bytes.LastIndexByte(line, '\n') + 1
		if start == 0 && int64(len(block)) < size && tail <= MaxLineBytes {
			continue // the line begins before the block
		}
		sequence, ok := layout.Head(line[start:])
		if !ended || !ok {
			return 0, &CorruptError{File: file.Name(), Reason: "does not end with a whole line; restore it from a copy"}
		}
		return sequence, nil
	}
}

// soundPrefix reads a segment and returns how many lines and bytes of it are
// whole. What follows them may only be what a crash leaves: half a line, or
// blocks of zeros that a file system shows where data had not reached the disk.
// It gives each whole line to fn.
func soundPrefix(file *os.File, s segment, fn func(e Entry, line []byte) error) (lines uint64, size int64, err error) {
	r := newLineReader(file, s, 0, s.first)
	for {
		e, err := r.read()
		if errors.Is(err, io.EOF) {
			return lines, size, nil
		}
		if corrupt := (*CorruptError)(nil); errors.As(err, &corrupt) {
			if unclean, readErr := isUncleanEnd(file, size, s.size); !unclean {
				return 0, 0, errors.Join(readErr, corrupt)
			}
			return lines, size, nil
		}
		if err != nil {
			return 0, 0, fmt.Errorf("audit log: %w", err)
		}
		if err := fn(e, r.line); err != nil {
			return 0, 0, err
		}
		lines, size = lines+1, r.offset
	}
}

// isUncleanEnd tells the remains of a crash from damage. A crash leaves no whole
// line behind the first broken one, and a broken line has no newline unless
// zeros stand for lost data.
func isUncleanEnd(file *os.File, from, to int64) (bool, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(file, from, to-from), 64<<10)
	zeros := false
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) || errors.Is(err, errHalfLine) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		zeros = zeros || bytes.IndexByte(line, 0) >= 0
		if _, err := ParseEntry(line); err == nil || !zeros {
			return false, nil
		}
	}
}

// cut removes the unclean end of the last segment.
func (l *Log) cut(last *segment, sound int64) error {
	if sound < last.size {
		unclean, err := l.unclean(sound, last.size)
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		if unclean > 0 {
			l.recovered = Recovered{File: l.file.Name(), Bytes: unclean}
		}
		if err := l.file.Truncate(sound); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		last.size = sound
	}
	return l.fdatasync(l.file) // what is read at start counts as durable from here
}

// roll ends the last segment and begins a new one, in the turn to write.
func (l *Log) roll() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	trimmed, err := l.trim()
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if trimmed || l.synced.Load() < l.next.Load() {
		if err := l.syncWritten(); err != nil {
			return err
		}
	}
	if err := l.tree.Flush(); err != nil {
		return fmt.Errorf("audit log: hashes: %w", err)
	}
	if err := l.tree.Sync(); err != nil {
		return fmt.Errorf("audit log: hashes: %w", err)
	}
	ended := l.file
	if err := l.create(); err != nil {
		return err
	}
	l.syncedBytes = 0
	_ = ended.Close() // everything in it is on disk
	return nil
}

// create makes the segment for the next line, with its name on disk.
func (l *Log) create() error {
	s := segment{first: l.next.Load()}
	file, err := os.OpenFile(l.path(s.name()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if err := disk.SyncDir(l.dir); err != nil {
		return errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	l.startIndex(s)
	l.room, l.cramped = 0, false
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = file
	l.segments = append(l.segments, s)
	return nil
}
