package kms

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

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

type lazyDomain struct {
	opened atomic.Pointer[domain.Domain]
	open   sync.Mutex
}

func openedDomain(d *domain.Domain) *lazyDomain {
	l := &lazyDomain{}
	l.opened.Store(d)
	return l
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
	ns := newNamespace(record.value, record.revision, &lazyDomain{})
	s.namespaces.Store(name, ns)
	return ns, nil
}

// domainOf returns the namespace's domain, unwrapped by the HSM on first use.
func (s *Service) domainOf(ctx context.Context, ns *namespace) (*domain.Domain, error) {
	if d := ns.domain.opened.Load(); d != nil {
		return d, nil
	}
	ns.domain.open.Lock()
	defer ns.domain.open.Unlock()
	if d := ns.domain.opened.Load(); d != nil {
		return d, nil
	}
	d, err := s.openDomain(ctx, ns.ID, ns.Generation)
	if err == nil {
		ns.domain.opened.Store(d)
	}
	return d, err
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

// CreateNamespace makes a namespace with a domain secret of its own, by one HSM call.
func (s *Service) CreateNamespace(ctx context.Context, call Call, q CreateNamespaceRequest) (Namespace, error) {
	c := change{action: policy.CreateNamespace, namespace: q.Namespace, idempotency: q.Idempotency,
		request: struct{ N, L any }{q.Namespace, q.Labels}, check: errors.Join(checkNamespaceName(q.Namespace), checkLabels(q.Labels)),
		resource: func(context.Context) (*policy.Resource, error) {
			return &policy.Resource{Namespace: q.Namespace, Labels: q.Labels}, nil
		}}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		return s.planNamespace(ctx, tx, q)
	})
}

func (s *Service) planNamespace(ctx context.Context, tx *transaction, q CreateNamespaceRequest) (Namespace, error) {
	if _, err := s.findNamespace(ctx, q.Namespace); err == nil {
		return Namespace{}, &Error{Code: AlreadyExists, Reason: "NAMESPACE_EXISTS", Field: "namespace", Message: "namespace " + q.Namespace + " already exists"}
	} else if CodeOf(err) != NotFound {
		return Namespace{}, err
	}
	now := s.now().UTC()
	made := Namespace{Name: q.Namespace, ID: newID(), Labels: q.Labels, Created: now, Updated: now, Generation: 1}
	d, wrapped, err := domain.Create(ctx, s.root, &s.random, s.domainID(made.ID, 1))
	if err != nil {
		return Namespace{}, hsmError(pathDomain(made.ID, 1), err)
	}
	tx.put(d, pathDomain(made.ID, 1), 0, domainRecord{Namespace: made.ID, Generation: 1, RootVersion: s.root.version, Wrapped: wrapped, Created: now})
	tx.put(s.system, pathNamespace(made.Name), 0, made)
	tx.detail("namespace_id", made.ID.String())
	tx.then(func(revision store.Revision) { s.addNamespace(newNamespace(made, revision, openedDomain(d))) })
	return made, nil
}

// addNamespace puts a new namespace into memory, unless a caller who was quicker
// has loaded it, and perhaps changed it since.
func (s *Service) addNamespace(ns *namespace) {
	s.namespaceLock.Lock()
	defer s.namespaceLock.Unlock()
	if _, known := s.namespaces.Load(ns.Name); !known {
		s.namespaces.Store(ns.Name, ns)
	}
}

// UpdateNamespace replaces labels.
func (s *Service) UpdateNamespace(ctx context.Context, call Call, q UpdateNamespaceRequest) (Namespace, error) {
	c := change{action: policy.UpdateNamespace, namespace: q.Namespace, idempotency: q.Idempotency, request: struct{ N, L any }{q.Namespace, q.Labels},
		resource: func(ctx context.Context) (*policy.Resource, error) {
			resource, _, err := s.namespaceResource(ctx, q.Namespace)
			return resource, err
		},
		lock:   func() *sync.Mutex { return &s.namespaceLock },
		forget: func() { s.namespaces.Delete(q.Namespace) }}
	if q.Labels != nil {
		c.check = checkLabels(*q.Labels)
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Namespace, error) {
		ns, err := s.loadNamespace(ctx, q.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		updated := ns.Namespace
		if q.Labels == nil {
			return updated, nil
		}
		updated.Labels, updated.Updated = *q.Labels, s.now().UTC()
		tx.put(s.system, pathNamespace(q.Namespace), ns.revision, updated)
		tx.then(func(revision store.Revision) {
			s.namespaces.Store(updated.Name, newNamespace(updated, revision, ns.domain))
		})
		return updated, nil
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
		return ns.Namespace, nil
	})
}

// ListNamespaces pages through all namespaces by name.
func (s *Service) ListNamespaces(ctx context.Context, call Call, q ListRequest) ([]Namespace, string, error) {
	return performList(ctx, s, call, policy.ListNamespaces, q, func(s *Service, ctx context.Context, t *trace, q ListRequest) (listing[Namespace], error) {
		if err := s.authorize(t, policy.ListNamespaces, &policy.Resource{}, nil); err != nil {
			return listing[Namespace]{}, err
		}
		return list(ctx, s, s.system, prefixNamespace, q.PageSize, q.PageToken, func(n stored[Namespace]) (Namespace, bool, error) {
			return n.value, true, nil
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
