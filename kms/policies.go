package kms

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// reloadTimeout bounds how long an uncertain change waits for the store.
const reloadTimeout = 10 * time.Second

// loadPolicies reads all policies and compiles them.
func (s *Service) loadPolicies(ctx context.Context) error {
	head, all, err := s.readPolicies(ctx)
	if err != nil {
		return err
	}
	set, err := policy.NewSet(head.value.PolicyRevision, all)
	if err == nil {
		s.policies.Store(set)
	}
	return err
}

// reloadPolicies makes what is stored be in force after a commit whose outcome is
// not known. The caller holds the policy lock.
func (s *Service) reloadPolicies() {
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	if err := s.loadPolicies(ctx); err != nil {
		s.log.Error("policies cannot be read after an uncertain change; those in force may be older than those stored", "error", err)
	}
}

// readPolicies reads the head record and all policies, which must be those that
// the head was written with: none missing, none put back.
func (s *Service) readPolicies(ctx context.Context) (stored[headRecord], []policy.Policy, error) {
	head, err := read[headRecord](ctx, s, s.system, pathHead)
	if errors.Is(err, store.ErrNotFound) {
		err = dataLoss(pathHead, err)
	}
	if err != nil {
		return head, nil, err
	}
	var all []policy.Policy
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefixPolicy, after, store.MaxPageRecords)
		if err != nil {
			return head, nil, storeError(err)
		}
		for _, record := range page.Records {
			p, err := decode[Policy](s.system, record)
			if err != nil {
				return head, nil, err
			}
			all = append(all, policy.Policy{Namespace: p.value.Namespace, Name: p.value.Name, Text: p.value.Text})
		}
		after = page.Next
	}
	if !bytes.Equal(policyDigest(all), head.value.PolicyDigest) {
		return head, nil, dataLoss(pathHead, errors.New("the policies are not those that it was written with"))
	}
	return head, all, nil
}

// policyDigest is SHA-256 over all policies in the order of namespace and name,
// each text preceded by its length.
func policyDigest(all []policy.Policy) []byte {
	ordered := slices.SortedFunc(slices.Values(all), func(a, b policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	h := sha256.New()
	for _, p := range ordered {
		for _, text := range []string{p.Namespace, p.Name, p.Text} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(text)))
			h.Write(size[:])
			h.Write([]byte(text))
		}
	}
	return h.Sum(nil)
}

func policyError(err error) error {
	var bad *policy.InvalidPolicy
	if !errors.As(err, &bad) {
		return err
	}
	return &Error{Code: InvalidArgument, Reason: "INVALID_POLICY", Field: "text", Message: bad.Error()}
}

// policyResource is what a policy is about: its namespace or the installation.
func (s *Service) policyResource(namespace string) func(context.Context) (*policy.Resource, error) {
	return func(ctx context.Context) (*policy.Resource, error) {
		if namespace == "" {
			return &policy.Resource{}, nil
		}
		resource, _, err := s.namespaceResource(ctx, namespace)
		return resource, err
	}
}

func (s *Service) policyChange(action policy.Action, q PolicyRef, request any) change {
	c := change{action: action, namespace: q.Namespace, idempotency: q.Idempotency, request: request,
		check: checkName("name", q.Name), resource: s.policyResource(q.Namespace), lock: func() *sync.Mutex { return &s.policyLock },
		forget: s.reloadPolicies}
	if q.Namespace != "" {
		c.check = errors.Join(checkNamespaceName(q.Namespace), c.check)
	}
	return c
}

// PutPolicy writes a policy; it is in force when the call returns.
func (s *Service) PutPolicy(ctx context.Context, call Call, q PutPolicyRequest) (Policy, error) {
	ref := PolicyRef{Namespace: q.Namespace, Name: q.Name, Idempotency: q.Idempotency}
	c := s.policyChange(policy.PutPolicy, ref, struct{ N, P, T any }{q.Namespace, q.Name, q.Text})
	written := policy.Policy{Namespace: q.Namespace, Name: q.Name, Text: q.Text}
	if c.check == nil {
		c.check = policyError(policy.Validate(written))
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Policy, error) {
		return s.planPolicy(ctx, tx, ref, &written)
	})
}

// DeletePolicy removes a policy; it has no force when the call returns.
func (s *Service) DeletePolicy(ctx context.Context, call Call, q PolicyRef) error {
	c := s.policyChange(policy.DeletePolicy, q, struct{ N, P any }{q.Namespace, q.Name})
	_, err := mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Policy, error) {
		return s.planPolicy(ctx, tx, q, nil)
	})
	return err
}

// planPolicy writes or, with nil, deletes a policy, and swaps the compiled set in
// once that is durable.
func (s *Service) planPolicy(ctx context.Context, tx *transaction, q PolicyRef, written *policy.Policy) (Policy, error) {
	path := pathPolicy(q.Namespace, q.Name)
	old, err := read[Policy](ctx, s, s.system, path)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Policy{}, err
	}
	if written == nil && err != nil {
		return Policy{}, errNoPolicy(q)
	}
	head, all, err := s.readPolicies(ctx)
	if err != nil {
		return Policy{}, err
	}
	all = slices.DeleteFunc(all, func(p policy.Policy) bool { return p.Namespace == q.Namespace && p.Name == q.Name })
	if written != nil {
		all = append(all, *written)
	}
	set, err := policy.NewSet(head.value.PolicyRevision+1, all)
	if err != nil {
		return Policy{}, policyError(err)
	}
	tx.put(s.system, pathHead, head.revision, headRecord{PolicyRevision: set.Revision(), PolicyDigest: policyDigest(all)})
	tx.detail("policy", q.Name)
	tx.then(func(store.Revision) { s.policies.Store(set) })
	if written == nil {
		tx.delete(path, old.revision)
		return Policy{}, nil
	}
	now := s.now().UTC()
	p := Policy{Namespace: q.Namespace, Name: q.Name, Text: written.Text, Created: now, Updated: now, Revision: set.Revision()}
	if old.revision != 0 {
		p.Created = old.value.Created
	}
	tx.put(s.system, path, old.revision, p)
	return p, nil
}

func errNoPolicy(q PolicyRef) error {
	return notFound("POLICY_NOT_FOUND", "policy %q does not exist; ListPolicies names those there are", strings.TrimPrefix(q.Namespace+"/"+q.Name, "/"))
}

// GetPolicy returns a policy.
func (s *Service) GetPolicy(ctx context.Context, call Call, q PolicyRef) (Policy, error) {
	return perform(ctx, s, call, policy.GetPolicy, q, func(s *Service, ctx context.Context, t *trace, q PolicyRef) (Policy, error) {
		t.on(q.Namespace, "")
		resource, missing := s.policyResource(q.Namespace)(ctx)
		if err := checkName("name", q.Name); err != nil {
			missing = err
		}
		if err := s.permit(t, policy.GetPolicy, resource, nil, missing); err != nil {
			return Policy{}, err
		}
		p, err := read[Policy](ctx, s, s.system, pathPolicy(q.Namespace, q.Name))
		if errors.Is(err, store.ErrNotFound) {
			return Policy{}, errNoPolicy(q)
		}
		return p.value, err
	})
}

// ListPolicies pages through one namespace's policies or, with an empty
// namespace, through all policies of the installation and every namespace.
func (s *Service) ListPolicies(ctx context.Context, call Call, q ListRequest) ([]Policy, string, error) {
	return performList(ctx, s, call, policy.ListPolicies, q, func(s *Service, ctx context.Context, t *trace, q ListRequest) (listing[Policy], error) {
		t.on(q.Namespace, "")
		resource, missing := s.policyResource(q.Namespace)(ctx)
		if err := s.permit(t, policy.ListPolicies, resource, nil, missing); err != nil {
			return listing[Policy]{}, err
		}
		prefix := prefixPolicy
		if q.Namespace != "" {
			prefix = prefixPolicies(q.Namespace)
		}
		return list(ctx, s, s.system, prefix, q.PageSize, q.PageToken, func(p stored[Policy]) (Policy, bool, error) { return p.value, true, nil })
	})
}
