package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/keywright/keywright/kms/audit/internal/layout"
)

var (
	errHalfLine = errors.New("line does not end")
	errLongLine = fmt.Errorf("line is longer than %d bytes", MaxLineBytes)
)

// readLine returns the next line without its newline, valid until the next
// call. The end between lines is io.EOF, within one errHalfLine.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = readLong(r, bytes.Clone(line))
	}
	switch {
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, errHalfLine
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}

// readLong goes on with a line that is longer than the reader's buffer.
func readLong(r *bufio.Reader, line []byte) ([]byte, error) {
	for {
		more, err := r.ReadSlice('\n')
		if line = append(line, more...); len(line) > MaxLineBytes+1 {
			return nil, errLongLine
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// lineReader reads the lines of a segment and checks that each is sound and in
// its place.
type lineReader struct {
	file   *os.File
	first  uint64 // sequence of the segment's first line
	next   uint64 // sequence that the next line must have
	offset int64  // where the next line starts
	line   []byte // the line last read, valid until the next
	r      *bufio.Reader
}

// newLineReader reads from offset, where the line next starts, and not beyond
// the size of s.
func newLineReader(file *os.File, s segment, offset int64, next uint64) *lineReader {
	window := io.NewSectionReader(file, offset, s.size-offset)
	return &lineReader{file: file, first: s.first, next: next, offset: offset, r: bufio.NewReaderSize(window, 64<<10)}
}

// read returns the next entry; io.EOF is the end.
func (r *lineReader) read() (Entry, error) {
	e, _, err := r.readIf(func([]byte) bool { return true })
	return e, err
}

// skip is read without a look at more than the line's head.
func (r *lineReader) skip() error {
	_, _, err := r.readIf(func([]byte) bool { return false })
	return err
}

// readIf is read if wanted says so of the line, else skip.
func (r *lineReader) readIf(wanted func(line []byte) bool) (e Entry, ok bool, err error) {
	line, err := readLine(r.r)
	if errors.Is(err, errHalfLine) || errors.Is(err, errLongLine) {
		return Entry{}, false, r.corrupt(err.Error())
	}
	if err != nil {
		return Entry{}, false, err
	}
	if ok = wanted(line); ok {
		if e, err = ParseEntry(line); err != nil {
			return Entry{}, false, r.corrupt(err.Error())
		}
	} else if e.Sequence, err = headOf(line); err != nil {
		return Entry{}, false, r.corrupt(err.Error())
	}
	if e.Sequence != r.next {
		return Entry{}, false, r.corrupt(fmt.Sprintf("has sequence %d where %d belongs", e.Sequence, r.next))
	}
	r.line = line
	r.next++
	r.offset += int64(len(line)) + 1
	return e, ok, nil
}

// headOf reads the sequence of a line whose rest nobody asked for.
func headOf(line []byte) (uint64, error) {
	sequence, ok := layout.Head(line)
	if !ok {
		return 0, fmt.Errorf("%w: does not begin as a line does", ErrCorrupt)
	}
	return sequence, nil
}

func (r *lineReader) corrupt(reason string) error {
	return &CorruptError{File: r.file.Name(), Line: int(r.next-r.first) + 1, Offset: r.offset, Reason: reason}
}

// ended turns the end of the lines, where another should be, into damage.
func (r *lineReader) ended(err error) error {
	if errors.Is(err, io.EOF) {
		return r.corrupt("is missing")
	}
	return err
}

// seekBlock is how near seek comes; less would save no time.
const seekBlock = 64 << 10

// seek returns a reader that is at or shortly before the line from. Numbers
// rise along the file, so halving finds the place without reading the rest. A
// line whose head cannot be read ends the search early: the reader will name it.
func seek(file *os.File, s segment, from uint64) *lineReader {
	start, next := int64(0), s.first
	for end := s.size; end-start > seekBlock; {
		middle := start + (end-start)/2
		at, sequence, ok := lineAfter(file, middle, s.size)
		switch {
		case !ok || at >= end || sequence > from:
			end = middle
		default:
			start, next = at, sequence
		}
	}
	return newLineReader(file, s, start, next)
}

// lineAfter finds the first line that starts behind offset, within a block.
func lineAfter(file *os.File, offset, size int64) (at int64, sequence uint64, ok bool) {
	block := make([]byte, min(seekBlock, size-offset))
	if _, err := file.ReadAt(block, offset); err != nil {
		return 0, 0, false
	}
	newline := bytes.IndexByte(block, '\n')
	sequence, ok = layout.Head(block[newline+1:])
	return offset + int64(newline) + 1, sequence, ok && newline >= 0
}
