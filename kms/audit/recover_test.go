package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// logFile makes a log of whole lines and returns its only segment.
func logFile(t *testing.T, lines int) (dir, path string, file []byte) {
	t.Helper()
	dir = t.TempDir()
	l := openLog(t, dir, Options{})
	for range lines {
		mustAppend(t, l, operation("r"), Hot)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "0000000000000000.jsonl")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir, path, file
}

// checkRecovery opens a log with the given file and expects so many lines.
func checkRecovery(t *testing.T, dir, path string, file []byte, lines uint64, cut int) {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, dir, Options{})
	defer l.Close()
	want := Recovered{}
	if cut > 0 {
		want = Recovered{File: path, Bytes: int64(cut)}
	}
	if l.Next() != lines || l.Recovered() != want {
		t.Fatalf("file of %d bytes: next %d, recovered %+v; want %d, %+v", len(file), l.Next(), l.Recovered(), lines, want)
	}
	mustAppend(t, l, operation("after"), Hot)
	if found := entries(t, l, Filter{}); uint64(len(found)) != lines+1 || found[lines].RequestID != "after" {
		t.Fatalf("file of %d bytes: %d lines afterwards, want %d", len(file), len(found), lines+1)
	}
}

func TestOpenCutsHalfALine(t *testing.T) {
	dir, path, file := logFile(t, 3)
	size := len(file) / 3
	for end := 2 * size; end < len(file); end++ {
		checkRecovery(t, dir, path, file[:end], 2, end-2*size)
	}
	checkRecovery(t, dir, path, file[:10], 0, 10)
	checkRecovery(t, dir, path, nil, 0, 0)
}

func TestOpenCutsLostBlocks(t *testing.T) {
	dir, path, file := logFile(t, 4)
	size := len(file) / 4
	zeros := make([]byte, 5000)
	for name, tail := range map[string][]byte{
		"zeros":                      zeros,
		"half a line, zeros":         slices.Concat(file[2*size:2*size+50], zeros),
		"zeros, the end of a line":   slices.Concat(zeros, file[3*size-50:3*size]),
		"zeros, the end, half a one": slices.Concat(zeros, file[3*size-50:3*size+20]),
	} {
		t.Run(name, func(t *testing.T) {
			checkRecovery(t, dir, path, slices.Concat(file[:2*size], tail), 2, len(tail))
		})
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	dir, path, file := logFile(t, 4)
	size := len(file) / 4
	zeros := make([]byte, size)
	for name, test := range map[string]struct {
		file []byte
		line int
	}{
		"changed in the middle":     {changed(file, size+3), 2},
		"changed in the last line":  {changed(file, 3*size+70), 4},
		"a newline lost":            {changed(file, 2*size-1), 2},
		"removed":                   {slices.Concat(file[:size], file[2*size:]), 2},
		"repeated last":             {slices.Concat(file, file[3*size:]), 5},
		"empty line at the end":     {slices.Concat(file, []byte("\n")), 5},
		"zeros with a line behind":  {slices.Concat(file[:2*size], zeros, []byte("\n"), file[3*size:]), 3},
		"begins with another line":  {file[size:], 1},
		"foreign line with newline": {slices.Concat(file, []byte("hello\n")), 5},
	} {
		if err := os.WriteFile(path, test.file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, Options{})
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.File != path || corrupt.Line != test.line {
			t.Errorf("%s: %v, want damage in line %d", name, err, test.line)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, test.file) {
			t.Errorf("%s: the damaged file was touched (%v)", name, err)
		}
	}
}

func changed(file []byte, at int) []byte {
	file = slices.Clone(file)
	file[at] ^= 1
	return file
}

func TestOpenChecksSuccession(t *testing.T) {
	for name, test := range map[string]struct {
		file   int // whose segment the error names
		damage func(paths []string) error
	}{
		"first missing":        {1, func(paths []string) error { return os.Remove(paths[0]) }},
		"middle missing":       {0, func(paths []string) error { return os.Remove(paths[1]) }},
		"middle cut":           {1, func(paths []string) error { return os.Truncate(paths[1], 100) }},
		"middle without lines": {1, func(paths []string) error { return os.Truncate(paths[1], 0) }},
		"middle a line short": {1, func(paths []string) error {
			file, err := os.ReadFile(paths[1])
			if err != nil {
				return err
			}
			lines := bytes.SplitAfter(file, []byte("\n"))
			return os.WriteFile(paths[1], bytes.Join(lines[:len(lines)-2], nil), 0o600)
		}},
		"stranger": {3, func(paths []string) error { return os.WriteFile(paths[3], nil, 0o600) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, Options{SegmentBytes: 1000})
			for range 6 {
				mustAppend(t, l, operation("r"), Hot)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
			if err != nil || len(paths) != 3 {
				t.Fatalf("segments %v (%v), want 3", paths, err)
			}
			paths = append(paths, filepath.Join(dir, "7.jsonl"))
			if err := test.damage(paths); err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, Options{})
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.File != paths[test.file] {
				t.Errorf("%v, want damage of %s", err, paths[test.file])
			}
		})
	}
}

// TestOpenAfterRollBeforeFirstLine: a crash may leave a new segment empty.
func TestOpenAfterRollBeforeFirstLine(t *testing.T) {
	dir, _, _ := logFile(t, 3)
	path := filepath.Join(dir, "0000000000000003.jsonl")
	checkRecovery(t, dir, path, nil, 3, 0)
}
