package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

// follow watches from a revision until it has seen n transactions.
func follow(ctx context.Context, s store.Store, from store.Revision, n int) ([]store.Changes, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all []store.Changes
	for changes, err := range s.Watch(ctx, from) {
		if err != nil {
			return all, fmt.Errorf("watch from %d after %d transactions: %w", from, len(all), err)
		}
		if all = append(all, changes); len(all) == n {
			break
		}
	}
	return all, nil
}

func collect(t *testing.T, s store.Store, from store.Revision, n int) []store.Changes {
	t.Helper()
	all, err := follow(t.Context(), s, from, n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantChanges(t *testing.T, got []store.Changes, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d transactions, want %d", len(got), len(want))
	}
	for i := range got {
		if text := describe(got[i]); text != want[i] {
			t.Fatalf("saw %q, want %q", text, want[i])
		}
	}
}

func testWatchReplays(t *testing.T, s store.Store) {
	mixed := puts("z", "1", "c", "1")
	mixed.Deletes = []string{"a", "never"}
	for _, txn := range []store.Txn{puts("b", "1", "a", "1"), puts("b", ""), mixed, deletes("never"), puts("a", "2")} {
		commit(t, s, txn)
	}
	want := []string{"1: a=1 b=1", "2: b=", "3: -a c=1 z=1", "4: a=2"}
	for from := range len(want) {
		wantChanges(t, collect(t, s, store.Revision(from), len(want)-from), want[from:]...)
	}
}

func testWatchFollows(t *testing.T, s store.Store) {
	const before, count = 3, 300
	rewrite(t, s, "a", before)
	var watchers sync.WaitGroup
	for from := range before {
		watchers.Go(func() {
			all, err := follow(t.Context(), s, store.Revision(from), before+count-from)
			if err != nil {
				t.Error(err)
			}
			for i, changes := range all {
				if want := store.Revision(from + i + 1); changes.Revision != want {
					t.Errorf("saw revision %d, want %d", changes.Revision, want)
				}
			}
		})
	}
	together(3, func(w int) {
		for i := range count / 3 {
			if _, err := s.Commit(t.Context(), puts(fmt.Sprint("k", w), fmt.Sprint(i))); err != nil {
				t.Errorf("Commit: %v", err)
			}
		}
	})
	watchers.Wait()
}

// testWatchEnds ends a running watch by each of its causes.
func testWatchEnds(t *testing.T, s store.Store) {
	commit(t, s, puts("a", "1"))
	_, err := firstChanges(t.Context(), s, 2)
	wantError(t, "watch from the future", err, store.ErrInvalid)

	ctx, cancel := context.WithCancel(t.Context())
	ended := watchToEnd(ctx, s)
	cancel()
	wantError(t, "watch whose context ends", <-ended, context.Canceled)

	ended = watchToEnd(t.Context(), s)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	wantError(t, "watch of a store that is closed", <-ended, store.ErrClosed)
}

// watchToEnd returns once a watch runs, and sends what ends it.
func watchToEnd(ctx context.Context, s store.Store) <-chan error {
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for _, err := range s.Watch(ctx, 0) {
			if err != nil {
				ended <- err
				return
			}
			close(started)
		}
		ended <- errors.New("watch ended without an error")
	}()
	<-started
	return ended
}

func firstChanges(ctx context.Context, s store.Store, from store.Revision) (store.Changes, error) {
	for changes, err := range s.Watch(ctx, from) {
		return changes, err
	}
	return store.Changes{}, errors.New("watch ended without an error")
}

// testWatchSlow commits while the consumer of a watch does nothing; then it must
// find everything.
func testWatchSlow(t *testing.T, s store.Store) {
	const count = 400
	commit(t, s, puts("a", "1"))
	next := store.Revision(1)
	for changes, err := range s.Watch(t.Context(), 0) {
		if err != nil || changes.Revision != next {
			t.Fatalf("saw %d, %v; want %d", changes.Revision, err, next)
		}
		if next == 1 {
			rewrite(t, s, "a", count)
		}
		if next++; next > count+1 {
			break
		}
	}
}

func rewrite(t *testing.T, s store.Store, key string, times int) {
	t.Helper()
	for range times {
		commit(t, s, puts(key, "again"))
	}
}

// testWatchEqualsState replays random transactions onto a map and compares it
// with the store.
func testWatchEqualsState(t *testing.T, s store.Store) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var txn store.Txn
		for _, k := range rng.Perm(20)[:1+rng.IntN(5)] {
			key := fmt.Sprint("k", k)
			if rng.IntN(3) == 0 {
				txn.Deletes = append(txn.Deletes, key)
				continue
			}
			txn.Puts = append(txn.Puts, store.Put{Key: key, Value: fmt.Append(nil, rng.Uint32())})
		}
		commit(t, s, txn)
	}
	head, err := s.Revision(t.Context())
	if err != nil {
		t.Fatalf("Revision: %v", err)
	}
	replayed := map[string]string{}
	for _, changes := range collect(t, s, 0, int(head)) {
		for _, e := range changes.Events {
			if delete(replayed, e.Key); !e.Deleted {
				replayed[e.Key] = fmt.Sprint(string(e.Value), "@", e.Revision)
			}
		}
	}
	records, err := listAll(t.Context(), s, "", 7)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	listed := map[string]string{}
	for _, r := range records {
		listed[r.Key] = fmt.Sprint(string(r.Value), "@", r.Revision)
	}
	if !maps.Equal(replayed, listed) {
		t.Fatalf("replayed %v\nlisted %v", replayed, listed)
	}
}

// RunCompaction checks what becomes of watches when changes are no longer kept.
// Call it with an open that makes an empty store which keeps exactly the given
// number of revisions.
func RunCompaction(t *testing.T, open func(t *testing.T, keep uint64) store.Store) {
	const keep, count = 10, 50
	s := open(t, keep)
	defer s.Close()
	for i := range count {
		commit(t, s, puts("a", fmt.Sprint(i)))
	}
	for _, from := range []store.Revision{0, 1, count - keep - 1} {
		_, err := firstChanges(t.Context(), s, from)
		wantError(t, fmt.Sprint("watch from ", from), err, store.ErrCompacted)
	}
	for _, from := range []store.Revision{count - keep, count - 1} {
		changes, err := firstChanges(t.Context(), s, from)
		if err != nil || changes.Revision != from+1 {
			t.Fatalf("watch from %d: revision %d, %v", from, changes.Revision, err)
		}
	}
	wantFallBehind(t, s)
	wantRecord(t, s, "a", "again", count+1000)
}

// wantFallBehind lets a watch fall behind the retention while it runs.
func wantFallBehind(t *testing.T, s store.Store) {
	t.Helper()
	head, err := s.Revision(t.Context())
	if err != nil {
		t.Fatalf("Revision: %v", err)
	}
	seen := head - 1
	for changes, err := range s.Watch(t.Context(), head-1) {
		if errors.Is(err, store.ErrCompacted) {
			return
		}
		if err != nil || changes.Revision != seen+1 {
			t.Fatalf("after %d saw %d, %v", seen, changes.Revision, err)
		}
		if seen++; seen == head {
			rewrite(t, s, "a", 1000)
		}
		if seen > head+500 {
			t.Fatal("the watch went on far behind the retention")
		}
	}
	t.Fatal("the watch ended without an error")
}
