package badger

import (
	"context"
	"fmt"
	"iter"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/keywright/keywright/kms/store"
)

// Bounds of what a watcher reads at a time.
const (
	watchTxns  = 128
	watchBytes = 1 << 20
)

// Watch implements store.Store. Changes are read from the change log when the
// consumer asks for them: a watcher costs no goroutine and holds nothing while
// its consumer works.
func (s *Store) Watch(ctx context.Context, from store.Revision) iter.Seq2[store.Changes, error] {
	return func(yield func(store.Changes, error) bool) {
		for seen := from; ; {
			batch, err := s.nextChanges(ctx, seen)
			if err != nil {
				yield(store.Changes{}, err)
				return
			}
			for _, changes := range batch {
				if !yield(changes, nil) {
					return
				}
			}
			seen += store.Revision(len(batch))
		}
	}
}

// nextChanges waits until there are changes after seen and returns the first of
// them.
func (s *Store) nextChanges(ctx context.Context, seen store.Revision) ([]store.Changes, error) {
	if err := s.waitAfter(ctx, seen); err != nil {
		return nil, err
	}
	var batch []store.Changes
	err := s.view(ctx, func(txn *badgerdb.Txn, h head) (err error) {
		batch, err = readChanges(txn, h, seen)
		return err
	})
	return batch, err
}

// waitAfter returns once the store has a revision after seen.
func (s *Store) waitAfter(ctx context.Context, seen store.Revision) error {
	for {
		now := s.position.now()
		switch {
		case now.stopped != nil:
			return now.stopped
		case seen > now.revision:
			return &store.InvalidError{Field: "from", Reason: fmt.Sprintf(
				"revision %d, but the store is at %d: it may be an older copy; list again", seen, now.revision)}
		case seen < now.revision:
			return ctx.Err()
		}
		select {
		case <-now.passed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readChanges returns what followed seen, within the bounds of one read. The log
// has a record for every revision from the oldest to the head.
func readChanges(txn *badgerdb.Txn, h head, seen store.Revision) ([]store.Changes, error) {
	if seen+1 < h.oldest {
		return nil, store.ErrCompacted
	}
	var batch []store.Changes
	size := 0
	for r := seen + 1; r <= h.revision && len(batch) < watchTxns && size < watchBytes; r++ {
		b, err := getValue(txn, changeKey(r))
		if err != nil {
			return nil, err
		}
		changes, err := decodeChanges(r, b)
		if err != nil {
			return nil, err
		}
		batch = append(batch, changes)
		size += len(b)
	}
	return batch, nil
}
