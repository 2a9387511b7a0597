package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

const (
	writers = 8
	rounds  = 25
)

// together runs work in so many goroutines and waits for them.
func together(n int, work func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { work(i) })
	}
	wg.Wait()
}

// testCompareAndSwapRace counts up from many goroutines: a lost update would
// leave the counter below the number of successes.
func testCompareAndSwapRace(t *testing.T, s store.Store) {
	commit(t, s, puts("n", "0"))
	together(writers, func(int) {
		for done := 0; done < rounds; {
			now, err := s.Get(t.Context(), "n")
			if err != nil {
				t.Errorf("Get: %v", err)
				return
			}
			n, _ := strconv.Atoi(string(now.Value))
			_, err = s.Commit(t.Context(), expecting(puts("n", strconv.Itoa(n+1)), "n", now.Revision))
			switch {
			case err == nil:
				done++
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("Commit: %v", err)
				return
			}
		}
	})
	wantRecord(t, s, "n", strconv.Itoa(writers*rounds), writers*rounds+1)
}

func testCreateRace(t *testing.T, s store.Store) {
	for round := range rounds {
		key := fmt.Sprint("key", round)
		var won atomic.Int32
		together(writers, func(i int) {
			_, err := s.Commit(t.Context(), expecting(puts(key, fmt.Sprint(i)), key, 0))
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, store.ErrConflict) {
				t.Errorf("Commit: %v", err)
			}
		})
		if won.Load() != 1 {
			t.Fatalf("%d creators of %s won, want 1", won.Load(), key)
		}
	}
	wantRevision(t, s, rounds)
}

// testBlindWrites checks that every transaction has a revision of its own, that
// the last of them is what remains, and that writes are seen once acknowledged.
func testBlindWrites(t *testing.T, s store.Store) {
	var revisions sync.Map
	together(writers, func(w int) {
		for i := range rounds {
			own, value := fmt.Sprint("own", w), fmt.Sprint(i)
			r, err := s.Commit(t.Context(), puts("shared", fmt.Sprint(w, "/", i), own, value))
			if err != nil {
				t.Errorf("Commit: %v", err)
				return
			}
			if _, twice := revisions.LoadOrStore(r, fmt.Sprint(w, "/", i)); twice {
				t.Errorf("revision %d given twice", r)
			}
			if got, err := s.Get(t.Context(), own); err != nil || string(got.Value) != value || got.Revision != r {
				t.Errorf("acknowledged %s=%s @%d, read %q @%d, %v", own, value, r, got.Value, got.Revision, err)
			}
		}
	})
	const last = store.Revision(writers * rounds)
	wantRevision(t, s, last)
	value, ok := revisions.Load(last)
	if !ok {
		t.Fatalf("nobody was given revision %d", last)
	}
	wantRecord(t, s, "shared", value.(string), last)
}

// testSnapshots moves amounts between two records and checks that no listing and
// no watcher ever sees one half of a transfer.
func testSnapshots(t *testing.T, s store.Store) {
	const total = 100
	commit(t, s, puts("x", strconv.Itoa(total), "y", "0"))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				page, err := s.List(t.Context(), "", "", 0)
				if err != nil || len(page.Records) != 2 || sum(page.Records) != total {
					t.Errorf("snapshot %v, %v", page.Records, err)
					return
				}
			}
		})
	}
	for i := range 100 {
		commit(t, s, puts("x", strconv.Itoa(total-i), "y", strconv.Itoa(i)))
	}
	stop.Store(true)
	wg.Wait()
	for changes, err := range s.Watch(t.Context(), 0) {
		if err != nil || len(changes.Events) != 2 {
			t.Fatalf("watch: %s, %v", describe(changes), err)
		}
		if changes.Revision == 101 {
			break
		}
	}
}

func sum(records []store.Record) (total int) {
	for _, r := range records {
		n, _ := strconv.Atoi(string(r.Value))
		total += n
	}
	return total
}
