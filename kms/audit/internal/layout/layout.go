// Package layout says what lies where in the directory of an audit log, for the
// server that writes it and for those who read it without the server: names of
// files, the order of segments, and as much of a line as its place. It keeps no
// state and changes no file.
package layout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Names of the files beside the segments.
const (
	Tree       = "tree"       // hashes of the lines
	Checkpoint = "checkpoint" // the last one, a signed note
	Keys       = "keys"       // the succession of keys
	First      = "first"      // where the log begins once lines were dropped: see ReadFirst
)

// Suffix ends the name of a segment.
const Suffix = ".jsonl"

// MaxLineBytes bounds one line. It leaves room for a batch with some hundred
// thousand different encryption contexts.
const MaxLineBytes = 16 << 20

// HeadBytes is room for what stands before the first field of a line, and for
// its newline.
const HeadBytes = 40

// ErrCorrupt is what errors.Is finds when files are not what the server wrote.
var ErrCorrupt = errors.New("audit log is corrupt")

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

// Segment is a file of lines.
type Segment struct {
	First uint64 // number of the first line
	Size  int64  // in bytes
}

// SegmentName returns the name of the segment that begins with line first.
func SegmentName(first uint64) string { return fmt.Sprintf("%016d%s", first, Suffix) }

// Segments lists the segments of a directory in the order of their lines. A
// name that is none is a *CorruptError.
func Segments(dir string) ([]Segment, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	var found []Segment
	for _, file := range files {
		number, ok := strings.CutSuffix(file.Name(), Suffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(number, 10, 64)
		if err != nil || SegmentName(first) != file.Name() {
			return nil, &CorruptError{File: filepath.Join(dir, file.Name()), Reason: "not a name of a segment; move the file elsewhere"}
		}
		info, err := file.Info()
		if err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		found = append(found, Segment{first, info.Size()})
	}
	slices.SortFunc(found, func(a, b Segment) int { return strings.Compare(SegmentName(a.First), SegmentName(b.First)) })
	return found, nil
}

// ReadFirst returns the number of the line with which the log begins: what the
// file First says, in decimal with a newline, or 0 if there is none. It is there
// so that a lost segment is not taken for a dropped one.
func ReadFirst(dir string) (uint64, error) {
	path := filepath.Join(dir, First)
	text, err := ReadIfThere(path)
	if err != nil || text == nil {
		return 0, err
	}
	number, ended := strings.CutSuffix(string(text), "\n")
	first, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !ended {
		return 0, &CorruptError{File: path, Reason: "is not a number and a newline; restore it from a copy"}
	}
	return first, nil
}

// ReadIfThere reads a file; without one it returns nil.
func ReadIfThere(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return content, nil
}

// lineStart begins every line of format 1; its number follows.
const lineStart = `{"v":1,"seq":`

// AppendHead appends the start of a line, which is all that depends on its place
// in the log.
func AppendHead(dst []byte, sequence uint64) []byte {
	return strconv.AppendUint(append(dst, lineStart...), sequence, 10)
}

// Head returns the number of a line. It looks at no more than the line's start,
// up to the comma behind the number.
func Head(line []byte) (sequence uint64, ok bool) {
	if len(line) < len(lineStart) || string(line[:len(lineStart)]) != lineStart {
		return 0, false
	}
	digits := line[len(lineStart):]
	for i, c := range digits[:min(len(digits), HeadBytes-len(lineStart))] {
		switch {
		case c == ',':
			return sequence, i == 1 || i > 1 && digits[0] != '0'
		case c < '0' || c > '9' || sequence > (1<<64-1-uint64(c-'0'))/10:
			return 0, false
		}
		sequence = sequence*10 + uint64(c-'0')
	}
	return 0, false
}
