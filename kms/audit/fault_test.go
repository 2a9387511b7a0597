//go:build linux

package audit

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keywright/keywright/kms/audit/internal/disk"
	"github.com/keywright/keywright/kms/audit/internal/layout"
)

// fillDisk takes all the space that is left.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, block := range []int{64 << 10, 512} {
		for err = nil; err == nil; {
			_, err = file.Write(make([]byte, block))
		}
	}
	if !isFull(err) {
		t.Fatal(err)
	}
}

// appendUntilRefused returns the error, which must be typed.
func appendUntilRefused(t *testing.T, l *Log, e *Entry, d Durability) error {
	t.Helper()
	for range 100_000 {
		before := l.Next()
		if _, err := l.Append(e, d); err != nil {
			if !errors.Is(err, ErrUnavailable) || l.Next() != before {
				t.Fatalf("%v; next went from %d to %d", err, before, l.Next())
			}
			return err
		}
	}
	t.Fatal("the disk does not get full")
	return nil
}

func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskFull(t *testing.T) {
	disk := smallDisk(t)
	dir, filler := filepath.Join(disk, "audit"), filepath.Join(disk, "filler")
	var logged bytes.Buffer
	l := openLog(t, dir, Options{ReserveBytes: 128 << 10, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	acknowledged := mustAppend(t, l, operation("before"), Hot)
	fillDisk(t, filler)

	if err := appendUntilRefused(t, l, operation("full"), Hot); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("refused with %v, want ENOSPC inside", err)
	}
	checkLines(t, l)
	if !errors.Is(l.Health(), ErrUnavailable) {
		t.Errorf("health is %v", l.Health())
	}
	if _, err := os.Stat(filepath.Join(dir, reserveName)); err != nil {
		t.Errorf("an operation used the reserve: %v", err)
	}

	for range 20 { // operators can still act, and be seen to
		acknowledged = mustAppend(t, l, mutation("reserve"), Sync)
		if _, err := l.Append(operation("refused"), Hot); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("an operation used the reserve: %v", err)
		}
	}
	appendUntilRefused(t, l, mutation("reserve"), Sync)
	checkLines(t, l)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return l.Health() == nil })
	if next := mustAppend(t, l, operation("after"), Hot); next <= acknowledged {
		t.Errorf("sequence %d after %d", next, acknowledged)
	}
	for _, e := range checkLines(t, l) {
		if e.RequestID == "refused" {
			t.Error("a refused line is in the log")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(logged.String(), "\n"); n != 2 {
		t.Errorf("%d messages, want one for the failure and one for its end:\n%s", n, &logged)
	}
	openLog(t, dir, Options{})
}

// TestOpenOnFullDisk: the operator gets in, and service begins by itself.
func TestOpenOnFullDisk(t *testing.T) {
	disk := smallDisk(t)
	dir, filler := filepath.Join(disk, "audit"), filepath.Join(disk, "filler")
	if err := openLog(t, dir, Options{ReserveBytes: -1}).Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, filler)
	l := openLog(t, dir, Options{ReserveBytes: 128 << 10})
	if _, err := l.Append(operation("r"), Hot); !errors.Is(err, ErrUnavailable) || !errors.Is(l.Health(), syscall.ENOSPC) {
		t.Errorf("Append: %v, health: %v", err, l.Health())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return l.Health() == nil })
	mustAppend(t, l, operation("r"), Hot)
	checkLines(t, l)
}

// TestRollOnFullDisk: with no space, no new segment can be begun either.
func TestRollOnFullDisk(t *testing.T) {
	disk := smallDisk(t)
	filler := filepath.Join(disk, "filler")
	l := openLog(t, filepath.Join(disk, "audit"), Options{ReserveBytes: -1, SegmentBytes: 1000})
	fillDisk(t, filler)
	appendUntilRefused(t, l, operation("full"), Sync)
	checkLines(t, l)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return l.Health() == nil })
	for range 5 {
		mustAppend(t, l, operation("r"), Hot)
	}
	checkLines(t, l)
}

// TestConcurrentCallersOnFullDisk: each learns its own fate.
func TestConcurrentCallersOnFullDisk(t *testing.T) {
	disk := smallDisk(t)
	filler := filepath.Join(disk, "filler")
	l := openLog(t, filepath.Join(disk, "audit"), Options{ReserveBytes: 64 << 10, SegmentBytes: 50_000})
	fillDisk(t, filler)
	var mu sync.Mutex
	acknowledged, refused := map[uint64]string{}, 0
	var group sync.WaitGroup
	for w := range 16 {
		group.Go(func() {
			for i := range 100 {
				e, d := operation(string(rune('a'+w))), Hot
				if i%4 == 0 {
					e, d = mutation(e.RequestID), Sync
				}
				sequence, err := l.Append(e, d)
				mu.Lock()
				if err == nil {
					acknowledged[sequence] = e.RequestID
				} else if refused++; !errors.Is(err, ErrUnavailable) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	found := checkLines(t, l)
	if len(found) != len(acknowledged) || refused == 0 || len(found) == 0 {
		t.Fatalf("%d lines, %d acknowledged, %d refused", len(found), len(acknowledged), refused)
	}
	for sequence, id := range acknowledged {
		if found[sequence].RequestID != id {
			t.Fatalf("line %d is of %s, acknowledged to %s", sequence, found[sequence].RequestID, id)
		}
	}
}

// failingDisk makes fdatasync fail for as long as its flag is set.
type failingDisk struct {
	mu    sync.Mutex
	fails bool
}

func (d *failingDisk) set(fails bool) { d.mu.Lock(); defer d.mu.Unlock(); d.fails = fails }

func (d *failingDisk) fdatasync(file *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails {
		return os.NewSyscallError("fdatasync", syscall.EIO)
	}
	return disk.Datasync(file)
}

func TestFailedSyncIsRefused(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	var disk failingDisk
	l.fdatasync = disk.fdatasync
	mustAppend(t, l, operation("before"), Sync)

	disk.set(true)
	if _, err := l.Append(mutation("unsynced"), Sync); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("Append: %v, want ErrUnavailable with EIO inside", err)
	}
	for _, d := range []Durability{Hot, Sync} { // and nothing is added to what cannot be synced
		if _, err := l.Append(operation("refused"), d); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("Append: %v", err)
		}
	}
	if l.Next() != 2 || l.Stats().Synced != 1 || l.Health() == nil {
		t.Errorf("next %d, synced %d, health %v", l.Next(), l.Stats().Synced, l.Health())
	}

	disk.set(false)
	waitUntil(t, func() bool { return l.Health() == nil })
	if l.Stats().Synced != 2 {
		t.Error("healthy before everything was on disk")
	}
	mustAppend(t, l, operation("after"), Hot)
	checkLines(t, l)
}

// TestFailedSyncIsRewritten: Linux drops pages that it failed to write, so what
// they held must be written again before the next fdatasync. Zeroing the disk
// under a log that has the lines in its page cache cannot be had in a test; that
// the blocks are written again is seen by the file's time of modification.
func TestFailedSyncIsRewritten(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	var disk failingDisk
	l.fdatasync = disk.fdatasync
	mustAppend(t, l, operation("before"), Sync)
	disk.set(true)
	if _, err := l.Append(mutation("unsynced"), Sync); err == nil {
		t.Fatal("acknowledged")
	}
	path := l.file.Name()
	if err := os.Chtimes(path, noon, noon); err != nil {
		t.Fatal(err)
	}
	disk.set(false)
	waitUntil(t, func() bool { return l.Health() == nil })
	if info, err := os.Stat(path); err != nil || info.ModTime().Equal(noon) {
		t.Errorf("the lines were not written again (%v)", err)
	}
	checkLines(t, l)
}

func TestFailedSyncBeforeRoll(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{SegmentBytes: 1000, Interval: 1 << 40})
	var disk failingDisk
	l.fdatasync = disk.fdatasync
	for range 2 {
		mustAppend(t, l, operation("before"), Hot)
	}
	waitUntil(t, func() bool { return l.Stats().Synced > 0 }) // the first is synced at once, then not for long
	disk.set(true)
	appendUntilRefused(t, l, operation("roll"), Hot)
	checkLines(t, l)
	disk.set(false)
	waitUntil(t, func() bool { return l.Health() == nil })
	for range 5 {
		mustAppend(t, l, operation("after"), Hot)
	}
	if checkLines(t, l); l.Stats().Segments < 2 {
		t.Error("did not roll")
	}
}

// TestHashesThatCannotBeWritten: lines whose hashes do not fit on the disk stand,
// and count in the tree; no more are accepted until the hashes are written.
func TestHashesThatCannotBeWritten(t *testing.T) {
	disk, dir := smallDisk(t), t.TempDir()
	filler := filepath.Join(disk, "filler")
	if err := os.Symlink(filepath.Join(disk, "hashes"), filepath.Join(dir, layout.Tree)); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, dir, Options{ReserveBytes: -1, SegmentBytes: 20_000})
	mustAppend(t, l, operation("before"), Hot)
	fillDisk(t, filler)
	if err := appendUntilRefused(t, l, operation("full"), Hot); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("refused with %v, want ENOSPC inside", err)
	}
	if _, err := l.Append(mutation("full"), Sync); !errors.Is(err, ErrUnavailable) || !errors.Is(l.Health(), ErrUnavailable) {
		t.Errorf("management: %v, health: %v", err, l.Health())
	}
	checkTree(t, l)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return l.Health() == nil })
	appendLines(t, l, 100)
	checkTree(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	checkTree(t, openLog(t, dir, Options{}))
}
