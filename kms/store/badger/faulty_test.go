package badger

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

func TestFaultyCommits(t *testing.T) {
	tests := []struct {
		fault storetest.Fault
		want  error
		is    bool // the write is there afterwards
	}{
		{storetest.Failed, store.ErrUnavailable, false},
		{storetest.Lost, store.ErrUnknown, false},
		{storetest.Persisted, store.ErrUnknown, true},
	}
	for _, test := range tests {
		f := storetest.Faulty(open(t, Options{Dir: t.TempDir()}))
		f.FailNth(2, test.fault)
		mustCommit(t, f, put("one", nil))
		if _, err := f.Commit(t.Context(), put("two", nil)); !errors.Is(err, test.want) {
			t.Errorf("fault %d: %v, want %v", test.fault, err, test.want)
		}
		if _, err := f.Get(t.Context(), "two"); (err == nil) != test.is {
			t.Errorf("fault %d: Get afterwards: %v", test.fault, err)
		}
		mustCommit(t, f, put("three", nil))
		if f.Commits() != 3 {
			t.Errorf("%d commits counted, want 3", f.Commits())
		}
	}
}

func TestFaultyByPrefix(t *testing.T) {
	f := storetest.Faulty(open(t, Options{Dir: t.TempDir()}))
	mustCommit(t, f, put("system/head", []byte("x")))
	f.FailPrefix("system/", storetest.Failed)
	mustCommit(t, f, put("other", nil))
	for _, txn := range []store.Txn{put("system/a", nil), {Deletes: []string{"system/head"}}} {
		if _, err := f.Commit(t.Context(), txn); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Commit: %v, want ErrUnavailable", err)
		}
	}
	f.Heal()
	mustCommit(t, f, put("system/a", nil))
	f.FailFrom(2, storetest.Failed)
	mustCommit(t, f, put("a", nil))
	for range 3 {
		if _, err := f.Commit(t.Context(), put("a", nil)); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Commit: %v, want ErrUnavailable", err)
		}
	}
}

func TestFaultyReads(t *testing.T) {
	f := storetest.Faulty(open(t, Options{Dir: t.TempDir()}))
	mustCommit(t, f, store.Txn{Puts: []store.Put{{Key: "bad/a", Value: []byte("abc")}, {Key: "good", Value: []byte("abc")}}})
	f.CorruptPrefix("bad/")
	wantValue(t, f, "bad/a", "acc", 1)
	wantValue(t, f, "good", "abc", 1)
	page, err := f.List(t.Context(), "", "", 0)
	if err != nil || string(page.Records[0].Value) != "acc" || string(page.Records[1].Value) != "abc" {
		t.Errorf("List: %v, %v", page, err)
	}
	if c, err := first(t, f, 0); err != nil || string(c.Events[0].Value) != "acc" {
		t.Errorf("Watch: %v, %v", c, err)
	}
	f.Heal()
	wantValue(t, f, "bad/a", "abc", 1)

	f.Delay(time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := f.Commit(ctx, put("late", nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("delayed Commit: %v, want DeadlineExceeded", err)
	}
	f.Heal()
	if _, err := f.Get(t.Context(), "late"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: %v, want ErrNotFound", err)
	}
}
