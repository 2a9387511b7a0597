package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// segment is a file of lines, named by the sequence of its first.
type segment struct {
	first uint64
	size  int64
}

const suffix = ".jsonl"

func (s segment) name() string { return fmt.Sprintf("%016d%s", s.first, suffix) }

// CorruptError says where a log is damaged. It is ErrCorrupt to errors.Is.
type CorruptError struct {
	File   string
	Line   int   // from 1; 0 means the file as a whole
	Offset int64 // in bytes, of the line's start
	Reason string
}

func (e *CorruptError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%v: %s: %s", ErrCorrupt, e.File, e.Reason)
	}
	return fmt.Sprintf("%v: %s line %d (byte %d): %s", ErrCorrupt, e.File, e.Line, e.Offset, e.Reason)
}

// Is makes every CorruptError an ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

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
// of the last and opens it.
func (l *Log) load() (err error) {
	if l.segments, err = listSegments(l.dir); err != nil {
		return err
	}
	if len(l.segments) == 0 {
		return l.create()
	}
	if s := l.segments[0]; s.first != 0 {
		return &CorruptError{File: l.path(s.name()), Reason: "is the oldest file, but the log begins with sequence 0; restore the files before it from a copy"}
	}
	for i, s := range l.segments[:len(l.segments)-1] {
		if err := l.checkSuccession(s, l.segments[i+1]); err != nil {
			return err
		}
	}
	last := &l.segments[len(l.segments)-1]
	if l.file, err = os.OpenFile(l.path(last.name()), os.O_RDWR|os.O_APPEND, 0); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	lines, sound, err := soundPrefix(l.file, *last)
	if err == nil {
		err = l.cut(last, sound)
	}
	if err != nil {
		return errors.Join(err, l.file.Close())
	}
	l.next.Store(last.first + lines)
	l.synced.Store(last.first + lines)
	l.syncedBytes = last.size
	return nil
}

func listSegments(dir string) ([]segment, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	var found []segment
	for _, file := range files {
		number, ok := strings.CutSuffix(file.Name(), suffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(number, 10, 64)
		if s := (segment{first: first}); err != nil || s.name() != file.Name() {
			return nil, &CorruptError{File: filepath.Join(dir, file.Name()), Reason: "not a name of a segment; move the file elsewhere"}
		}
		info, err := file.Info()
		if err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		found = append(found, segment{first, info.Size()})
	}
	slices.SortFunc(found, func(a, b segment) int { return strings.Compare(a.name(), b.name()) })
	return found, nil
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
		sequence, ok := sequenceOf(line[start:])
		if !ended || !ok {
			return 0, &CorruptError{File: file.Name(), Reason: "does not end with a whole line; restore it from a copy"}
		}
		return sequence, nil
	}
}

// sequenceOf reads no more of a line than its head.
func sequenceOf(line []byte) (uint64, bool) {
	p := parser{rest: string(line[:min(len(line), headBytes)])}
	p.literal(`{"v":1,"seq":`)
	sequence := p.digits()
	return sequence, !p.failed
}

// soundPrefix reads a segment and returns how many lines and bytes of it are
// whole. What follows them may only be what a crash leaves: half a line, or
// blocks of zeros that a file system shows where data had not reached the disk.
func soundPrefix(file *os.File, s segment) (lines uint64, size int64, err error) {
	r := newLineReader(file, s, 0, s.first)
	for {
		_, err := r.read()
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
		l.recovered = Recovered{File: l.file.Name(), Bytes: last.size - sound}
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
	if l.synced.Load() < l.next.Load() {
		if err := l.syncWritten(); err != nil {
			return err
		}
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
	file, err := os.OpenFile(l.path(s.name()), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	if err := syncDir(l.dir); err != nil {
		return errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = file
	l.segments = append(l.segments, s)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
