package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// A domain secret is wrapped anew by two calls of the HSM and one transaction that
// replaces its record; the secret stays the same, so nothing below it changes, and
// keys go on serving. All that is under way is in the records themselves: a restart
// looks for those that a replaced version still wraps, and goes on.

// rewrapPage is how many domain secrets one transaction wraps anew at most.
const rewrapPage = 20

// RewrapStatus says how far the domain secrets of replaced root versions are
// wrapped anew.
type RewrapStatus struct {
	Remaining uint64 // still wrapped by a replaced version, when last looked at
	Problem   string // why the last one could not be wrapped anew; "" if nothing is wrong
}

func (s *Service) rewrapStatus() RewrapStatus {
	if status := s.rewrap.Load(); status != nil {
		return *status
	}
	return RewrapStatus{}
}

func (s *Service) noteRewrap(remaining int, err error) {
	status := RewrapStatus{Remaining: uint64(remaining)}
	if err != nil {
		status.Problem = err.Error()
	}
	s.rewrap.Store(&status)
}

// rewrapDomains wraps anew all that replaced versions still wrap, and retires those
// that wrap nothing any more. One that fails holds up no other.
func (s *Service) rewrapDomains(ctx context.Context) error {
	if !s.roots.Load().some(func(r *rootVersion) bool { return r.State == RootRetiring || r.replaced() && r.Forced }) {
		return nil // so that the records need not be looked through
	}
	left, damaged := s.replacedDomains(ctx)
	done := 0
	for batch := range chunks(left, rewrapPage) {
		s.noteRewrap(len(left)-done, damaged)
		if err := s.rewrapPage(ctx, batch); err == nil {
			done += len(batch)
			continue
		}
		for _, record := range batch { // each by itself, as it is now
			err := s.rewrapNow(ctx, record.Key)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				done++
			}
			damaged = firstOf(damaged, err)
		}
	}
	s.noteRewrap(len(left)-done, damaged)
	if damaged != nil || done < len(left) {
		return damaged
	}
	return s.retireRoots(ctx)
}

func chunks(records []store.Record, size int) func(yield func([]store.Record) bool) {
	return func(yield func([]store.Record) bool) {
		for len(records) > 0 {
			n := min(size, len(records))
			if !yield(records[:n]) {
				return
			}
			records = records[n:]
		}
	}
}

// replacedDomains returns the records whose secret a replaced version wraps.
func (s *Service) replacedDomains(ctx context.Context) (found []store.Record, damaged error) {
	roots := s.roots.Load()
	damaged = s.eachDomain(ctx, func(record store.Record, claimed domainRecord) error {
		if r := roots.byVersion[claimed.RootVersion]; r != nil && r.replaced() {
			found = append(found, record)
		}
		return nil
	})
	return found, damaged
}

// rewrapPage wraps a few domain secrets anew in one transaction.
func (s *Service) rewrapPage(ctx context.Context, records []store.Record) error {
	tx := &transaction{}
	for _, record := range records {
		if err := s.rewrapRecord(ctx, tx, record, nil); err != nil {
			return err
		}
	}
	if tx.empty() {
		return nil
	}
	tx.detail("domains", fmt.Sprint(len(tx.txn.Puts)))
	t := s.jobTrace(policy.RotateRoot, "")
	err := s.auditIntent(t, tx)
	if err == nil {
		err = storeError(tx.commit(ctx, s))
	}
	return s.concludeJob(t, err)
}

// rewrapNow is rewrapPage for one record as it is now. Who lost a race tries again.
func (s *Service) rewrapNow(ctx context.Context, path string) (err error) {
	for range maxAttempts {
		record, missing := s.store.Get(ctx, path)
		if errors.Is(missing, store.ErrNotFound) {
			return nil // removed meanwhile
		}
		if missing != nil {
			return storeError(missing)
		}
		if err = s.rewrapPage(ctx, []store.Record{record}); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return err
}

// rewrapRecord puts a domain record with its secret wrapped by another version: by
// the one in force on the same token, if to is nil. One that needs no wrapping is
// left as it is.
func (s *Service) rewrapRecord(ctx context.Context, tx *transaction, record store.Record, to *rootVersion) error {
	claimed, err := peek[domainRecord](record)
	if err != nil {
		return err
	}
	from, err := s.rootOf(claimed.RootVersion)
	if err != nil {
		return err
	}
	if to == nil {
		if !from.replaced() {
			return nil
		}
		if to, err = s.activeRoot(from.Token); err != nil {
			return err
		}
	}
	if from.Version == to.Version {
		return nil
	}
	if !strings.HasPrefix(record.Key, pathDomain(claimed.Namespace, claimed.Generation)) {
		return dataLoss(record.Key, domain.ErrNotAuthentic)
	}
	var changed domainRecord
	d, wrapped, err := domain.Rewrap(ctx, from, to, s.domainID(claimed.Namespace, claimed.Generation), claimed.Wrapped, func(d *domain.Domain) error {
		verified, err := decode[domainRecord](d, record)
		changed = verified.value
		return err
	})
	if err != nil {
		return hsmError(record.Key, err)
	}
	changed.RootVersion, changed.Wrapped = to.Version, wrapped
	tx.put(d, record.Key, record.Revision, changed)
	tx.then(func(revision store.Revision) {
		if ns := s.namespaceOfID(changed.Namespace); ns != nil {
			ns.domain.storedAt(changed.Generation, uint64(revision))
		}
	})
	return nil
}

// storedAt notes that the record of a domain was replaced and the domain itself is
// the same: what is planned from now on expects the new record.
func (l *lazyDomain) storedAt(generation uint32, revision uint64) {
	for {
		old := l.state.Load()
		if old.opened == nil || old.opened.Generation() != generation || old.opened.Revision() >= revision {
			return
		}
		next := &domainState{generations: old.generations, opened: old.opened.StoredAt(revision), older: old.older}
		if l.state.CompareAndSwap(old, next) {
			return
		}
	}
}

// sameDomain returns the namespace's domain as it is now, if it is still of the
// generation of d: its record may have been replaced.
func (s *Service) sameDomain(ctx context.Context, ns *namespace, d *domain.Domain) (*domain.Domain, error) {
	now, err := s.domainOf(ctx, ns)
	if err != nil || now.Generation() != d.Generation() || now.Previous() != d.Previous() {
		return d, err
	}
	return now, nil
}

// retireRoots retires the replaced versions that wrap nothing. Nothing is wrapped
// by a replaced version any more: who makes a domain replaces the head record, and
// plans anew when that has changed.
func (s *Service) retireRoots(ctx context.Context) error {
	s.head.lock.Lock()
	defer s.head.lock.Unlock()
	wrapped, err := s.countWrapped(ctx)
	if err != nil {
		return err
	}
	for _, r := range s.roots.Load().sorted() {
		if r.state() != RootRetiring || wrapped[r.Version] > 0 {
			continue
		}
		if err := s.moveRoot(ctx, policy.RotateRoot, r.Version, RootRetiring, RootRetired); err != nil {
			return err
		}
	}
	return nil
}

// moveRoot changes the state of a version as a job, if it is as it was seen. The
// caller holds the head's lock.
func (s *Service) moveRoot(ctx context.Context, action policy.Action, version uint32, from, to RootState) error {
	return s.rootJob(ctx, action, func(in stored[installationRecord], all []rootRef, tx *transaction) error {
		for i, r := range all {
			if r.Version != version || r.state() != from {
				continue
			}
			all[i].State = to
			if to == RootRetired {
				all[i].Retired = s.now().UTC()
			}
			tx.detail("token", tokenName(r.Token))
			tx.detail("root", r.ID.String())
			tx.detail("root_version", fmt.Sprint(version))
			tx.detail("state", string(to))
			s.putRoots(tx, in, all)
		}
		return nil
	})
}
