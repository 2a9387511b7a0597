// Package store is the contract between the domain core and whatever keeps
// its records: opaque values under ordered keys, changed in atomic
// transactions, watched without gaps.
//
// Drivers live below this package (badger for one server); storetest holds the
// conformance suite that each of them passes. A Store lives from the driver's
// Open until Close. All its methods may be called by any number of goroutines
// at once; slices handed in are copied before a call returns, and slices handed
// out belong to the caller.
//
// What is promised:
//
//   - Durable: a Commit that returned nil survives the death of the process and
//     of the machine. One that returned an error did not happen, unless the
//     error is ErrUnknown.
//   - Atomic: a reader or watcher sees all of a transaction or nothing of it.
//   - Ordered: committed transactions form one sequence, numbered by Revision;
//     a read sees everything that was committed before it began.
//   - Never reused: a key that is deleted and created again has a new revision.
package store

import (
	"context"
	"iter"
)

// Revision numbers the committed transactions of a store, 1, 2, 3 … without
// gaps. As the revision of a record, 0 means that the record does not exist.
type Revision uint64

// Record is one stored value with the revision of the transaction that last
// wrote it.
type Record struct {
	Key      string
	Value    []byte
	Revision Revision
}

// Expect demands that Key was last written by the transaction Revision, or,
// when Revision is 0, that Key does not exist.
type Expect struct {
	Key      string
	Revision Revision
}

// Put writes Value under Key, whether or not the key existed.
type Put struct {
	Key   string
	Value []byte
}

// Txn is committed as a whole or not at all. All expectations are compared with
// the state just before the transaction; then Puts and Deletes apply. No key
// may be changed twice in one transaction. Deleting a key that does not exist is
// no error and no change. Limits are those of Validate.
type Txn struct {
	Expect  []Expect
	Puts    []Put
	Deletes []string
}

// Page is one step through a listing. Its records are a snapshot of the store at
// Revision.
type Page struct {
	Records  []Record
	Next     string // cursor of the following page, opaque; "" after the last one
	Revision Revision
}

// Event is one change of one record.
type Event struct {
	Key      string
	Value    []byte // nil when Deleted
	Revision Revision
	Deleted  bool
}

// Changes are all events of one transaction, in bytewise order of their keys.
// There is at least one.
type Changes struct {
	Revision Revision
	Events   []Event
}

// Store is what a driver implements. Every method returns ErrClosed after Close,
// an InvalidError (errors.Is ErrInvalid) for arguments beyond the limits, the
// context's error when that ended first, and ErrUnavailable when the storage
// below fails at present.
type Store interface {
	// Get returns the record of key, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)

	// List returns the records whose keys begin with prefix (which may be
	// empty), in bytewise order of keys, following the cursor after ("" is the
	// beginning, else the Next of a page of the same prefix). A page has at most
	// limit records (DefaultPageRecords when limit ≤ 0, never more than
	// MaxPageRecords) and ends early once it holds MaxPageBytes: only Next
	// tells the end. Each page is a snapshot of its own. To follow a set of
	// records, list it all and watch from the first page's revision.
	List(ctx context.Context, prefix, after string, limit int) (Page, error)

	// Commit applies txn atomically and durably and returns the revision that it
	// was given. A transaction that changes nothing returns the revision of the
	// store at which its expectations held, and makes no new one.
	//
	// When an expectation does not hold, the error is a ConflictError
	// (errors.Is ErrConflict). ErrUnknown says that the transaction may or may
	// not have been committed; the caller finds out by reading. After any other
	// error it did not happen. A context that ends while the transaction is
	// already being written need not abort it.
	Commit(ctx context.Context, txn Txn) (Revision, error)

	// Watch yields the changes of every transaction with a revision greater than
	// from, past and future, in order and without gaps. It ends by yielding one
	// error: the context's, ErrClosed, ErrCompacted when changes after from are
	// no longer kept (list again, then watch from there), or ErrInvalid when
	// from is newer than the store itself. A slow consumer never holds up
	// writers; one that is slower than the retention of changes is ended with
	// ErrCompacted. The sequence may be ranged over once.
	Watch(ctx context.Context, from Revision) iter.Seq2[Changes, error]

	// Revision returns the revision of the last committed transaction, 0 for a
	// store that never had one.
	Revision(ctx context.Context) (Revision, error)

	// Size returns the bytes that the store occupies on disk, roughly, without
	// counting anything anew. It is meant for metrics.
	Size(ctx context.Context) (int64, error)

	// Close ends all watches, waits for transactions that are being written, and
	// releases the storage. Closing twice returns ErrClosed.
	Close() error
}
