package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// roomy returns an open log in ModeFsync with some lines and room behind them, and its
// last segment's path.
func roomy(t *testing.T, dir string, o Options) (l *Log, path string) {
	t.Helper()
	o.Durability = ModeFsync
	l = openLog(t, dir, o)
	mustAppend(t, l, operation("first"), Hot)
	path = filepath.Join(dir, l.last().name())
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, err := os.Stat(path); err == nil && info.Size() > l.last().size {
			return l, path
		}
		if time.Now().After(deadline) {
			t.Fatal("no room was made")
		}
	}
}

func TestRoomIsTakenByLines(t *testing.T) {
	l, path := roomy(t, t.TempDir(), Options{})
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		mustAppend(t, l, operation(fmt.Sprint("r", i)), Hot)
	}
	checkLines(t, l)
	if after, err := os.Stat(path); err != nil || after.Size() < before.Size() || l.last().size >= before.Size() {
		t.Errorf("%d bytes before, %d after (%v), of which %d are lines", before.Size(), after.Size(), err, l.last().size)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if file, err := os.ReadFile(path); err != nil || !bytes.HasSuffix(file, []byte("}\n")) {
		t.Errorf("there is room after Close (%v)", err)
	}
}

// TestNoLineIsLostToRoom has lines written while room is made, over many segments.
func TestNoLineIsLostToRoom(t *testing.T) {
	dir := t.TempDir()
	l, _ := roomy(t, dir, Options{SegmentBytes: 600_000})
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 600 {
				if _, err := l.Append(operation(fmt.Sprint(w, "-", i)), Hot); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if found := checkLines(t, l); len(found) != 1+8*600 {
		t.Errorf("%d lines", len(found))
	}
	segments, err := listSegments(dir)
	if err != nil || len(segments) < 3 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	for _, s := range segments[:len(segments)-1] {
		if file, err := os.ReadFile(filepath.Join(dir, s.name())); err != nil || bytes.IndexByte(file, 0) >= 0 {
			t.Errorf("%s has ended and has room (%v)", s.name(), err)
		}
	}
}

func TestRoomIsNoRemainsOfACrash(t *testing.T) {
	dir := t.TempDir()
	l, path := roomy(t, dir, Options{})
	left, err := os.ReadFile(path) // as a crash leaves it
	if err != nil {
		t.Fatal(err)
	}
	size := int(l.last().size)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	half := bytes.Clone(left)
	copy(half[size:], left[:100])
	for _, test := range []struct {
		mode Mode
		file []byte
		cut  int
	}{{ModeFsync, left, 0}, {ModeFsync, half, 100}, {ModeInterval, left, len(left) - size}} {
		if err := os.WriteFile(path, test.file, 0o600); err != nil {
			t.Fatal(err)
		}
		l := openLog(t, dir, Options{Durability: test.mode})
		if got := l.Recovered(); got.Bytes != int64(test.cut) || l.Next() != 1 {
			t.Errorf("%s: %d lines, recovered %+v, want %d bytes", test.mode, l.Next(), got, test.cut)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
