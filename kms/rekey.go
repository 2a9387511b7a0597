package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Rekeying replaces a namespace's domain secret while its keys go on serving. One
// transaction makes the next generation, puts it in force and closes the old
// one's record: since each transaction expects the record of the domain it writes
// under unchanged, none can write under the old generation any more, here or on
// another server. From then on both generations are accepted, until all that the
// old one has sealed is sealed anew (goOnRekeying) and its secret is removed.

// rekeyRecord says how far a rekeying has come. Who changes it expects it
// unchanged, so of two servers only one goes on.
type rekeyRecord struct {
	Generation uint32 `json:"generation"` // the new one
	Prefix     int    `json:"prefix"`     // of ownPrefixes
	After      string `json:"after"`      // the store's cursor below the prefix
	Records    uint64 `json:"records"`    // sealed anew so far
}

func (n Namespace) rekeying() bool { return !n.Rekey.Started.IsZero() && n.Rekey.Ended.IsZero() }

// ownPrefixes are the places of the records that a namespace's domain protects.
func ownPrefixes(ns ID) []string {
	return []string{prefixKey + ns.String() + "/", prefixKeyNames(ns), prefixVersion + ns.String() + "/", prefixUsage + ns.String() + "/"}
}

// RekeyNamespace makes a new domain secret, by one HSM call, and puts it in
// force; what hangs below is sealed anew in the background. GetNamespace tells
// how far that has come.
func (s *Service) RekeyNamespace(ctx context.Context, call Call, q NamespaceRef) (Namespace, error) {
	c := s.namespaceChange(policy.RekeyNamespace, q.Namespace, q.Idempotency, struct{ N any }{q.Namespace})
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		if err := s.refusal(ns); err != nil {
			return Namespace{}, err
		}
		if ns.rekeying() {
			return Namespace{}, precondition("REKEY_UNDER_WAY", "namespace %s is being rekeyed since %s; wait until that has ended, GetNamespace tells",
				ns.Name, ns.Rekey.Started.Format(time.RFC3339))
		}
		return s.planRekey(ctx, tx, ns)
	})
}

func (s *Service) planRekey(ctx context.Context, tx *transaction, ns *namespace) (Namespace, error) {
	old, err := s.domainAfter(ctx, ns, s.loadHead)
	if err != nil {
		return Namespace{}, err
	}
	changed := ns.Namespace
	changed.Generation++
	if changed.Generation == 0 {
		return Namespace{}, precondition("TOO_MANY_GENERATIONS", "the namespace has as many generations as can be numbered; make a new namespace")
	}
	path := pathDomain(ns.ID, changed.Generation)
	wrapping, err := s.activeRoot(ns.Token)
	if err != nil {
		return Namespace{}, err
	}
	d, wrapped, err := domain.Create(ctx, wrapping, &s.random, s.domainID(ns.ID, changed.Generation))
	if err != nil {
		return Namespace{}, hsmError(path, err)
	}
	if err := s.closeDomain(ctx, tx, old); err != nil {
		return Namespace{}, err
	}
	now := s.now().UTC()
	changed.Rekey = Rekey{From: ns.Generation, Started: now}
	tx.put(d, path, 0, domainRecord{Namespace: ns.ID, Generation: changed.Generation, RootVersion: wrapping.Version, Wrapped: wrapped, Created: now})
	tx.put(s.system, pathRekey(ns.ID), 0, rekeyRecord{Generation: changed.Generation})
	tx.detail("generation", fmt.Sprintf("%d -> %d", ns.Generation, changed.Generation))
	tx.then(func(revision store.Revision) {
		ns.domain.want(changed.generations(), d.StoredAt(uint64(revision)).Accepting(old))
	})
	return s.putNamespace(tx, ns, changed), nil
}

// closeDomain changes the record of a domain, so that no transaction that
// expects it as it was can be committed any more.
func (s *Service) closeDomain(ctx context.Context, tx *transaction, d *domain.Domain) error {
	path := pathDomain(ID(d.Namespace()), d.Generation())
	stored, err := s.store.Get(ctx, path)
	if errors.Is(err, store.ErrNotFound) {
		return dataLoss(path, err)
	}
	if err != nil {
		return storeError(err)
	}
	record, err := decode[domainRecord](d, stored)
	if err != nil {
		return err
	}
	record.value.Closed = s.now().UTC()
	tx.put(d, path, record.revision, record.value)
	return nil
}

// endRekey removes the secret of the generation that was replaced, and says that
// the rekeying has ended. Nothing that it has sealed may be left.
func (s *Service) endRekey(ctx context.Context, ns *namespace, progress stored[rekeyRecord]) error {
	return s.namespaceJob(ctx, ns.Name, policy.RekeyNamespace, func(ctx context.Context, now *namespace, tx *transaction) error {
		if now == nil || now.ID != ns.ID || !now.rekeying() || now.Generation != progress.value.Generation {
			return nil // another server was quicker
		}
		path := pathDomain(ns.ID, now.Rekey.From)
		old, err := s.store.Get(ctx, path)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return storeError(err)
		}
		if err == nil {
			tx.delete(path, old.Revision)
		}
		changed := now.Namespace
		changed.Rekey.Ended, changed.Rekey.Records = s.now().UTC(), progress.value.Records
		changed.Rekey.RootVersions = s.roots.Load().latest()
		tx.delete(pathRekey(ns.ID), progress.revision)
		tx.detail("ended", "true")
		tx.detail("generation", fmt.Sprintf("%d -> %d", changed.Rekey.From, changed.Generation))
		tx.detail("records", fmt.Sprint(changed.Rekey.Records))
		s.putNamespace(tx, now, changed)
		return nil
	})
}

// withProgress adds how far a rekeying that is under way has come.
func (s *Service) withProgress(ctx context.Context, n Namespace) (Namespace, error) {
	if !n.rekeying() {
		return n, nil
	}
	progress, err := read[rekeyRecord](ctx, s, s.system, pathRekey(n.ID))
	if errors.Is(err, store.ErrNotFound) {
		return n, nil // it has just ended
	}
	n.Rekey.Records = progress.value.Records
	return n, err
}
