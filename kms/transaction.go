package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// transaction gathers authenticated records to be committed at once, and what to
// do in memory when they were.
type transaction struct {
	txn     store.Txn
	covered map[string][sha256.Size]byte // digests of payloads that the head covers, by path
	epoch   uint64                       // the new head's epoch is to be higher than this
	records map[string]string            // what the audit log says was written, as in audit.Entry
	domain  *domain.Domain               // the namespace's domain that it writes under
	details map[string]string
	more    bool // of a job: it goes on with another transaction
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
	tx.note(path, payload)
	tx.under(d, path)
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: path, Revision: base})
	value := d.Authenticate(path, uint64(base), payload)
	if value == nil {
		tx.err = errSealed(time.Time{})
	}
	tx.txn.Puts = append(tx.txn.Puts, store.Put{Key: path, Value: value})
}

// note remembers what is written for the head record and the audit log.
func (tx *transaction) note(path string, payload []byte) {
	digest := sha256.Sum256(payload)
	if isCovered(path) {
		if tx.covered == nil {
			tx.covered = map[string][sha256.Size]byte{}
		}
		tx.covered[path] = digest
	}
	tx.record(path, recordDigest(digest))
}

func (tx *transaction) record(path, digest string) {
	if !isRecorded(path) {
		return
	}
	if tx.records == nil {
		tx.records = map[string]string{}
	}
	tx.records[path] = digest
}

// recordDigest is how the audit log names a record's payload.
func recordDigest(digest [sha256.Size]byte) string { return hex.EncodeToString(digest[:16]) }

// isRecorded tells whether the audit log says what was written at a path. It
// says nothing of what only this server's work needs, and of counts of uses.
func isRecorded(path string) bool {
	kind, _, _ := strings.Cut(path, "/")
	switch kind + "/" {
	case prefixDue, prefixIdempotent, prefixIntent, prefixUsage, prefixOrphan, prefixImportEnd, pathHead + "/", pathIntents + "/":
		return false
	}
	return true
}

// under has the transaction expect that the namespace's domain is the one that
// new records are written under, until it is durable. The record of the domain
// itself is expected by who changes it.
func (tx *transaction) under(d *domain.Domain, path string) {
	if d.Namespace() == 0 || d == tx.domain || strings.HasPrefix(path, prefixDomain) {
		return
	}
	tx.domain = d
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: pathDomain(ID(d.Namespace()), d.Generation()), Revision: store.Revision(d.Revision())})
}

// delete removes the record of revision base at path.
func (tx *transaction) delete(path string, base store.Revision) {
	tx.record(path, "")
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: path, Revision: base})
	tx.txn.Deletes = append(tx.txn.Deletes, path)
}

// discard removes whatever is at path.
func (tx *transaction) discard(path string) {
	tx.record(path, "")
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

// commit makes it all durable at once. Who puts or deletes what the head covers
// holds the head's lock.
func (tx *transaction) commit(ctx context.Context, s *Service) error {
	covers := s.coverHead(tx)
	if tx.err != nil {
		return tx.err
	}
	if tx.empty() {
		return nil
	}
	revision, err := s.store.Commit(ctx, tx.txn)
	if covers && errors.Is(err, store.ErrConflict) { // another server was quicker: see what it did
		err = errors.Join(err, s.loadHead(ctx))
	} else if tx.domain != nil && errors.Is(err, store.ErrConflict) {
		err = errors.Join(err, s.renewDomain(ctx, tx.domain))
	}
	if err != nil {
		return err
	}
	for _, f := range tx.after {
		f(revision)
	}
	return nil
}
