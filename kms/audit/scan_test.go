package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func sequences(found []Entry) []uint64 {
	var numbers []uint64
	for _, e := range found {
		numbers = append(numbers, e.Sequence)
	}
	return numbers
}

func TestScanFilters(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{SegmentBytes: 700})
	for i, e := range []Entry{
		{RequestID: "r0", Principal: "ann", Action: "encrypt", Namespace: "a", Key: "x", Outcome: "OK"},
		{RequestID: "r1", Principal: "bob", Action: "decrypt", Namespace: "a", Key: "x", Outcome: "OK"},
		{RequestID: "r2", Principal: "ann", Action: "decrypt", Namespace: "a", Key: "y", Outcome: "PERMISSION_DENIED"},
		{RequestID: "r3", Principal: "bob", Batch: []BatchCount{{Action: "encrypt", Namespace: "a", Key: "x"}, {Action: "decrypt", Namespace: "b", Key: "y"}}},
		{RequestID: "r4", Principal: "ann", Action: "encrypt", Namespace: "b", Key: "x", Outcome: "OK"},
		{RequestID: "r5", Principal: "cat", Phase: PhaseEvent, Action: "boot"},
	} {
		e.Time = noon.Add(time.Duration(i) * time.Minute)
		mustAppend(t, l, &e, Hot)
	}
	if l.Stats().Segments < 2 {
		t.Fatal("the test wants several segments")
	}
	for _, test := range []struct {
		name string
		f    Filter
		want []uint64
	}{
		{"all", Filter{}, []uint64{0, 1, 2, 3, 4, 5}},
		{"from", Filter{From: 4}, []uint64{4, 5}},
		{"from beyond", Filter{From: 6}, nil},
		{"to", Filter{To: 2}, []uint64{0, 1}},
		{"to beyond", Filter{From: 5, To: 99}, []uint64{5}},
		{"since", Filter{Since: noon.Add(4 * time.Minute)}, []uint64{4, 5}},
		{"until", Filter{Until: noon.Add(time.Minute)}, []uint64{0}},
		{"principal", Filter{Principal: "ann"}, []uint64{0, 2, 4}},
		{"action in a batch too", Filter{Action: "decrypt"}, []uint64{1, 2, 3}},
		{"one target, not pieces of two", Filter{Action: "encrypt", Key: "y"}, nil},
		{"target in a batch", Filter{Namespace: "b", Key: "y"}, []uint64{3}},
		{"namespace", Filter{Namespace: "b"}, []uint64{3, 4}},
		{"outcome", Filter{Outcome: "PERMISSION_DENIED"}, []uint64{2}},
		{"request", Filter{RequestID: "r3"}, []uint64{3}},
		{"several", Filter{Principal: "ann", Action: "encrypt", From: 1}, []uint64{4}},
		{"limit", Filter{Principal: "ann", Limit: 2}, []uint64{0, 2}},
		{"newest", Filter{Newest: true, Limit: 2}, []uint64{4, 5}},
		{"newest of some", Filter{Newest: true, Limit: 2, Principal: "ann"}, []uint64{2, 4}},
		{"newest of few", Filter{Newest: true, Limit: 9, Principal: "bob"}, []uint64{1, 3}},
		{"newest within", Filter{Newest: true, Limit: 2, From: 1, To: 4}, []uint64{2, 3}},
		{"newest without limit", Filter{Newest: true, To: 3}, []uint64{0, 1, 2}},
	} {
		if got := sequences(entries(t, l, test.f)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestScanStops(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	for range 3 {
		mustAppend(t, l, operation("r"), Hot)
	}
	stop := errors.New("stop")
	seen := 0
	err := l.Scan(t.Context(), Filter{}, func(Entry) error { seen++; return stop })
	if err != stop || seen != 1 {
		t.Errorf("saw %d lines, then %v", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = l.Scan(ctx, Filter{}, func(Entry) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Scan returned %v", err)
	}
}

// TestScanSeeks starts at every place of a log with lines far longer and far
// shorter than the steps in which it seeks.
func TestScanSeeks(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{SegmentBytes: 8 << 20})
	for i := range 300 {
		e := operation(fmt.Sprint(i))
		if i%50 == 7 {
			e.Reason = strings.Repeat("long ", 40_000)
		} else if i%3 == 0 {
			e.Reason = strings.Repeat("x", 5000)
		}
		mustAppend(t, l, e, Hot)
	}
	for from := range uint64(300) {
		found := entries(t, l, Filter{From: from, Limit: 1})
		if len(found) != 1 || found[0].Sequence != from {
			t.Fatalf("from %d: %v", from, sequences(found))
		}
	}
}

func TestScanNamesDamage(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	for range 5 {
		mustAppend(t, l, operation("r"), Sync)
	}
	path := l.path("0000000000000000.jsonl")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := len(file) / 5
	for name, damage := range map[string]func([]byte) []byte{
		"changed": func(b []byte) []byte { b[2*size+1] ^= 1; return b },
		"reordered": func(b []byte) []byte {
			return slices.Concat(b[:2*size], b[3*size:4*size], b[2*size:3*size], b[4*size:])
		},
		"removed":   func(b []byte) []byte { return slices.Concat(b[:2*size], b[3*size:]) },
		"repeated":  func(b []byte) []byte { return slices.Concat(b[:2*size], b[size:2*size], b[2*size:]) },
		"cut":       func(b []byte) []byte { return b[:2*size] },
		"cut short": func(b []byte) []byte { return b[:2*size+9] },
	} {
		if err := os.WriteFile(path, damage(slices.Clone(file)), 0o600); err != nil {
			t.Fatal(err)
		}
		seen := 0
		err := l.Scan(t.Context(), Filter{}, func(Entry) error { seen++; return nil })
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want a CorruptError", name, err)
		} else if corrupt.File != path || corrupt.Line != 3 || corrupt.Offset != int64(2*size) || seen != 2 {
			t.Errorf("%s: %d lines, then %v; want line 3 of %s", name, seen, corrupt, path)
		}
	}
}

func TestTailFollows(t *testing.T) {
	const before, after = 20, 200
	l := openLog(t, t.TempDir(), Options{SegmentBytes: 10_000})
	appendSome := func(from, to int) {
		for i := from; i < to; i++ {
			e := operation(fmt.Sprint(i))
			if i%2 == 1 {
				e.Principal = "odd"
			}
			if _, err := l.Append(e, Hot); err != nil {
				t.Error(err)
			}
		}
	}
	appendSome(0, before)
	go appendSome(before, before+after)

	var all, odd []uint64
	ctx, cancel := context.WithCancel(t.Context())
	err := l.Tail(ctx, 5, Filter{}, func(e Entry) error {
		if all = append(all, e.Sequence); e.Sequence == before+after-1 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Tail returned %v", err)
	}
	if len(all) != before+after-5 || all[0] != 5 || !slices.IsSorted(all) {
		t.Errorf("saw %v", all)
	}
	err = l.Tail(t.Context(), 0, Filter{Principal: "odd", Limit: 50}, func(e Entry) error { odd = append(odd, e.Sequence); return nil })
	if err != nil || len(odd) != 50 || odd[49] != 99 {
		t.Errorf("saw %v, then %v", odd, err)
	}
}

func TestTailEnds(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{})
	mustAppend(t, l, operation("r"), Hot)
	stop := errors.New("stop")
	if err := l.Tail(t.Context(), 0, Filter{}, func(Entry) error { return stop }); err != stop {
		t.Errorf("fn failed, Tail returned %v", err)
	}
	if err := l.Tail(t.Context(), 0, Filter{To: 1}, func(Entry) error { return nil }); err != nil {
		t.Errorf("To was reached, Tail returned %v", err)
	}
	ended := make(chan error)
	go func() { ended <- l.Tail(t.Context(), 9, Filter{}, func(Entry) error { return stop }) }()
	waitUntil(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.changed != nil })
	mustAppend(t, l, operation("r"), Hot) // wakes it, but is not its line
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the log was closed, Tail returned %v", err)
	}
}
