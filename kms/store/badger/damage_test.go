package badger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

// TestTornLog cuts the write-ahead log at many places, as a power failure may,
// and expects a prefix of the transactions, each of them whole.
func TestTornLog(t *testing.T) {
	const count = 12
	origin := t.TempDir()
	s := open(t, Options{Dir: origin})
	for i := 1; i <= count; i++ {
		value := fmt.Append(nil, i)
		mustCommit(t, s, store.Txn{Puts: []store.Put{{Key: "a", Value: value}, {Key: "b", Value: value}, {Key: "c", Value: value}}})
	}
	dir := filepath.Join(t.TempDir(), "copy")
	copyFiles(t, origin, dir) // while it is open: what a crash leaves
	logs, _ := filepath.Glob(filepath.Join(dir, dataDir, "*.mem"))
	if len(logs) != 1 {
		t.Fatalf("%d write-ahead logs, want 1", len(logs))
	}
	whole, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(whole, "\x00"))
	seen := map[store.Revision]bool{}
	for cut := 20; cut <= end+1; cut += 151 {
		torn := filepath.Join(t.TempDir(), "torn")
		copyFiles(t, dir, torn)
		writeLog(t, filepath.Join(torn, dataDir, filepath.Base(logs[0])), whole[:min(cut, len(whole))], len(whole))
		seen[wantPrefix(t, torn)] = true
	}
	if len(seen) < count/2 {
		t.Fatalf("the cuts left only %d different revisions: they do not test much", len(seen))
	}
}

func writeLog(t *testing.T, path string, content []byte, size int) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, content, 0o600), os.Truncate(path, int64(size))); err != nil {
		t.Fatal(err)
	}
}

// wantPrefix opens a store whose end was cut off and returns its revision.
func wantPrefix(t *testing.T, dir string) store.Revision {
	t.Helper()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer mustClose(t, s)
	head, _ := s.Revision(t.Context())
	if head == 0 {
		return 0
	}
	for _, key := range []string{"a", "b", "c"} {
		wantValue(t, s, key, fmt.Sprint(head), head)
	}
	if c, err := first(t, s, head-1); err != nil || len(c.Events) != 3 {
		t.Fatalf("last changes: %v, %v", c, err)
	}
	if r := mustCommit(t, s, put("d", nil)); r != head+1 {
		t.Fatalf("next revision %d, want %d", r, head+1)
	}
	return head
}

// copyFiles copies the store in from, but for zeros at the ends of files.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(to, dataDir), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{formatFile, dataDir + "/*"} {
		paths, _ := filepath.Glob(filepath.Join(from, name))
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(from, path)
			writeLog(t, filepath.Join(to, rel), bytes.TrimRight(content, "\x00"), len(content))
		}
	}
}

// TestDamagedTable flips a byte in a table: the store must not open as if the
// records in it had never been.
func TestDamagedTable(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for i := range 100 {
		mustCommit(t, s, put(fmt.Sprint("key", i), bytes.Repeat([]byte{byte(i)}, 1000)))
	}
	mustClose(t, s)
	tables, _ := filepath.Glob(filepath.Join(dir, dataDir, "*.sst"))
	if len(tables) == 0 {
		t.Fatal("no tables")
	}
	content, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(tables[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(Options{Dir: dir}); err == nil {
		defer s.Close()
		t.Fatal("Open of a damaged table succeeded")
	} else if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Open of a damaged table: %v, want ErrUnavailable", err)
	}
}

// TestDiscardWhileReading gives up and compacts away old versions of a record
// that is read all the time.
func TestDiscardWhileReading(t *testing.T) {
	s := open(t, Options{Dir: t.TempDir()})
	mustCommit(t, s, put("a", nil))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				if _, err := s.Get(t.Context(), "a"); err != nil {
					t.Errorf("Get: %v", err)
					return
				}
			}
		})
	}
	for i := range 100 {
		mustCommit(t, s, put("a", make([]byte, 128<<10)))
		s.discardVersions()
		if i%50 == 49 {
			if err := s.db.Flatten(1); err != nil {
				t.Errorf("Flatten: %v", err)
			}
		}
	}
	s.collectValueLog()
	stop.Store(true)
	wg.Wait()
}
