package kms

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// refusal says why a namespace is not to be used or changed: it is deleted. ns
// may be an old snapshot.
func (s *Service) refusal(ns *namespace) error {
	now := ns.Namespace
	if known, ok := s.namespaces.Load(ns.Name); ok && known.ID == ns.ID {
		now = known.Namespace
	}
	switch now.State {
	case NamespaceDeleteScheduled:
		return precondition(reasonNamespaceScheduled, "namespace %s is deleted; it can be restored until %s", now.Name, now.DestroyTime.Format(time.RFC3339))
	case NamespaceDeleted:
		return precondition("NAMESPACE_DELETED", "namespace %s is deleted and being removed with all its keys; nothing brings it back", now.Name)
	}
	return nil
}

// usable is refusal for a namespace that a caller named.
func (s *Service) usable(name string) error {
	if ns, ok := s.namespaces.Load(name); ok && ns.State != NamespaceActive {
		return s.refusal(ns)
	}
	return nil
}

// DeleteNamespace refuses the use of a namespace and all its keys from now on and
// schedules their removal. Until then RestoreNamespace takes it back; the name
// stays taken.
func (s *Service) DeleteNamespace(ctx context.Context, call Call, q DeleteNamespaceRequest) (Namespace, error) {
	c := s.namespaceChange(policy.DeleteNamespace, q.Namespace, q.Idempotency, struct{ N, D any }{q.Namespace, q.Delay})
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		if err := s.refusal(ns); err != nil {
			return Namespace{}, err
		}
		when, err := s.destroyTime(q.Delay)
		if err != nil {
			return Namespace{}, err
		}
		changed := ns.Namespace
		changed.State, changed.DestroyTime = NamespaceDeleteScheduled, when
		s.putDue(tx, when, changed.deletion())
		tx.detail("destroy_time", when.Format(time.RFC3339))
		return s.putNamespace(tx, ns, changed), nil
	})
}

func (n Namespace) deletion() due {
	return due{Kind: dueDeleteNamespace, Namespace: n.Name, NamespaceID: n.ID}
}

// RestoreNamespace takes a scheduled deletion back.
func (s *Service) RestoreNamespace(ctx context.Context, call Call, q NamespaceRef) (Namespace, error) {
	c := s.namespaceChange(policy.RestoreNamespace, q.Namespace, q.Idempotency, struct{ N any }{q.Namespace})
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		switch ns.State {
		case NamespaceActive:
			return Namespace{}, precondition("NAMESPACE_ACTIVE", "namespace %s is not deleted; nothing is to be restored", ns.Name)
		case NamespaceDeleted:
			return Namespace{}, s.refusal(ns)
		}
		changed := ns.Namespace
		tx.discard(pathDue(changed.DestroyTime, changed.deletion()))
		changed.State, changed.DestroyTime = NamespaceActive, time.Time{}
		return s.putNamespace(tx, ns, changed), nil
	})
}

// beginRemoval makes a namespace whose time has come DELETED, for good, and
// removes its domain: from then on none of its material can be opened, and a
// change of it that is under way fails. What else it had is removed in pages, by
// removeNamespace.
func (s *Service) beginRemoval(ctx context.Context, job due, waiting store.Record) error {
	ns, err := s.findNamespace(ctx, job.Namespace)
	if CodeOf(err) == NotFound || err == nil && !ns.toRemove(job, s.now()) { // restored, or scheduled anew
		return s.dropDue(ctx, waiting)
	}
	if err != nil {
		return err
	}
	domains, err := s.store.List(ctx, prefixDomains(ns.ID), "", removePage)
	if err != nil {
		return storeError(err)
	}
	return s.namespaceJob(ctx, job.Namespace, policy.DeleteNamespace, func(_ context.Context, now *namespace, tx *transaction) error {
		if now == nil || !now.toRemove(job, s.now()) {
			return nil
		}
		for _, record := range domains.Records {
			tx.delete(record.Key, record.Revision)
		}
		tx.delete(waiting.Key, waiting.Revision)
		changed := now.Namespace
		changed.State = NamespaceDeleted
		s.putNamespace(tx, now, changed)
		tx.then(func(store.Revision) { now.domain.forget(now.domain.state.Load().opened) })
		return nil
	})
}

func (n Namespace) toRemove(job due, now time.Time) bool {
	return n.ID == job.NamespaceID && n.State == NamespaceDeleteScheduled && !n.DestroyTime.After(now)
}

// removePage is how many records one transaction of a namespace's removal removes.
const removePage = 100

// removeNamespace removes all that is left of a DELETED namespace: it gives up its
// keys on the token, then removes its records, a page at a time, then its policies,
// and last itself, once the token has removed the keys. A crash loses nothing: what
// is left tells where to go on.
func (s *Service) removeNamespace(ctx context.Context, ns *namespace) error {
	for more := true; more; {
		var err error
		if more, err = s.orphanObjects(ctx, ns); err != nil {
			return err
		}
	}
	for more := true; more; {
		var err error
		if more, err = s.endImports(ctx, ns); err != nil {
			return err
		}
	}
	for _, prefix := range ownPrefixes(ns.ID) {
		for more := true; more; {
			var err error
			if more, err = s.removeRecords(ctx, ns, prefix); err != nil {
				return err
			}
		}
	}
	for more := true; more; {
		var err error
		if more, err = s.removePolicies(ctx, ns); err != nil {
			return err
		}
	}
	if left, err := s.orphansOf(ctx, ns.ID); err != nil || left > 0 {
		return err // the token still has some of its keys: it is not gone yet
	}
	return s.endRemoval(ctx, ns)
}

// removeRecords removes a page of records and tells whether there may be more.
// They are not looked at: a damaged one is removed too.
func (s *Service) removeRecords(ctx context.Context, ns *namespace, prefix string) (more bool, err error) {
	page, err := s.store.List(ctx, prefix, "", removePage)
	if err != nil || len(page.Records) == 0 {
		return false, storeError(err)
	}
	tx := &transaction{}
	for _, record := range page.Records {
		tx.discard(record.Key)
	}
	tx.then(func(store.Revision) { s.forgetRecords(ns, page.Records) })
	tx.detail("records", fmt.Sprint(len(page.Records)))
	return true, s.auditedJob(ctx, ns, policy.DeleteNamespace, tx)
}

// forgetRecords drops from memory what belongs to removed records of keys and
// versions.
func (s *Service) forgetRecords(ns *namespace, records []store.Record) {
	for _, record := range records {
		if !strings.HasPrefix(record.Key, prefixKey) && !strings.HasPrefix(record.Key, prefixVersion) {
			continue
		}
		id, number := recordOf(ns.ID, record.Key)
		if k, ok := s.cache.keys.Load(id); ok {
			s.cache.dropKey(k)
		}
		s.cache.dropVersion(id, number)
	}
}

// recordOf returns the key, and the version, that a record's path names, 0 for none.
func recordOf(ns ID, path string) (key ID, version uint32) {
	_, place, _ := strings.Cut(path, ns.String()+"/")
	id, number, _ := strings.Cut(place, "/")
	key, err := ParseID(id)
	if err != nil {
		return 0, 0
	}
	n, err := strconv.ParseUint(number, 16, 32)
	if err != nil {
		return key, 0
	}
	return key, uint32(n)
}

// removePolicies removes a page of the namespace's policies, which would else
// hold for the next namespace of that name.
func (s *Service) removePolicies(ctx context.Context, ns *namespace) (more bool, err error) {
	err = s.namespaceJob(ctx, ns.Name, policy.DeleteNamespace, func(_ context.Context, now *namespace, tx *transaction) error {
		if now == nil || now.ID != ns.ID {
			return nil // another server was quicker
		}
		next := s.policies.source.clone()
		own := slices.Collect(maps.Keys(next.policies))
		own = slices.DeleteFunc(own, func(path string) bool { return !strings.HasPrefix(path, prefixPolicies(ns.Name)) })
		more = len(own) > removePage
		own = own[:min(len(own), removePage)]
		if len(own) == 0 {
			return nil
		}
		for _, path := range own {
			delete(next.policies, path)
			tx.discard(path)
		}
		tx.detail("policies", fmt.Sprint(len(own)))
		_, err := s.planEnforcement(tx, next, &now.resource, "", "") // there is nothing left to be locked out of
		return err
	})
	return more, err
}

// endRemoval removes what says that the namespace ever was; the audit log goes on
// telling, and its keys' ids stay taken.
func (s *Service) endRemoval(ctx context.Context, ns *namespace) error {
	return s.namespaceJob(ctx, ns.Name, policy.DeleteNamespace, func(_ context.Context, now *namespace, tx *transaction) error {
		if now == nil || now.ID != ns.ID {
			return nil
		}
		tx.discard(pathRekey(ns.ID))
		tx.delete(pathNamespace(ns.Name), now.revision)
		tx.then(func(store.Revision) { s.dropNamespace(now) })
		tx.detail("namespace_id", ns.ID.String())
		tx.detail("removed", "true")
		return nil
	})
}

func (s *Service) dropNamespace(ns *namespace) {
	s.namespaceLock.Lock()
	defer s.namespaceLock.Unlock()
	s.namespaces.Delete(ns.Name)
}
