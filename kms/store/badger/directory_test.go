package badger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
)

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir})
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second Open: %v, want ErrLocked that names the directory", err)
	}
	mustCommit(t, s, put("a", nil))
	mustClose(t, s)
	s = open(t, Options{Dir: dir})
	wantValue(t, s, "a", "", 1)
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(dir string) error
		want    error
	}{
		{"newer format", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, formatFile), []byte("keywright store, badger, format 2\n"), 0o600)
		}, store.ErrFormat},
		{"damaged format", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, formatFile), bytes.Repeat([]byte{0xff}, 1000), 0o600)
		}, store.ErrFormat},
		{"something else", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600)
		}, store.ErrFormat},
		{"lost format", func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, dataDir), 0o700),
				os.WriteFile(filepath.Join(dir, dataDir, "MANIFEST"), nil, 0o600))
		}, store.ErrFormat},
		{"a file in its place", func(dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600))
		}, store.ErrUnavailable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			if err := errors.Join(os.Mkdir(dir, 0o755), test.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			before := names(t, dir)
			if _, err := Open(Options{Dir: dir}); !errors.Is(err, test.want) {
				t.Fatalf("Open: %v, want %v", err, test.want)
			}
			if after := names(t, dir); after != before {
				t.Fatalf("Open changed the directory: %s, was %s", after, before)
			}
		})
	}
	if _, err := Open(Options{}); !errors.Is(err, store.ErrInvalid) {
		t.Fatalf("Open without a directory: %v, want ErrInvalid", err)
	}
}

// names lists what is below dir, but for the lock.
func names(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) != lockFile {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestInterruptedCreate(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, formatTemp), []byte("keyw"), 0o600),
		os.WriteFile(filepath.Join(dir, lockFile), nil, 0o600),
		os.Mkdir(filepath.Join(dir, dataDir), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, open(t, Options{Dir: dir}), put("a", nil))
}

func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing", "store")
	mustClose(t, open(t, Options{Dir: dir}))
	for _, path := range []string{dir, filepath.Join(dir, dataDir)} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: mode %v, %v; want 0700", path, info.Mode().Perm(), err)
		}
	}
}

func TestSyncNames(t *testing.T) {
	d := &directory{data: t.TempDir()}
	old := time.Now().Add(-time.Hour)
	step := func(what string, wantSync bool) {
		t.Helper()
		before := d.syncedAt
		if err := d.syncNames(); err != nil {
			t.Fatal(err)
		}
		if synced := d.syncedAt != before; synced != wantSync {
			t.Errorf("%s: synced %v, want %v", what, synced, wantSync)
		}
	}
	step("just made", true)
	step("just modified", true)
	if err := os.Chtimes(d.data, old, old); err != nil {
		t.Fatal(err)
	}
	step("other time", true)
	step("long unmodified", false)
	if err := os.WriteFile(filepath.Join(d.data, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	step("new file", true)
}

// TestReopen closes and opens in between: everything stays, revisions go on, and a
// smaller retention takes hold.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	const lives, each = 4, 30
	for life := range lives {
		s := open(t, Options{Dir: dir})
		for i := range each {
			n := life*each + i + 1
			if r := mustCommit(t, s, put("a", fmt.Append(nil, n))); r != store.Revision(n) {
				t.Fatalf("revision %d, want %d", r, n)
			}
		}
		mustClose(t, s)
	}
	s := open(t, Options{Dir: dir, KeepRevisions: 10})
	wantValue(t, s, "a", fmt.Sprint(lives*each), lives*each)
	if c, err := first(t, s, 0); err != nil || c.Revision != 1 || string(c.Events[0].Value) != "1" {
		t.Fatalf("watch over all lives: %v, %v", c, err)
	}
	for range 40 {
		mustCommit(t, s, put("a", nil))
	}
	if _, err := first(t, s, lives*each); !errors.Is(err, store.ErrCompacted) {
		t.Fatalf("watch beyond the smaller retention: %v, want ErrCompacted", err)
	}
}

func first(t *testing.T, s store.Store, from store.Revision) (store.Changes, error) {
	for changes, err := range s.Watch(t.Context(), from) {
		return changes, err
	}
	return store.Changes{}, errors.New("watch ended without an error")
}

func TestLogger(t *testing.T) {
	var text bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&text, nil))
	mustClose(t, open(t, Options{Dir: t.TempDir(), Logger: logger}))
	if text.Len() != 0 {
		t.Errorf("badger talks at info level: %s", &text)
	}
	databaseLogger{logger}.Errorf("broken %d\n", 7)
	if got := text.String(); !strings.Contains(got, `level=ERROR msg="badger: broken 7"`) {
		t.Errorf("logged %q", got)
	}
}
