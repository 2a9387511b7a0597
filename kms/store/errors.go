package store

import (
	"errors"
	"fmt"
)

// Errors of every driver. Tell them apart with errors.Is.
var (
	// ErrNotFound says that the key does not exist.
	ErrNotFound = errors.New("store: record not found")
	// ErrConflict says that an expectation of a transaction did not hold; the
	// error is a *ConflictError. Nothing was changed.
	ErrConflict = errors.New("store: conflict")
	// ErrUnknown says that a transaction may or may not have been committed.
	ErrUnknown = errors.New("store: outcome of the transaction is not known")
	// ErrInvalid says that an argument is beyond a limit; the error is an
	// *InvalidError. Nothing was changed.
	ErrInvalid = errors.New("store: invalid argument")
	// ErrCompacted says that changes which a watch asked for are no longer kept.
	ErrCompacted = errors.New("store: changes of that revision are no longer kept: list again and watch from there")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
	// ErrUnavailable says that the storage fails at present. A Commit that returned
	// it did not happen.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrNoSpace says that the disk is full, or nearly. It is an ErrUnavailable;
	// reads go on, and writes come back by themselves once there is space.
	ErrNoSpace = fmt.Errorf("%w: no space left on the storage device", ErrUnavailable)
	// ErrCorrupt says that what is stored is damaged, as a checksum or an impossible
	// structure shows. Nothing was changed.
	ErrCorrupt = errors.New("store: stored data is damaged")
	// ErrLocked says that another process uses the same storage.
	ErrLocked = errors.New("store: in use by another server")
	// ErrFormat says that the storage was written in a format which this program
	// does not know, or is not a store at all.
	ErrFormat = errors.New("store: unknown format")
)

// ConflictError names the expectation that did not hold. It matches ErrConflict.
type ConflictError struct {
	Key  string
	Want Revision // what the transaction expected
	Have Revision // what the store holds, 0 when the key does not exist
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("store: conflict: record %q is at revision %d, not %d: read it again and retry", e.Key, e.Have, e.Want)
}

// Is matches ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// InvalidError names the argument that is beyond its limit. It matches
// ErrInvalid.
type InvalidError struct {
	Field  string // such as "txn.puts[3].value"
	Reason string // what is wrong and what is allowed, without the value itself
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("store: invalid %s: %s", e.Field, e.Reason)
}

// Is matches ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }
