package kms

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// namespace is an immutable snapshot of a namespace's record. Its domain is
// shared between snapshots and opened on first use.
type namespace struct {
	Namespace
	revision store.Revision
	domain   *lazyDomain
	resource policy.Resource
}

func newNamespace(record Namespace, revision store.Revision, d *lazyDomain) *namespace {
	return &namespace{Namespace: record, revision: revision, domain: d,
		resource: policy.Resource{Namespace: record.Name, Labels: record.Labels, Revision: uint64(revision)}}
}

// findNamespace returns the namespace of that name from memory or the store.
func (s *Service) findNamespace(ctx context.Context, name string) (*namespace, error) {
	if ns, ok := s.namespaces.Load(name); ok {
		return ns, nil
	}
	if err := checkNamespaceName(name); err != nil {
		return nil, err
	}
	s.namespaceLock.Lock()
	defer s.namespaceLock.Unlock()
	return s.loadNamespace(ctx, name)
}

// loadNamespace needs the namespace lock.
func (s *Service) loadNamespace(ctx context.Context, name string) (*namespace, error) {
	if ns, ok := s.namespaces.Load(name); ok {
		return ns, nil
	}
	record, err := read[Namespace](ctx, s, s.system, pathNamespace(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound("NAMESPACE_NOT_FOUND", "namespace %q does not exist; ListNamespaces names those there are", name)
	}
	if err != nil {
		return nil, err
	}
	ns := newNamespace(record.value, record.revision, newLazyDomain(record.value.generations(), nil))
	s.namespaces.Store(name, ns)
	return ns, nil
}

// namespaceResource is what is known of a namespace for a decision: its name
// alone when it does not exist.
func (s *Service) namespaceResource(ctx context.Context, name string) (*policy.Resource, *namespace, error) {
	ns, err := s.findNamespace(ctx, name)
	if err != nil {
		return &policy.Resource{Namespace: name}, nil, err
	}
	return &ns.resource, ns, nil
}

// namespaceChange is the change of an existing namespace: its resource, lock and
// cleaning up.
func (s *Service) namespaceChange(action policy.Action, name, idempotency string, request any) change {
	return change{action: action, namespace: name, idempotency: idempotency, request: request,
		resource: func(ctx context.Context) (*policy.Resource, error) {
			resource, _, err := s.namespaceResource(ctx, name)
			return resource, err
		},
		lock:   func() *sync.Mutex { return &s.head.lock },
		forget: s.reloadHead}
}

// putNamespace writes a namespace's changed record. The caller holds the head's lock.
func (s *Service) putNamespace(tx *transaction, ns *namespace, changed Namespace) Namespace {
	changed.Updated = s.now().UTC()
	tx.put(s.system, pathNamespace(ns.Name), ns.revision, changed)
	tx.then(func(revision store.Revision) {
		s.keepNamespace(newNamespace(changed, revision, ns.domain))
	})
	return changed
}

// CreateNamespace makes a namespace with a domain secret of its own, by one HSM call.
func (s *Service) CreateNamespace(ctx context.Context, call Call, q CreateNamespaceRequest) (Namespace, error) {
	c := change{action: policy.CreateNamespace, namespace: q.Namespace, idempotency: q.Idempotency,
		request: namespaceRequest(q), check: errors.Join(checkNamespaceName(q.Namespace), checkLabels(q.Labels)),
		resource: func(context.Context) (*policy.Resource, error) {
			return &policy.Resource{Namespace: q.Namespace, Labels: q.Labels}, nil
		},
		lock:   func() *sync.Mutex { return &s.head.lock },
		forget: s.reloadHead}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		return s.planNamespace(ctx, tx, q)
	})
}

func (s *Service) planNamespace(ctx context.Context, tx *transaction, q CreateNamespaceRequest) (Namespace, error) {
	if known, err := s.findNamespace(ctx, q.Namespace); err == nil {
		return Namespace{}, errNamespaceExists(known.Namespace)
	} else if CodeOf(err) != NotFound {
		return Namespace{}, err
	}
	wrapping, err := s.activeRoot(q.Token)
	if err != nil {
		return Namespace{}, err
	}
	now := s.now().UTC()
	made := Namespace{Name: q.Namespace, ID: newID(), Labels: q.Labels, Quotas: q.Quotas, Token: storedToken(q.Token), PlaintextExport: q.PlaintextExport,
		Created: now, Updated: now, State: NamespaceActive, Generation: 1}
	d, wrapped, err := domain.Create(ctx, wrapping, &s.random, s.domainID(made.ID, 1))
	if err != nil {
		return Namespace{}, hsmError(pathDomain(made.ID, 1), err)
	}
	tx.put(d, pathDomain(made.ID, 1), 0, domainRecord{Namespace: made.ID, Generation: 1, RootVersion: wrapping.Version, Wrapped: wrapped, Created: now})
	tx.put(s.system, pathNamespace(made.Name), 0, made)
	tx.detail("namespace_id", made.ID.String())
	if made.Token != "" {
		tx.detail("token", made.Token)
	}
	if made.PlaintextExport {
		tx.detail("plaintext_export", "true")
	}
	tx.then(func(revision store.Revision) {
		opened := newLazyDomain(made.generations(), d.StoredAt(uint64(revision)))
		s.keepNamespace(newNamespace(made, revision, opened))
	})
	return made, nil
}

func errNamespaceExists(n Namespace) *Error {
	e := &Error{Code: AlreadyExists, Reason: "NAMESPACE_EXISTS", Field: "namespace", Message: "namespace " + n.Name + " already exists"}
	if n.State != NamespaceActive {
		e.Message += ": it is deleted, and its name is free once it is removed, after " + n.DestroyTime.Format(time.RFC3339)
	}
	return e
}

// keepNamespace puts a namespace into memory, unless a newer state of it is there.
func (s *Service) keepNamespace(ns *namespace) {
	s.namespaceLock.Lock()
	defer s.namespaceLock.Unlock()
	if known, ok := s.namespaces.Load(ns.Name); !ok || known.revision < ns.revision {
		ns.domain.want(ns.generations(), nil)
		s.namespaces.Store(ns.Name, ns)
	}
}

// loadNamespaces puts the namespaces that were read into memory.
func (s *Service) loadNamespaces(_ headRecord, all covered) error {
	s.namespaceLock.Lock()
	defer s.namespaceLock.Unlock()
	there := map[string]bool{}
	err := eachCovered(all, prefixNamespace, func(_ string, n stored[Namespace]) error {
		there[n.value.Name] = true
		known, ok := s.namespaces.Load(n.value.Name)
		if ok && known.revision == n.revision {
			return nil
		}
		d := newLazyDomain(n.value.generations(), nil)
		if ok && known.ID == n.value.ID {
			d = known.domain
			d.want(n.value.generations(), nil)
		}
		s.namespaces.Store(n.value.Name, newNamespace(n.value, n.revision, d))
		return nil
	})
	for name := range s.namespaces.All() {
		if !there[name] {
			s.namespaces.Delete(name)
		}
	}
	return err
}

// UpdateNamespace replaces labels, quotas or both.
func (s *Service) UpdateNamespace(ctx context.Context, call Call, q UpdateNamespaceRequest) (Namespace, error) {
	c := s.namespaceChange(policy.UpdateNamespace, q.Namespace, q.Idempotency, struct{ N, L, Q any }{q.Namespace, q.Labels, q.Quotas})
	if q.Labels != nil {
		c.check = checkLabels(*q.Labels)
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		if err := s.refusal(ns); err != nil {
			return Namespace{}, err
		}
		updated := ns.Namespace
		if q.Labels == nil && q.Quotas == nil {
			return updated, nil
		}
		if q.Labels != nil {
			updated.Labels = *q.Labels
		}
		if q.Quotas != nil {
			updated.Quotas = *q.Quotas
			tx.detail("max_keys", fmt.Sprint(q.Quotas.MaxKeys))
			tx.detail("requests_per_second", fmt.Sprint(q.Quotas.RequestsPerSecond))
		}
		return s.putNamespace(tx, ns, updated), nil
	})
}

// GetNamespace describes one namespace.
func (s *Service) GetNamespace(ctx context.Context, call Call, name string) (Namespace, error) {
	return perform(ctx, s, call, policy.GetNamespace, name, func(s *Service, ctx context.Context, t *trace, name string) (Namespace, error) {
		t.on(name, "")
		resource, ns, missing := s.namespaceResource(ctx, name)
		if err := s.permit(t, policy.GetNamespace, resource, nil, missing); err != nil {
			return Namespace{}, err
		}
		return s.withProgress(ctx, ns.Namespace)
	})
}

// ListNamespaces pages through all namespaces by name.
func (s *Service) ListNamespaces(ctx context.Context, call Call, q ListRequest) ([]Namespace, string, error) {
	return performList(ctx, s, call, policy.ListNamespaces, q, func(s *Service, ctx context.Context, t *trace, q ListRequest) (listing[Namespace], error) {
		if err := s.authorize(t, policy.ListNamespaces, &policy.Resource{}, nil); err != nil {
			return listing[Namespace]{}, err
		}
		return list(ctx, s, s.system, prefixNamespace, q.PageSize, q.PageToken, func(n stored[Namespace]) (Namespace, bool, error) {
			described, err := s.withProgress(ctx, n.value)
			return described, true, err
		})
	})
}

// newID draws a random id; 0 is `system`'s.
func newID() ID {
	for {
		var b [8]byte
		rand.Read(b[:])
		if id := ID(binary.BigEndian.Uint64(b[:])); id != 0 {
			return id
		}
	}
}
