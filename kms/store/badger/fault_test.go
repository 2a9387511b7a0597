package badger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/kms/store"
)

func put(key string, value []byte) store.Txn {
	return store.Txn{Puts: []store.Put{{Key: key, Value: value}}}
}

func mustCommit(t testing.TB, s store.Store, txn store.Txn) store.Revision {
	t.Helper()
	r, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return r
}

func mustClose(t testing.TB, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// TestFailedWrite lets the device report an error, after it wrote and before.
// The outcome is unknown, not shown to readers, and settled by opening anew.
func TestFailedWrite(t *testing.T) {
	for name, persisted := range map[string]bool{"but persisted": true, "and lost": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			mustCommit(t, s, put("a", []byte("before")))
			s.write = func(g *group) error {
				if persisted {
					return errors.Join(s.writeSynced(g), syscall.EIO)
				}
				return syscall.EIO
			}
			_, err := s.Commit(t.Context(), put("a", []byte("after")))
			if !errors.Is(err, store.ErrUnknown) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("Commit: %v, want ErrUnknown", err)
			}
			_, err = s.Commit(t.Context(), put("b", nil))
			if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknown) {
				t.Fatalf("Commit after a failed write: %v, want ErrUnavailable", err)
			}
			wantValue(t, s, "a", "before", 1)
			mustClose(t, s)

			s = open(t, Options{Dir: dir})
			next := store.Revision(2)
			if persisted {
				wantValue(t, s, "a", "after", 2)
				next = 3
			} else {
				wantValue(t, s, "a", "before", 1)
			}
			if r := mustCommit(t, s, put("b", nil)); r != next {
				t.Fatalf("next revision %d, want %d", r, next)
			}
		})
	}
}

func wantValue(t *testing.T, s store.Store, key, value string, r store.Revision) {
	t.Helper()
	got, err := s.Get(t.Context(), key)
	if err != nil || string(got.Value) != value || got.Revision != r {
		t.Fatalf("Get(%q) = %.20q @%d, %v; want %.20q @%d", key, got.Value, got.Revision, err, value, r)
	}
}

// heldStore is a store whose writes wait until release is called.
func heldStore(t *testing.T) (s *Store, writes *atomic.Int32, release func()) {
	s = open(t, Options{Dir: t.TempDir()})
	held := make(chan struct{})
	writes = new(atomic.Int32)
	s.write = func(g *group) error {
		writes.Add(1)
		<-held
		return s.writeSynced(g)
	}
	return s, writes, func() { close(held) }
}

// TestGroupCommit queues rivals behind a slow write: they share the next one, and
// only one of them wins.
func TestGroupCommit(t *testing.T) {
	s, writes, release := heldStore(t)
	const rivals = 20
	var wg sync.WaitGroup
	wg.Go(func() { s.Commit(t.Context(), put("first", nil)) })
	waitUntil(t, func() bool { return writes.Load() == 1 })
	var won, lost atomic.Int32
	for i := range rivals {
		wg.Go(func() {
			txn := put("contested", fmt.Append(nil, i))
			txn.Expect = []store.Expect{{Key: "contested"}}
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprint("own", i)})
			switch _, err := s.Commit(t.Context(), txn); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, store.ErrConflict):
				lost.Add(1)
			}
		})
	}
	time.Sleep(100 * time.Millisecond) // lets them queue; the outcome does not depend on it
	release()
	wg.Wait()
	if won.Load() != 1 || lost.Load() != rivals-1 {
		t.Fatalf("%d won and %d lost, want 1 and %d", won.Load(), lost.Load(), rivals-1)
	}
	page, err := s.List(t.Context(), "own", "", 0)
	if err != nil || len(page.Records) != 1 || page.Revision != 2 {
		t.Fatalf("%d records of losers and winner at revision %d, %v; want 1 at 2", len(page.Records), page.Revision, err)
	}
}

// TestGroupSharesWrite commits many blind writes behind a slow one.
func TestGroupSharesWrite(t *testing.T) {
	s, writes, release := heldStore(t)
	const count = 50
	var wg sync.WaitGroup
	for i := range count {
		wg.Go(func() {
			if _, err := s.Commit(t.Context(), put(fmt.Sprint(i), nil)); err != nil {
				t.Errorf("Commit: %v", err)
			}
		})
	}
	waitUntil(t, func() bool { return writes.Load() == 1 })
	time.Sleep(200 * time.Millisecond)
	release()
	wg.Wait()
	if n := writes.Load(); n > count/2 {
		t.Fatalf("%d writes for %d transactions: they are not grouped", n, count)
	}
	if r, err := s.Revision(t.Context()); err != nil || r != count {
		t.Fatalf("revision %d, %v; want %d", r, err, count)
	}
}

// TestQueuedContext ends the context of a transaction that was not yet taken: it
// must not happen. Readers are not held up by the write that it waits for.
func TestQueuedContext(t *testing.T) {
	s, writes, release := heldStore(t)
	done := make(chan error, 1)
	go func() { _, err := s.Commit(t.Context(), put("first", nil)); done <- err }()
	waitUntil(t, func() bool { return writes.Load() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Commit(ctx, put("queued", nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Commit: %v, want DeadlineExceeded", err)
	}
	if _, err := s.Get(t.Context(), "first"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get of what is not yet durable: %v, want ErrNotFound", err)
	}
	release()
	if err := <-done; err != nil {
		t.Fatalf("Commit: %v", err)
	}
	mustCommit(t, s, put("last", nil))
	if _, err := s.Get(t.Context(), "queued"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get of the cancelled write: %v, want ErrNotFound", err)
	}
}

func waitUntil(t *testing.T, done func() bool) {
	t.Helper()
	for range 5000 {
		if done() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("waited in vain")
}

// TestDiskFull fills a small file system, by the store itself and then, once
// badger is done with what it had begun, by a stranger to the last byte.
func TestDiskFull(t *testing.T) {
	disk := mountDisk(t, "352m")
	s := open(t, Options{Dir: filepath.Join(disk, "store")})
	value := make([]byte, 256<<10)
	written := 0
	err := error(nil)
	for err == nil && written < 4000 {
		if _, err = s.Commit(t.Context(), put(fmt.Sprint("k", written), value)); err == nil {
			written++
		}
	}
	wantNoSpace(t, err)
	waitQuiet(t, disk)
	fillDisk(t, filepath.Join(disk, "stranger"))
	_, err = s.Commit(t.Context(), put("full", nil))
	wantNoSpace(t, err)
	for i := range written {
		wantValue(t, s, fmt.Sprint("k", i), string(value), store.Revision(i+1))
	}
	if _, err := Open(Options{Dir: filepath.Join(disk, "other")}); !errors.Is(err, store.ErrNoSpace) && !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Open on a full disk: %v", err)
	}

	remount(t, disk, "1g")
	if r := mustCommit(t, s, put("again", nil)); r != store.Revision(written+1) {
		t.Fatalf("first revision after the disk was full: %d, want %d", r, written+1)
	}
	mustClose(t, s)
	s = open(t, Options{Dir: filepath.Join(disk, "store")})
	wantValue(t, s, fmt.Sprint("k", written-1), string(value), store.Revision(written))
	mustClose(t, s)
}

func wantNoSpace(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, store.ErrNoSpace) || !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknown) {
		t.Fatalf("Commit on a full disk: %v, want ErrNoSpace", err)
	}
}

// mountDisk mounts a file system in memory. That takes root: in continuous
// integration it must be possible, elsewhere the test is skipped without it.
func mountDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("cannot mount a small file system (%v): run as root to test a full disk", err)
	}
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func remount(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size="+size); err != nil {
		t.Fatalf("remount: %v", err)
	}
}

// waitQuiet waits until the free space has not changed for a second: badger may
// not be in the middle of writing a table (see the package comment).
func waitQuiet(t *testing.T, dir string) {
	t.Helper()
	var last uint64
	for since := time.Now(); time.Since(since) < time.Second; time.Sleep(10 * time.Millisecond) {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			t.Fatal(err)
		}
		if fs.Bfree != last {
			last, since = fs.Bfree, time.Now()
		}
	}
}

func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
}
