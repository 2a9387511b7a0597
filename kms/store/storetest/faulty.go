package storetest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/store"
)

// Fault is what becomes of a commit that is made to fail.
type Fault int

const (
	// Failed commits return store.ErrUnavailable and did not happen.
	Failed Fault = iota + 1
	// Persisted commits return store.ErrUnknown and did happen.
	Persisted
	// Lost commits return store.ErrUnknown and did not happen.
	Lost
)

// FaultyStore passes everything on to another store until it is told to fail. It
// may be used and told by any number of goroutines.
type FaultyStore struct {
	store.Store

	mu      sync.Mutex
	commits int
	rules   []rule
	corrupt []string // prefixes
	delay   time.Duration
}

// rule strikes the commits with first ≤ number ≤ last that change a key with the
// prefix.
type rule struct {
	first, last int
	prefix      string
	fault       Fault
}

const forever = int(^uint(0) >> 1)

// Faulty wraps inner, which it closes when it is closed itself.
func Faulty(inner store.Store) *FaultyStore { return &FaultyStore{Store: inner} }

// FailNth strikes the n-th commit from now, the next being 1.
func (f *FaultyStore) FailNth(n int, fault Fault) {
	f.add(rule{first: n, last: n, fault: fault})
}

// FailFrom strikes the n-th commit from now and all after it, as if the store
// died there.
func (f *FaultyStore) FailFrom(n int, fault Fault) {
	f.add(rule{first: n, last: forever, fault: fault})
}

// FailPrefix strikes every commit that puts or deletes a key with the prefix.
func (f *FaultyStore) FailPrefix(prefix string, fault Fault) {
	f.add(rule{first: 1, last: forever, prefix: prefix, fault: fault})
}

// CorruptPrefix flips a bit in each value read from now on whose key has the
// prefix, in Get, List and Watch. Empty values grow by a byte.
func (f *FaultyStore) CorruptPrefix(prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.corrupt = append(f.corrupt, prefix)
}

// Delay makes every call of Get, List and Commit wait first, or until its context
// ends.
func (f *FaultyStore) Delay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Heal takes back all faults.
func (f *FaultyStore) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.corrupt, f.delay = nil, nil, 0
}

// Commits returns how many commits were attempted so far.
func (f *FaultyStore) Commits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commits
}

func (f *FaultyStore) add(r rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.first += f.commits
	if r.last != forever {
		r.last += f.commits
	}
	f.rules = append(f.rules, r)
}

// Commit implements store.Store.
func (f *FaultyStore) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	if err := f.wait(ctx); err != nil {
		return 0, err
	}
	switch f.strike(txn) {
	case Failed:
		return 0, fmt.Errorf("%w: injected", store.ErrUnavailable)
	case Lost:
		return 0, fmt.Errorf("%w: injected", store.ErrUnknown)
	case Persisted:
		if _, err := f.Store.Commit(ctx, txn); err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("%w: injected", store.ErrUnknown)
	}
	return f.Store.Commit(ctx, txn)
}

// strike counts a commit and returns the fault that meets it, 0 for none.
func (f *FaultyStore) strike(txn store.Txn) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.commits++
	for _, r := range f.rules {
		if r.first <= f.commits && f.commits <= r.last && changes(txn, r.prefix) {
			return r.fault
		}
	}
	return 0
}

func changes(txn store.Txn, prefix string) bool {
	if prefix == "" {
		return true
	}
	for _, p := range txn.Puts {
		if strings.HasPrefix(p.Key, prefix) {
			return true
		}
	}
	for _, key := range txn.Deletes {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// Get implements store.Store.
func (f *FaultyStore) Get(ctx context.Context, key string) (store.Record, error) {
	if err := f.wait(ctx); err != nil {
		return store.Record{}, err
	}
	record, err := f.Store.Get(ctx, key)
	if err == nil {
		record.Value = f.spoil(key, record.Value)
	}
	return record, err
}

// List implements store.Store.
func (f *FaultyStore) List(ctx context.Context, prefix, after string, limit int) (store.Page, error) {
	if err := f.wait(ctx); err != nil {
		return store.Page{}, err
	}
	page, err := f.Store.List(ctx, prefix, after, limit)
	for i, r := range page.Records {
		page.Records[i].Value = f.spoil(r.Key, r.Value)
	}
	return page, err
}

// Watch implements store.Store.
func (f *FaultyStore) Watch(ctx context.Context, from store.Revision) iter.Seq2[store.Changes, error] {
	return func(yield func(store.Changes, error) bool) {
		for changes, err := range f.Store.Watch(ctx, from) {
			for i, e := range changes.Events {
				if !e.Deleted {
					changes.Events[i].Value = f.spoil(e.Key, e.Value)
				}
			}
			if !yield(changes, err) {
				return
			}
		}
	}
}

// spoil returns value, or a damaged copy of it when key has a corrupt prefix.
func (f *FaultyStore) spoil(key string, value []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, prefix := range f.corrupt {
		if strings.HasPrefix(key, prefix) {
			return damage(value)
		}
	}
	return value
}

func damage(value []byte) []byte {
	if len(value) == 0 {
		return []byte{0}
	}
	bad := bytes.Clone(value)
	bad[len(bad)/2] ^= 1
	return bad
}

func (f *FaultyStore) wait(ctx context.Context) error {
	f.mu.Lock()
	d := f.delay
	f.mu.Unlock()
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
