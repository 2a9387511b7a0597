package verify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/verify"
)

func TestTampering(t *testing.T) {
	f := newFixture(t)
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			dir := copyDir(t, f.dir)
			c.change(t, f, dir)
			report, err := verify.Dir(t.Context(), dir, verify.Options{Key: c.trusted(f), Checkpoint: c.keptNote(f)})
			found, _ := errors.AsType[*verify.Finding](err)
			switch {
			case c.kind == "" && err != nil:
				t.Errorf("found %v in a good log; report %+v", err, report)
			case c.kind != "" && (found == nil || found.Kind != c.kind || found.Entry != c.entry):
				t.Errorf("found %v, want %s at entry %d; report %+v", err, c.kind, c.entry, report)
			case found != nil && !strings.HasPrefix(found.Error(), fmt.Sprintf("entry %d: ", c.entry)):
				t.Errorf("%q does not name the entry", found)
			}
		})
	}
}

func TestReport(t *testing.T) {
	f := newFixture(t)
	var done, total int64
	report, err := verify.Dir(t.Context(), f.dir, verify.Options{
		Key: &f.keys[0].Key, Checkpoint: f.kept[30], Progress: func(d, of int64) { done, total = d, of },
	})
	want := verify.Report{Origin: origin, Key: f.keys[0].String(), Trusted: true, Lines: 60, Signed: 50, Unsigned: 10, Epoch: 7, Kept: 30}
	if err != nil || report != want {
		t.Errorf("%+v (%v), want %+v", report, err, want)
	}
	if done == 0 || done != total {
		t.Errorf("progress ended at %d of %d", done, total)
	}
}

// TestTreeLacks: without its file of hashes the log is as good, and the report says so.
func TestTreeLacks(t *testing.T) {
	f := newFixture(t)
	tree := filepath.Join(f.dir, "tree")
	text, err := os.ReadFile(tree)
	must(t, err)
	for _, c := range []struct {
		hashes int64 // kept
		lacks  bool
	}{{int64(len(text)) / 32, false}, {tlog.StoredHashCount(50), false}, {tlog.StoredHashCount(50) - 1, true}, {0, true}} {
		must(t, os.Truncate(tree, c.hashes*32))
		if report, err := verify.Dir(t.Context(), f.dir, verify.Options{}); err != nil || report.TreeLacks != c.lacks {
			t.Errorf("%d hashes: %+v (%v)", c.hashes, report, err)
		}
	}
	must(t, os.Remove(tree))
	if report, err := verify.Dir(t.Context(), f.dir, verify.Options{}); err != nil || !report.TreeLacks {
		t.Errorf("no file: %+v (%v)", report, err)
	}
}

// TestLongLines: lines far longer than what is read at once, and many pieces.
func TestLongLines(t *testing.T) {
	dir := t.TempDir()
	l, err := audit.Open(dir, audit.Options{SegmentBytes: 8 << 20})
	must(t, err)
	for n := range 400 {
		e := entry(fmt.Sprint("r", n))
		if n%40 == 7 {
			e.Reason = strings.Repeat("long ", 500_000)
		} else {
			e.Reason = strings.Repeat("x", n*17)
		}
		_, err := l.Append(e, audit.Hot)
		must(t, err)
	}
	p := edPair(t, origin, "a")
	must(t, l.SaveCheckpoint(sign(t, l, 400, p), 400))
	must(t, l.SaveKeys(begin(t, p)))
	must(t, l.Close())
	if report, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || report.Lines != 400 || report.Trusted {
		t.Fatalf("%+v (%v)", report, err)
	}
	for _, n := range []int{0, 7, 199, 367, 399} {
		damaged := copyDir(t, dir)
		segments, err := filepath.Glob(filepath.Join(damaged, "*.jsonl"))
		must(t, err)
		for _, path := range segments {
			text, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, []byte(strings.Replace(string(text), fmt.Sprintf(`"r%d"`, n), `"changed"`, 1)), 0o600))
		}
		_, err = verify.Dir(t.Context(), damaged, verify.Options{})
		if found, ok := errors.AsType[*verify.Finding](err); !ok || found.Entry != uint64(n) || found.Kind != verify.Changed {
			t.Errorf("entry %d was changed: %v", n, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	f := newFixture(t)
	// Many times, as what is cancelled are goroutines that hand pieces to each other.
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := verify.Dir(ctx, f.dir, verify.Options{}); !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	}
	if _, err := verify.Dir(t.Context(), filepath.Join(f.dir, "none"), verify.Options{}); err == nil {
		t.Error("verified what is not there")
	}
}

// TestWhileWritten: what was signed when it began is verified, however the log grows.
func TestWhileWritten(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, 100)
	p := edPair(t, origin, "a")
	must(t, l.SaveKeys(begin(t, p)))
	stop, ended := make(chan struct{}), make(chan struct{})
	for range 100 {
		appendEntry(t, l, "r")
	}
	must(t, l.SaveCheckpoint(sign(t, l, 100, p), 100))
	go func() {
		defer close(ended)
		for n := uint64(101); ; n++ {
			select {
			case <-stop:
				return
			default:
				if _, err := l.Append(entry("r"), audit.Hot); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	for range 20 {
		if report, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil {
			t.Errorf("%+v (%v)", report, err)
		}
	}
	close(stop)
	<-ended
}
