package kms

import (
	"context"
	"encoding/json"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// transaction gathers authenticated records to be committed at once, and what to
// do in memory when they were.
type transaction struct {
	txn     store.Txn
	details map[string]string
	after   []func(store.Revision)
	err     error
}

// put writes v at path over the record of revision base (0: it must not exist).
func (tx *transaction) put(d *domain.Domain, path string, base store.Revision, v any) {
	payload, err := json.Marshal(v)
	if err != nil {
		tx.err = err
		return
	}
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: path, Revision: base})
	tx.txn.Puts = append(tx.txn.Puts, store.Put{Key: path, Value: d.Authenticate(path, uint64(base), payload)})
}

// delete removes the record of revision base at path.
func (tx *transaction) delete(path string, base store.Revision) {
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: path, Revision: base})
	tx.txn.Deletes = append(tx.txn.Deletes, path)
}

// discard removes whatever is at path.
func (tx *transaction) discard(path string) {
	tx.txn.Deletes = append(tx.txn.Deletes, path)
}

// then runs f with the commit's revision, once the transaction is durable.
func (tx *transaction) then(f func(store.Revision)) { tx.after = append(tx.after, f) }

// detail adds what the audit log says about the change.
func (tx *transaction) detail(key, value string) {
	if tx.details == nil {
		tx.details = map[string]string{}
	}
	tx.details[key] = value
}

func (tx *transaction) empty() bool { return len(tx.txn.Puts) == 0 && len(tx.txn.Deletes) == 0 }

func (tx *transaction) commit(ctx context.Context, s *Service) error {
	if tx.err != nil {
		return tx.err
	}
	if tx.empty() {
		return nil
	}
	revision, err := s.store.Commit(ctx, tx.txn)
	if err != nil {
		return err
	}
	for _, f := range tx.after {
		f(revision)
	}
	return nil
}
