package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

func testEmpty(t *testing.T, s store.Store) {
	wantRevision(t, s, 0)
	wantMissing(t, s, "a")
	page, err := s.List(t.Context(), "", "", 0)
	if err != nil || len(page.Records) != 0 || page.Next != "" || page.Revision != 0 {
		t.Fatalf("List = %+v, %v; want an empty page", page, err)
	}
	if size, err := s.Size(t.Context()); err != nil || size < 0 {
		t.Fatalf("Size = %d, %v", size, err)
	}
}

func testPutGet(t *testing.T, s store.Store) {
	for want, txn := range []store.Txn{
		puts("a", "one"),
		puts("b", "", "c", "three"),
		puts("a", "two"),
	} {
		if got := commit(t, s, txn); got != store.Revision(want+1) {
			t.Fatalf("revision %d, want %d", got, want+1)
		}
	}
	wantRecord(t, s, "a", "two", 3)
	wantRecord(t, s, "b", "", 2)
	wantRecord(t, s, "c", "three", 2)
	wantMissing(t, s, "aa")
	wantRevision(t, s, 3)
}

func testExpectations(t *testing.T, s store.Store) {
	commit(t, s, puts("a", "1"))             // 1
	commit(t, s, puts("b", "1"))             // 2
	commit(t, s, puts("a", "2", "gone", "")) // 3
	commit(t, s, deletes("gone"))            // 4
	tests := []struct {
		name   string
		expect []store.Expect
		have   store.Revision // of the key in conflict
		fails  string         // key in conflict, "" for none
	}{
		{name: "none"},
		{name: "current", expect: []store.Expect{{Key: "a", Revision: 3}}},
		{name: "both current", expect: []store.Expect{{Key: "a", Revision: 3}, {Key: "b", Revision: 2}}},
		{name: "absent", expect: []store.Expect{{Key: "c"}}},
		{name: "deleted is absent", expect: []store.Expect{{Key: "gone"}}},
		{name: "stale", expect: []store.Expect{{Key: "a", Revision: 1}}, fails: "a", have: 3},
		{name: "store's but not key's", expect: []store.Expect{{Key: "b", Revision: 4}}, fails: "b", have: 2},
		{name: "future", expect: []store.Expect{{Key: "b", Revision: 99}}, fails: "b", have: 2},
		{name: "exists", expect: []store.Expect{{Key: "a"}}, fails: "a", have: 3},
		{name: "missing", expect: []store.Expect{{Key: "c", Revision: 1}}, fails: "c"},
		{name: "deleted", expect: []store.Expect{{Key: "gone", Revision: 3}}, fails: "gone"},
		{name: "second fails", expect: []store.Expect{{Key: "a", Revision: 3}, {Key: "b", Revision: 1}}, fails: "b", have: 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			txn := puts("written/"+test.name, "")
			txn.Expect = test.expect
			_, err := s.Commit(t.Context(), txn)
			if test.fails == "" {
				if err != nil {
					t.Fatalf("Commit: %v", err)
				}
				return
			}
			wantError(t, "Commit", err, store.ErrConflict)
			var conflict *store.ConflictError
			if !errors.As(err, &conflict) || conflict.Key != test.fails || conflict.Have != test.have {
				t.Fatalf("conflict %+v, want key %q at %d", conflict, test.fails, test.have)
			}
			wantMissing(t, s, "written/"+test.name)
		})
	}
}

func testConflictChangesNothing(t *testing.T, s store.Store) {
	commit(t, s, puts("keep", "1"))
	txn := expecting(puts("new", "x", "other", "x"), "keep", 7)
	txn.Deletes = []string{"keep"}
	_, err := s.Commit(t.Context(), txn)
	wantError(t, "Commit", err, store.ErrConflict)
	wantRecord(t, s, "keep", "1", 1)
	wantMissing(t, s, "new")
	wantMissing(t, s, "other")
	wantRevision(t, s, 1)
	if got := commit(t, s, puts("next", "")); got != 2 {
		t.Fatalf("revision after a conflict is %d, want 2", got)
	}
}

func testDeleteAndRecreate(t *testing.T, s store.Store) {
	commit(t, s, puts("a", "1", "b", "1"))
	commit(t, s, deletes("a"))
	wantMissing(t, s, "a")
	wantRecord(t, s, "b", "1", 1)
	commit(t, s, expecting(puts("a", "1"), "a", 0))
	wantRecord(t, s, "a", "1", 3)
	_, err := s.Commit(t.Context(), expecting(puts("a", "2"), "a", 1))
	wantError(t, "Commit with the revision of the deleted record", err, store.ErrConflict)

	txn := puts("c", "1")
	txn.Deletes = []string{"a", "b"}
	commit(t, s, txn)
	records, err := listAll(t.Context(), s, "", 0)
	if err != nil || len(records) != 1 || records[0].Key != "c" {
		t.Fatalf("after deleting: %v, %v", records, err)
	}
}

func testNoChangeNoRevision(t *testing.T, s store.Store) {
	commit(t, s, puts("a", "1"))
	for name, txn := range map[string]store.Txn{
		"nothing":          {},
		"expectation only": expecting(store.Txn{}, "a", 1),
		"absent delete":    deletes("none"),
	} {
		if got := commit(t, s, txn); got != 1 {
			t.Fatalf("%s: revision %d, want 1", name, got)
		}
	}
	_, err := s.Commit(t.Context(), expecting(store.Txn{}, "a", 0))
	wantError(t, "expectation only", err, store.ErrConflict)
	wantRevision(t, s, 1)
}

func testLimits(t *testing.T, s store.Store) {
	many := func(n int) (txn store.Txn) {
		for i := range n {
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprint("k", i)})
		}
		return txn
	}
	expectMany := store.Txn{Expect: make([]store.Expect, store.MaxTxnChanges+1)}
	mixed := many(store.MaxTxnChanges)
	mixed.Deletes = []string{"x"}
	twice := puts("a", "")
	twice.Deletes = []string{"a"}
	half := strings.Repeat("v", store.MaxTxnBytes/2)
	for name, txn := range map[string]store.Txn{
		"empty key":           puts("", ""),
		"empty expected key":  expecting(puts("a", ""), "", 0),
		"empty deleted key":   deletes(""),
		"long key":            puts(strings.Repeat("k", store.MaxKeyBytes+1), ""),
		"key not UTF-8":       puts("a\xff", ""),
		"long value":          puts("a", strings.Repeat("v", store.MaxValueBytes+1)),
		"too many puts":       many(store.MaxTxnChanges + 1),
		"too many changes":    mixed,
		"too many expected":   expectMany,
		"too many bytes":      puts("a", half, "b", half),
		"put twice":           puts("a", "1", "a", "2"),
		"put and deleted":     twice,
		"deleted twice":       deletes("a", "a"),
		"second key is empty": puts("a", "", "", ""),
	} {
		_, err := s.Commit(t.Context(), txn)
		var invalid *store.InvalidError
		if !errors.Is(err, store.ErrInvalid) || !errors.As(err, &invalid) || invalid.Field == "" {
			t.Errorf("%s: error %v, want an InvalidError that names the field", name, err)
		}
	}
	for _, key := range []string{"", "\xff", strings.Repeat("k", store.MaxKeyBytes+1)} {
		_, err := s.Get(t.Context(), key)
		wantError(t, "Get", err, store.ErrInvalid)
	}
	wantRevision(t, s, 0)
}

func testLargestTxn(t *testing.T, s store.Store) {
	key, value := strings.Repeat("k", store.MaxKeyBytes), strings.Repeat("v", store.MaxValueBytes)
	commit(t, s, puts(key, value))
	wantRecord(t, s, key, value, 1)

	txn := store.Txn{}
	room := store.MaxTxnBytes/store.MaxTxnChanges - 2*len("key 000")
	for i := range store.MaxTxnChanges {
		name := fmt.Sprintf("key %03d", i)
		txn = expecting(txn, name, 0)
		txn.Puts = append(txn.Puts, store.Put{Key: name, Value: bytes.Repeat([]byte{byte(i)}, room)})
	}
	commit(t, s, txn)
	for changes, err := range s.Watch(t.Context(), 1) {
		if err != nil || len(changes.Events) != store.MaxTxnChanges {
			t.Fatalf("watch of the largest transaction: %d events, %v", len(changes.Events), err)
		}
		break
	}
	last := txn.Puts[len(txn.Puts)-1]
	wantRecord(t, s, last.Key, string(last.Value), 2)
}

func testOwnBytes(t *testing.T, s store.Store) {
	mine := []byte("value")
	commit(t, s, store.Txn{Puts: []store.Put{{Key: "a", Value: mine}}})
	clear(mine)
	wantRecord(t, s, "a", "value", 1)
	got, _ := s.Get(t.Context(), "a")
	clear(got.Value)
	page, _ := s.List(t.Context(), "", "", 0)
	clear(page.Records[0].Value)
	for changes := range s.Watch(t.Context(), 0) {
		clear(changes.Events[0].Value)
		break
	}
	wantRecord(t, s, "a", "value", 1)
	for changes := range s.Watch(t.Context(), 0) {
		if got := describe(changes); got != "1: a=value" {
			t.Fatalf("watch after the caller changed its copy: %s", got)
		}
		break
	}
}

func testEndedContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := calls(ctx, s)
	for name, call := range calls {
		wantError(t, name, call(), context.Canceled)
	}
	wantRevision(t, s, 0)
	wantMissing(t, s, "a")
}

func testClosed(t *testing.T, s store.Store) {
	commit(t, s, puts("a", "1"))
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	for name, call := range calls(t.Context(), s) {
		wantError(t, name, call(), store.ErrClosed)
	}
	wantError(t, "second Close", s.Close(), store.ErrClosed)
}

// calls are the methods of s that take a context.
func calls(ctx context.Context, s store.Store) map[string]func() error {
	return map[string]func() error{
		"Get":      func() error { _, err := s.Get(ctx, "a"); return err },
		"List":     func() error { _, err := s.List(ctx, "", "", 0); return err },
		"Commit":   func() error { _, err := s.Commit(ctx, puts("a", "")); return err },
		"Revision": func() error { _, err := s.Revision(ctx); return err },
		"Size":     func() error { _, err := s.Size(ctx); return err },
		"Watch": func() error {
			for _, err := range s.Watch(ctx, 0) {
				return err
			}
			return nil
		},
	}
}
