package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

// filesHold tells whether any file below dir holds a text.
func filesHold(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found = found || bytes.Contains(content, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCompactKeepsThePresentOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i := range 300 {
		mustCommit(t, s, put(fmt.Sprintf("key%03d", i), []byte("the present value")))
	}
	mustCommit(t, s, put("changed", []byte("a secret that was replaced")))
	mustCommit(t, s, put("changed", []byte("what replaced it")))
	mustCommit(t, s, put("removed", []byte("a secret that was removed")))
	last := mustCommit(t, s, store.Txn{Deletes: []string{"removed"}})
	before := all(t, s)
	if err := Compact(Options{Dir: dir}); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("Compact of an open store: %v", err)
	}
	mustClose(t, s)
	if !filesHold(t, dir, "that was replaced") || !filesHold(t, dir, "that was removed") {
		t.Fatal("the files hold no old values even before: this proves nothing")
	}
	for range 2 {
		if err := Compact(Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
	}
	if filesHold(t, dir, "that was replaced") || filesHold(t, dir, "that was removed") {
		t.Error("the files still hold old values")
	}
	if !filesHold(t, dir, "what replaced it") {
		t.Error("the files do not hold the present value")
	}

	s = open(t, Options{Dir: dir})
	if after := all(t, s); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%d records, were %d", len(after), len(before))
	}
	if r, err := s.Revision(t.Context()); r != last || err != nil {
		t.Errorf("revision %d, %v, want %d", r, err, last)
	}
	if _, err := first(t, s, last-1); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch of changes that were given up: %v", err)
	}
	if next := mustCommit(t, s, put("changed", []byte("later"))); next != last+1 {
		t.Errorf("the next revision is %d, want %d", next, last+1)
	}
	if changes, err := first(t, s, last); err != nil || changes.Revision != last+1 {
		t.Errorf("the next change: %+v, %v", changes, err)
	}
	_, err := s.Commit(t.Context(), store.Txn{Expect: []store.Expect{{Key: "key007", Revision: 8}}, Puts: []store.Put{{Key: "key007", Value: nil}}})
	if err != nil {
		t.Errorf("a record lost its revision: %v", err)
	}
}

func all(t *testing.T, s *Store) []store.Record {
	t.Helper()
	page, err := s.List(context.Background(), "", "", 0)
	if err != nil || page.Next != "" {
		t.Fatal(page.Next, err)
	}
	return page.Records
}

// What an interrupted Compact leaves, new files or old ones, is removed and never used.
func TestInterruptedCompact(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	mustCommit(t, s, put("a", []byte("present")))
	mustClose(t, s)
	rest := filepath.Join(dir, freshDir)
	if err := errors.Join(os.Mkdir(rest, 0o700), os.WriteFile(filepath.Join(rest, "000001.sst"), []byte("a secret that was replaced"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	wantValue(t, s, "a", "present", 1)
	if filesHold(t, dir, "that was replaced") {
		t.Error("what was left is still there")
	}
}

func TestCompactRefuses(t *testing.T) {
	empty := t.TempDir()
	if err := Compact(Options{Dir: empty}); !errors.Is(err, store.ErrFormat) {
		t.Errorf("no store: %v", err)
	}
	if left := names(t, empty); left != empty {
		t.Errorf("something was made: %s", left)
	}
	if err := Compact(Options{}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("no directory: %v", err)
	}
}
