package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/store"
)

// The head record makes some records fresh, not only authentic: each change of
// one that it covers replaces it, in the same transaction, with a higher epoch
// and a digest over all of them. So none of them can be removed or put back by
// itself, and the epochs that the audit log's checkpoints carry tell when all of
// them were put back together.

const (
	// reloadTimeout bounds how long an uncertain change waits for the store.
	reloadTimeout = 10 * time.Second
	// watchPause is how long a watch that was interrupted waits to begin anew.
	watchPause = time.Second
)

// headRecord covers installation, namespaces, policies, groups and revocations.
type headRecord struct {
	Epoch          uint64 `json:"epoch"`           // counts the changes
	PolicyRevision uint64 `json:"policy_revision"` // counts those of policies and groups
	Digest         []byte `json:"digest"`
}

// coveredPrefixes are the places of what the head covers.
func coveredPrefixes() []string {
	return []string{pathInstallation, prefixNamespace, prefixPolicy, prefixGroup, prefixRevocation}
}

func isCovered(path string) bool {
	return slices.ContainsFunc(coveredPrefixes(), func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

func decidesPolicy(path string) bool {
	return strings.HasPrefix(path, prefixPolicy) || strings.HasPrefix(path, prefixGroup)
}

// head is the head record in memory, with the digest of each record it covers.
// Who changes a covered record holds lock from before reading it until the
// commit is done.
type head struct {
	lock   sync.Mutex
	stored stored[headRecord]
	items  map[string][sha256.Size]byte // SHA-256 of payloads, by path
	epoch  atomic.Uint64                // of stored, for who does not hold the lock
}

// keep notes the head record that is now in the store.
func (h *head) keep(record stored[headRecord], items map[string][sha256.Size]byte) {
	h.stored, h.items = record, items
	h.epoch.Store(record.value.Epoch)
}

// digestOf is SHA-256 over paths and payload digests in bytewise order of the
// paths, each path preceded by its length.
func digestOf(items map[string][sha256.Size]byte) []byte {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(items)) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(path)))
		h.Write(size[:])
		h.Write([]byte(path))
		item := items[path]
		h.Write(item[:])
	}
	return h.Sum(nil)
}

// coverHead adds the new head record to a transaction that changes what it
// covers. The caller holds the head's lock.
// It reports whether the transaction is one.
func (s *Service) coverHead(tx *transaction) bool {
	removed := slices.DeleteFunc(slices.Clone(tx.txn.Deletes), func(path string) bool { return !isCovered(path) })
	if len(tx.covered)+len(removed) == 0 && tx.epoch == 0 {
		return false
	}
	next, items := s.head.stored.value, map[string][sha256.Size]byte{}
	maps.Copy(items, s.head.items)
	maps.Copy(items, tx.covered)
	for _, path := range removed {
		delete(items, path)
	}
	next.Epoch = max(next.Epoch, tx.epoch) + 1
	if slices.ContainsFunc(removed, decidesPolicy) || slices.ContainsFunc(slices.Collect(maps.Keys(tx.covered)), decidesPolicy) {
		next.PolicyRevision++
	}
	next.Digest = digestOf(items)
	tx.put(s.system, pathHead, s.head.stored.revision, next)
	tx.then(func(revision store.Revision) { s.head.keep(stored[headRecord]{next, revision}, items) })
	return true
}

// coveredRecord is a record that the head vouches for.
type coveredRecord struct {
	path     string
	payload  []byte
	revision store.Revision
}

// covered is all that the head covers, as it was read.
type covered struct{ records []coveredRecord }

// eachCovered calls fn for the covered records below prefix, in order of paths.
func eachCovered[T any](c covered, prefix string, fn func(path string, r stored[T]) error) error {
	for _, record := range c.records {
		if !strings.HasPrefix(record.path, prefix) {
			continue
		}
		r := stored[T]{revision: record.revision}
		if err := json.Unmarshal(record.payload, &r.value); err != nil {
			return dataLoss(record.path, err)
		}
		if err := fn(record.path, r); err != nil {
			return err
		}
	}
	return nil
}

// loadHead reads the head and all that it covers, and puts it in force. Without
// a change nothing happens. The caller holds the head's lock, or is alone.
func (s *Service) loadHead(ctx context.Context) error {
	for range maxAttempts {
		err := s.tryLoadHead(ctx)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return storeError(store.ErrConflict)
}

// tryLoadHead fails with store.ErrConflict if the head changed meanwhile.
func (s *Service) tryLoadHead(ctx context.Context) error {
	record, err := s.readHead(ctx)
	if err != nil || record.revision == s.head.stored.revision {
		return err
	}
	if record.value.Epoch <= s.head.stored.value.Epoch {
		return dataLoss(pathHead, fmt.Errorf("epoch %d follows epoch %d", record.value.Epoch, s.head.stored.value.Epoch))
	}
	all, items, err := s.readCovered(ctx)
	if err != nil {
		return err
	}
	if again, err := s.readHead(ctx); err != nil || again.revision != record.revision {
		return errors.Join(err, store.ErrConflict)
	}
	if !bytes.Equal(digestOf(items), record.value.Digest) {
		return dataLoss(pathHead, errors.New("the records that it covers are not those that it was written with; keywrightd verify-store names the difference"))
	}
	for _, load := range []func(headRecord, covered) error{s.loadRoots, s.loadPolicies, s.loadNamespaces, s.loadRevocations} {
		if err := load(record.value, all); err != nil {
			return err
		}
	}
	s.head.keep(record, items)
	return nil
}

func (s *Service) readHead(ctx context.Context) (stored[headRecord], error) {
	record, err := read[headRecord](ctx, s, s.system, pathHead)
	if errors.Is(err, store.ErrNotFound) {
		err = dataLoss(pathHead, err)
	}
	return record, err
}

func (s *Service) readCovered(ctx context.Context) (all covered, items map[string][sha256.Size]byte, err error) {
	items = map[string][sha256.Size]byte{}
	for _, prefix := range coveredPrefixes() {
		for after, more := "", true; more; more = after != "" {
			page, err := s.store.List(ctx, prefix, after, store.MaxPageRecords)
			if err != nil {
				return all, nil, storeError(err)
			}
			for _, record := range page.Records {
				payload, err := s.system.Verify(record.Key, uint64(record.Revision), record.Value)
				if err != nil {
					return all, nil, dataLoss(record.Key, err)
				}
				all.records = append(all.records, coveredRecord{record.Key, payload, record.Revision})
				items[record.Key] = sha256.Sum256(payload)
			}
			after = page.Next
		}
	}
	return all, items, nil
}

// reloadHead makes what is stored be in force after a commit whose outcome is
// not known. The caller holds the head's lock.
func (s *Service) reloadHead() {
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	if err := s.loadHead(ctx); err != nil {
		s.log.Error("policies and what else decides cannot be read after an uncertain change; what is in force may be older than what is stored", "error", err)
	}
}

// watchHead puts in force what another server changes.
func (s *Service) watchHead(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.watchHeadOnce(ctx); ctx.Err() == nil {
			s.log.Warn("watch of the store was interrupted", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

func (s *Service) watchHeadOnce(ctx context.Context) error {
	from, err := s.store.Revision(ctx)
	if err == nil {
		err = s.followHead(ctx)
	}
	if err != nil {
		return err
	}
	for changes, err := range s.store.Watch(ctx, from) {
		if err != nil {
			return err
		}
		if slices.ContainsFunc(changes.Events, func(e store.Event) bool { return e.Key == pathHead }) {
			s.round(ctx, "change of another server", s.followHead)
		}
	}
	return nil
}

func (s *Service) followHead(ctx context.Context) error {
	s.head.lock.Lock()
	defer s.head.lock.Unlock()
	return s.loadHead(ctx)
}
