// Package storetest says what a store.Store must do, as tests, and wraps stores
// so that they fail on demand. Each driver passes Run and RunCompaction; users of
// a store test their own recovery with Faulty. Nothing here is linked into a
// program.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
)

// patience bounds every wait for something that should happen at once.
const patience = 20 * time.Second

// Run runs the conformance suite as subtests. Each calls open for an empty store
// of its own and closes it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"Empty", testEmpty},
		{"PutGet", testPutGet},
		{"Expectations", testExpectations},
		{"ConflictChangesNothing", testConflictChangesNothing},
		{"DeleteAndRecreate", testDeleteAndRecreate},
		{"NoChangeNoRevision", testNoChangeNoRevision},
		{"Limits", testLimits},
		{"LargestTxn", testLargestTxn},
		{"OwnBytes", testOwnBytes},
		{"EndedContext", testEndedContext},
		{"Closed", testClosed},
		{"ListOrder", testListOrder},
		{"ListPages", testListPages},
		{"ListPageBytes", testListPageBytes},
		{"ListInvalid", testListInvalid},
		{"CompareAndSwapRace", testCompareAndSwapRace},
		{"CreateRace", testCreateRace},
		{"BlindWrites", testBlindWrites},
		{"Snapshots", testSnapshots},
		{"WatchReplays", testWatchReplays},
		{"WatchFollows", testWatchFollows},
		{"WatchEnds", testWatchEnds},
		{"WatchSlow", testWatchSlow},
		{"WatchEqualsState", testWatchEqualsState},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() {
				if err := s.Close(); err != nil && !errors.Is(err, store.ErrClosed) {
					t.Errorf("Close: %v", err)
				}
			})
			test.run(t, s)
		})
	}
}

// puts makes a transaction of blind puts from key, value, key, value …
func puts(pairs ...string) store.Txn {
	var txn store.Txn
	for i := 0; i < len(pairs); i += 2 {
		txn.Puts = append(txn.Puts, store.Put{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return txn
}

func deletes(keys ...string) store.Txn { return store.Txn{Deletes: keys} }

// expecting adds an expectation to txn.
func expecting(txn store.Txn, key string, r store.Revision) store.Txn {
	txn.Expect = append(txn.Expect, store.Expect{Key: key, Revision: r})
	return txn
}

func commit(t *testing.T, s store.Store, txn store.Txn) store.Revision {
	t.Helper()
	r, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatalf("Commit: %v", err)
	}
	return r
}

func wantRecord(t *testing.T, s store.Store, key, value string, r store.Revision) {
	t.Helper()
	got, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	if got.Key != key || string(got.Value) != value || got.Revision != r {
		t.Fatalf("Get(%q) = %q %q @%d, want %q @%d", key, got.Key, got.Value, got.Revision, value, r)
	}
}

func wantMissing(t *testing.T, s store.Store, key string) {
	t.Helper()
	if got, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get(%q) = %q @%d, %v; want ErrNotFound", key, got.Value, got.Revision, err)
	}
}

func wantRevision(t *testing.T, s store.Store, want store.Revision) {
	t.Helper()
	if got, err := s.Revision(t.Context()); err != nil || got != want {
		t.Fatalf("Revision = %d, %v; want %d", got, err, want)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

// listAll follows the pages of prefix.
func listAll(ctx context.Context, s store.Store, prefix string, limit int) ([]store.Record, error) {
	var all []store.Record
	after := ""
	for {
		page, err := s.List(ctx, prefix, after, limit)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Records...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// describe writes changes in one line, for comparison.
func describe(c store.Changes) string {
	text := fmt.Sprintf("%d:", c.Revision)
	for _, e := range c.Events {
		if e.Revision != c.Revision {
			text += fmt.Sprintf(" (revision %d)", e.Revision)
		}
		if e.Deleted {
			text += fmt.Sprintf(" -%s%s", e.Key, e.Value)
			continue
		}
		text += fmt.Sprintf(" %s=%s", e.Key, e.Value)
	}
	return text
}
