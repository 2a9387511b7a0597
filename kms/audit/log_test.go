package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456000, time.UTC)

func openLog(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return l
}

// operation is a line as the hot path writes it.
func operation(id string) *Entry {
	return &Entry{
		Time: noon, RequestID: id,
		Principal: "internal/spiffe://example.org/billing", Method: "mtls", Source: "192.0.2.7:40112",
		Action: "encrypt", Namespace: "billing", Key: "cards", KeyID: 0x0123456789abcdef, Version: 3,
		Decision: Allow, Policies: []string{"billing/app"}, PolicyRevision: 42, Outcome: "OK",
		EncryptionContext: map[string]string{"table": "cards", "row": "1201"}, Latency: 17 * time.Microsecond,
	}
}

func mutation(id string) *Entry {
	return &Entry{Time: noon, RequestID: id, Phase: PhaseIntent, Principal: "ops", Action: "rotate", Namespace: "billing", Key: "cards", Decision: Allow}
}

func mustAppend(t testing.TB, l *Log, e *Entry, d Durability) uint64 {
	t.Helper()
	sequence, err := l.Append(e, d)
	if err != nil {
		t.Fatal(err)
	}
	return sequence
}

func entries(t testing.TB, l *Log, f Filter) []Entry {
	t.Helper()
	var found []Entry
	if err := l.Scan(t.Context(), f, func(e Entry) error { found = append(found, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return found
}

// checkLines expects the files to hold exactly the whole lines 0..next-1.
func checkLines(t testing.TB, l *Log) []Entry {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(l.dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var found []Entry
	for _, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if l.options.Durability == ModeFsync {
			file = bytes.TrimRight(file, "\x00") // room
		}
		for line := range bytes.Lines(file) {
			e, err := ParseEntry(bytes.TrimSuffix(line, []byte("\n")))
			if err != nil || e.Sequence != uint64(len(found)) || !bytes.HasSuffix(line, []byte("\n")) {
				t.Fatalf("%s: %q where line %d belongs (%v)", path, line, len(found), err)
			}
			found = append(found, e)
		}
	}
	if uint64(len(found)) != l.Next() {
		t.Fatalf("files hold %d lines, next is %d", len(found), l.Next())
	}
	return found
}

func TestAppendWritesBeforeItReturns(t *testing.T) {
	for _, o := range []Options{{}, {Durability: ModeFsync}} {
		for _, d := range []Durability{Hot, Sync} {
			t.Run(fmt.Sprint(o.Durability, d), func(t *testing.T) {
				dir := t.TempDir()
				l := openLog(t, dir, o)
				for i := range uint64(3) {
					e := operation(fmt.Sprint("r", i))
					if got := mustAppend(t, l, e, d); got != i || e.Sequence != i {
						t.Fatalf("sequence %d, entry says %d, want %d", got, e.Sequence, i)
					}
					file, err := os.ReadFile(filepath.Join(dir, "0000000000000000.jsonl"))
					if err != nil {
						t.Fatal(err)
					}
					file = bytes.TrimRight(file, "\x00") // room
					if line := append(e.AppendJSON(nil), '\n'); !bytes.HasSuffix(file, line) {
						t.Fatalf("file ends with %q, want %q", file, line)
					}
					if s := l.Stats(); (d == Sync || o.Durability == ModeFsync) && s.Synced != i+1 {
						t.Fatalf("returned with %d lines on disk, want %d", s.Synced, i+1)
					}
				}
			})
		}
	}
}

func TestIntervalSyncsByItself(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{Interval: 5 * time.Millisecond})
	for range 3 {
		mustAppend(t, l, operation("r"), Hot)
		waitUntil(t, func() bool { return l.Stats().Synced == l.Next() })
	}
	if l.Stats().SyncLatency <= 0 {
		t.Error("no latency of an fdatasync was recorded")
	}
}

func waitUntil(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen within 20 s")
		}
	}
}

func TestConcurrentAppend(t *testing.T) {
	const writers, each = 32, 200
	l := openLog(t, t.TempDir(), Options{SegmentBytes: 100 << 10})
	sequences := make([][]uint64, writers)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range each {
				e, d := operation(fmt.Sprintf("%d-%d", w, i)), Hot
				if i%20 == 0 {
					e, d = mutation(e.RequestID), Sync
				}
				sequence, err := l.Append(e, d)
				if err != nil {
					t.Error(err)
					return
				}
				sequences[w] = append(sequences[w], sequence)
			}
		})
	}
	group.Wait()
	found := entries(t, l, Filter{})
	if len(found) != writers*each || l.Next() != writers*each {
		t.Fatalf("%d lines, next is %d, want %d", len(found), l.Next(), writers*each)
	}
	for w := range writers {
		for i, sequence := range sequences[w] {
			if got, want := found[sequence].RequestID, fmt.Sprintf("%d-%d", w, i); got != want {
				t.Fatalf("line %d is of request %s, want %s", sequence, got, want)
			}
		}
	}
	if l.Stats().Segments < 2 {
		t.Error("segments did not roll")
	}
}

// Entries that are appended together follow each other, also amid those of others, and
// none is recorded if one cannot be.
func TestAppendAll(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	const callers, rounds, together = 8, 50, 20
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for range rounds {
				all := make([]*Entry, together)
				for i := range all {
					all[i] = operation(fmt.Sprint(caller, ".", i))
				}
				first, err := l.AppendAll(all, Hot)
				if err != nil {
					t.Error(err)
					return
				}
				for i, e := range all {
					if e.Sequence != first+uint64(i) {
						t.Errorf("entry %d of those from %d has number %d", i, first, e.Sequence)
					}
				}
				mustAppend(t, l, operation(fmt.Sprint(caller, ".alone")), Hot)
			}
		})
	}
	group.Wait()
	next := make([]int, callers)
	found := checkLines(t, l)
	for _, e := range found {
		var caller, i int
		if n, _ := fmt.Sscanf(e.RequestID, "%d.%d", &caller, &i); n < 2 {
			continue
		}
		if i != next[caller] {
			t.Fatalf("entry %s where %d.%d belongs", e.RequestID, caller, next[caller])
		}
		next[caller] = (i + 1) % together
	}
	if want := callers * rounds * (together + 1); len(found) != want {
		t.Errorf("%d lines, want %d", len(found), want)
	}
	giant := operation("giant")
	giant.Reason = string(bytes.Repeat([]byte("x"), MaxLineBytes))
	if _, err := l.AppendAll([]*Entry{operation("a"), giant, operation("b")}, Hot); !errors.Is(err, ErrTooLarge) || l.Next() != uint64(len(found)) {
		t.Errorf("with one too large: %v, %d lines", err, l.Next())
	}
}

func TestReopenContinues(t *testing.T) {
	dir := t.TempDir()
	for round := range uint64(4) {
		l := openLog(t, dir, Options{SegmentBytes: 1000})
		if l.Next() != round*5 || l.Recovered() != (Recovered{}) {
			t.Fatalf("next %d, recovered %+v", l.Next(), l.Recovered())
		}
		for range 5 {
			mustAppend(t, l, operation("r"), Hot)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := openLog(t, dir, Options{})
	if found := entries(t, l, Filter{}); len(found) != 20 || found[19].Sequence != 19 {
		t.Fatalf("%d lines", len(found))
	}
}

func TestOneLogPerDirectory(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open: %v, want ErrLocked", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	openLog(t, dir, Options{})
}

func TestClosed(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	mustAppend(t, l, operation("r"), Hot)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Synced != 1 {
		t.Errorf("closed with %d lines on disk, want 1", s.Synced)
	}
	if _, err := l.Append(operation("r"), Hot); !errors.Is(err, ErrClosed) {
		t.Errorf("Append: %v, want ErrClosed", err)
	}
	if err := l.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v, want ErrClosed", err)
	}
}

// TestCloseWaits: a caller is either served or told that the log is closed.
func TestCloseWaits(t *testing.T) {
	for range 20 {
		l := openLog(t, t.TempDir(), Options{ReserveBytes: -1})
		var group sync.WaitGroup
		var served atomic.Uint64
		for range 16 {
			group.Go(func() {
				for {
					if _, err := l.Append(mutation("r"), Sync); err == nil {
						served.Add(1)
					} else if errors.Is(err, ErrClosed) {
						return
					} else {
						t.Error(err)
						return
					}
				}
			})
		}
		waitUntil(t, func() bool { return served.Load() > 50 })
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		group.Wait()
		if found := checkLines(t, l); uint64(len(found)) != served.Load() {
			t.Fatalf("%d lines, %d served", len(found), served.Load())
		}
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "audit")
	l := openLog(t, dir, Options{})
	mustAppend(t, l, operation("r"), Hot)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files (%v), want segment, index, tree, lock and reserve", len(files), err)
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, want 0600 (%v)", file.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: mode %v, want 0700 (%v)", info.Mode(), err)
	}
}

func TestTooLarge(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	e := operation("r")
	e.Details = map[string]string{"large": string(bytes.Repeat([]byte("x"), MaxLineBytes))}
	if _, err := l.Append(e, Hot); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("Append: %v, want ErrTooLarge", err)
	}
	e.Details["large"] = e.Details["large"][:MaxLineBytes-1000]
	mustAppend(t, l, e, Hot)
	mustAppend(t, l, operation("next"), Hot)
	if found := entries(t, l, Filter{From: 1}); len(found) != 1 || found[0].RequestID != "next" {
		t.Fatalf("found %d lines behind the large one", len(found))
	}
}

func TestBadOptions(t *testing.T) {
	if _, err := Open(t.TempDir(), Options{Durability: "later"}); err == nil {
		t.Error("an unknown durability was accepted")
	}
}

func TestAppendAllocations(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	e := operation("r")
	if allocations := testing.AllocsPerRun(1000, func() { mustAppend(t, l, e, Hot) }); allocations > 1 && !raceEnabled {
		t.Errorf("%v allocations per Append, want at most 1", allocations)
	}
}
