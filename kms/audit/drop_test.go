package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// segmented makes a log of 30 lines in segments of 3, signed up to 24.
func segmented(t *testing.T) (*Log, string) {
	t.Helper()
	dir := t.TempDir()
	line := int64(len(operation("r00").AppendJSON(nil)) + 1)
	l := openLog(t, dir, Options{SegmentBytes: 3*line + line/2})
	for i := range 30 {
		if mustAppend(t, l, operation("r00"), Hot); i == 23 {
			sign(t, l)
		}
	}
	if l.Stats().Segments < 9 {
		t.Fatalf("%d segments", l.Stats().Segments)
	}
	return l, dir
}

func TestDropBefore(t *testing.T) {
	l, dir := segmented(t)
	last := l.segments[len(l.segments)-1].first
	for _, test := range []struct{ before, from, to uint64 }{
		{0, 0, 0}, {2, 0, 0}, {3, 0, 3}, {3, 3, 3}, {11, 3, 9}, {100, 9, 24}, {100, 24, 24},
	} {
		from, to, err := l.DropBefore(t.Context(), test.before)
		if err != nil || from != test.from || to != test.to || l.Stats().First != test.to {
			t.Fatalf("before %d: %d..%d (%v), oldest %d; want %d..%d", test.before, from, to, err, l.Stats().First, test.from, test.to)
		}
	}
	for range 2 {
		found := entries(t, l, Filter{})
		if len(found) != 6 || found[0].Sequence != 24 {
			t.Fatalf("lines left: %v", sequences(found))
		}
		if newest := entries(t, l, Filter{Newest: true, Limit: 100}); len(newest) != 6 {
			t.Errorf("newest: %v", sequences(newest))
		}
		if _, err := l.Line(23); !errors.Is(err, ErrDropped) {
			t.Errorf("dropped line: %v, want ErrDropped", err)
		}
		line, err := l.Line(25)
		if err != nil {
			t.Fatal(err)
		}
		key, _ := newSigner(t, 'k')
		hashes, err := l.Inclusion(25, 30)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (checkpoint.Proof{Index: 25, Hashes: hashes, Note: signSize(t, l, 30)}).Verify(line, key); err != nil {
			t.Errorf("proof in a log without its beginning: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLog(t, dir, Options{})
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl")); len(files) != 2 || last < 24 {
		t.Errorf("files left: %v", files)
	}
}

// TestDropIsFinished: the process died in the middle.
func TestDropIsFinished(t *testing.T) {
	l, dir := segmented(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := l.DropBefore(ctx, 9); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, dir, Options{})
	if first := l.Stats().First; first != 9 {
		t.Errorf("the log begins with %d, want 9", first)
	}
}

func TestOpenWithoutBeginning(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"lost file":  func(dir string) error { return os.Remove(filepath.Join(dir, "0000000000000009.jsonl")) },
		"lost mark":  func(dir string) error { return os.Remove(filepath.Join(dir, layout.First)) },
		"wrong mark": func(dir string) error { return os.WriteFile(filepath.Join(dir, layout.First), []byte("x\n"), 0o600) },
		"mark beyond": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, layout.First), []byte("1000\n"), 0o600)
		},
		"lost tree":  func(dir string) error { return os.Remove(filepath.Join(dir, layout.Tree)) },
		"short tree": func(dir string) error { return os.Truncate(filepath.Join(dir, layout.Tree), 32*10) },
	} {
		l, dir := segmented(t)
		if _, _, err := l.DropBefore(t.Context(), 9); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := damage(dir); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadDir(dir)
		if _, err := Open(dir, Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
		if after, _ := os.ReadDir(dir); len(after) < len(before) {
			t.Errorf("%s: Open removed files of a damaged log", name)
		}
	}
}

// TestScanWhileDropping: who reads meanwhile passes over what is gone.
func TestScanWhileDropping(t *testing.T) {
	l, _ := segmented(t)
	var seen []uint64
	err := l.Scan(t.Context(), Filter{}, func(e Entry) error {
		if seen = append(seen, e.Sequence); e.Sequence == 1 {
			_, _, err := l.DropBefore(t.Context(), 12)
			return err
		}
		return nil
	})
	if err != nil || len(seen) != 3+18 || seen[3] != 12 {
		t.Errorf("saw %v (%v)", seen, err)
	}
}
