package store

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of every driver. A transaction and its bookkeeping stay below 1 MiB,
// above which badger no longer keeps a value in its tree, and so below etcd's
// defaults of 1.5 MiB and 128 operations as well.
const (
	MaxKeyBytes        = 512       // length of a key
	MaxValueBytes      = 960 << 10 // length of a value
	MaxTxnChanges      = 128       // puts and deletes together, and expectations, in a transaction
	MaxTxnBytes        = 992 << 10 // keys and values of a transaction together
	DefaultPageRecords = 1000      // records in a page when no limit is given
	MaxPageRecords     = 10_000    // records in a page at most
	MaxPageBytes       = 4 << 20   // a page ends with the record that reaches this size
)

// CheckKey returns an InvalidError unless key is valid UTF-8 of 1 to MaxKeyBytes
// bytes.
func CheckKey(field, key string) error {
	switch {
	case key == "":
		return &InvalidError{field, "empty: a key has at least one byte"}
	case len(key) > MaxKeyBytes:
		return tooLong(field, len(key), MaxKeyBytes)
	case !utf8.ValidString(key):
		return &InvalidError{field, "not valid UTF-8"}
	}
	return nil
}

// CheckList returns an InvalidError unless the arguments suit Store.List.
func CheckList(prefix, after string) error {
	if len(prefix) > MaxKeyBytes {
		return tooLong("prefix", len(prefix), MaxKeyBytes)
	}
	if after == "" {
		return nil
	}
	if !strings.HasPrefix(after, prefix) {
		return &InvalidError{"after", "cursor of another listing: pass the Next of a page of the same prefix"}
	}
	return CheckKey("after", after)
}

// PageLimit returns the number of records that a page may hold when the caller
// asks for limit.
func PageLimit(limit int) int {
	if limit <= 0 {
		return DefaultPageRecords
	}
	return min(limit, MaxPageRecords)
}

// Validate returns an InvalidError unless the transaction keeps the limits:
// valid keys, values of at most MaxValueBytes, at most MaxTxnChanges
// expectations and as many puts and deletes together, at most MaxTxnBytes in
// all, no key changed twice.
func (t Txn) Validate() error {
	if n := len(t.Expect); n > MaxTxnChanges {
		return tooMany("txn.expect", n)
	}
	if n := len(t.Puts) + len(t.Deletes); n > MaxTxnChanges {
		return tooMany("txn.puts and txn.deletes", n)
	}
	if n := t.size(); n > MaxTxnBytes {
		return tooLong("txn", n, MaxTxnBytes)
	}
	for i, e := range t.Expect {
		if err := CheckKey(fmt.Sprintf("txn.expect[%d].key", i), e.Key); err != nil {
			return err
		}
	}
	return t.validateChanges()
}

func (t Txn) validateChanges() error {
	changed := make(map[string]bool, len(t.Puts)+len(t.Deletes))
	check := func(field, key string) error {
		if changed[key] {
			return &InvalidError{field, fmt.Sprintf("key %q is changed twice in one transaction", key)}
		}
		changed[key] = true
		return CheckKey(field, key)
	}
	for i, p := range t.Puts {
		if err := check(fmt.Sprintf("txn.puts[%d].key", i), p.Key); err != nil {
			return err
		}
		if len(p.Value) > MaxValueBytes {
			return tooLong(fmt.Sprintf("txn.puts[%d].value", i), len(p.Value), MaxValueBytes)
		}
	}
	for i, key := range t.Deletes {
		if err := check(fmt.Sprintf("txn.deletes[%d]", i), key); err != nil {
			return err
		}
	}
	return nil
}

// size is the length of all keys and values.
func (t Txn) size() int {
	n := 0
	for _, e := range t.Expect {
		n += len(e.Key)
	}
	for _, p := range t.Puts {
		n += len(p.Key) + len(p.Value)
	}
	for _, key := range t.Deletes {
		n += len(key)
	}
	return n
}

func tooLong(field string, have, most int) error {
	return &InvalidError{field, fmt.Sprintf("%d bytes, at most %d are allowed", have, most)}
}

func tooMany(field string, have int) error {
	return &InvalidError{field, fmt.Sprintf("%d entries, at most %d are allowed", have, MaxTxnChanges)}
}
