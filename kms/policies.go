package kms

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// policiesInForce is the compiled set and what it was made of.
type policiesInForce struct {
	set    atomic.Pointer[policy.Set]
	source policySource // guarded by the head's lock
}

// policySource is what a set is compiled from, by path. It is not changed once it
// is in force.
type policySource struct {
	policies map[string]policy.Policy
	groups   map[string]policy.Group
}

func (p policySource) clone() policySource {
	return policySource{maps.Clone(p.policies), maps.Clone(p.groups)}
}

// compile makes the set, in the order of paths, so that what is told of it does
// not depend on chance. What it shares with before, which may be nil, is taken from there.
func (p policySource) compile(revision uint64, before *policy.Set) (*policy.Set, error) {
	return before.Next(revision, sortedValues(p.policies), sortedValues(p.groups))
}

func sortedValues[V any](m map[string]V) []V {
	values := make([]V, 0, len(m))
	for _, path := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[path])
	}
	return values
}

// loadPolicies puts the policies and groups that were read in force.
func (s *Service) loadPolicies(head headRecord, all covered) error {
	before := s.policies.set.Load()
	if before != nil && before.Revision() == head.PolicyRevision {
		return nil
	}
	source := policySource{map[string]policy.Policy{}, map[string]policy.Group{}}
	err := eachCovered(all, prefixPolicy, func(path string, p stored[Policy]) error {
		source.policies[path] = p.value.compiled()
		return nil
	})
	if err != nil {
		return err
	}
	err = eachCovered(all, prefixGroup, func(path string, g stored[Group]) error {
		source.groups[path] = g.value.compiled()
		return nil
	})
	if err != nil {
		return err
	}
	set, err := source.compile(head.PolicyRevision, before)
	if err == nil {
		s.enforce(set, source)
	}
	return err
}

func (s *Service) enforce(set *policy.Set, source policySource) {
	s.policies.set.Store(set)
	s.policies.source = source
}

// planEnforcement has next be in force once the transaction is durable, and
// returns its revision. A change after which nobody could put policies any more on
// what it is about, the installation or a namespace, is refused, unless confirm
// repeats the name of what is changed.
func (s *Service) planEnforcement(tx *transaction, next policySource, about *policy.Resource, name, confirm string) (uint64, error) {
	revision := s.head.stored.value.PolicyRevision + 1
	set, err := next.compile(revision, s.policies.set.Load())
	if err != nil {
		return 0, policyError(err)
	}
	if confirm != name && s.policies.set.Load().Governed(about) && !set.Governed(about) {
		what := "the installation"
		if about.Namespace != "" {
			what = "namespace " + about.Namespace
		}
		return 0, precondition("LOCKOUT", "after this change nobody could put policies on %s any more; "+
			"permit %s there to somebody first, or confirm with confirm_lockout: %s", what, policy.PutPolicy, name)
	}
	tx.detail("revision", strconv.FormatUint(revision, 10))
	tx.then(func(store.Revision) { s.enforce(set, next) })
	return revision, nil
}

func (p Policy) compiled() policy.Policy {
	return policy.Policy{Namespace: p.Namespace, Name: p.Name, Text: p.Text}
}

func policyError(err error) error {
	var bad *policy.InvalidPolicy
	if !errors.As(err, &bad) {
		return err
	}
	return &Error{Code: InvalidArgument, Reason: "INVALID_POLICY", Field: "text", Message: bad.Error()}
}

// enforcedChange is the change of a policy or a group: all of these decide
// together, so one lock is theirs.
func (s *Service) enforcedChange(c change) change {
	c.lock, c.forget = func() *sync.Mutex { return &s.head.lock }, s.reloadHead
	return c
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
	c := s.enforcedChange(change{action: action, namespace: q.Namespace, idempotency: q.Idempotency, request: request,
		check: checkName("name", q.Name), resource: s.policyResource(q.Namespace)})
	if q.Namespace != "" {
		c.check = errors.Join(checkNamespaceName(q.Namespace), c.check)
	}
	return c
}

// PutPolicy writes a policy; it is in force when the call returns.
func (s *Service) PutPolicy(ctx context.Context, call Call, q PutPolicyRequest) (Policy, error) {
	ref := PolicyRef{Namespace: q.Namespace, Name: q.Name, ConfirmLockout: q.ConfirmLockout, Idempotency: q.Idempotency}
	c := s.policyChange(policy.PutPolicy, ref, struct{ N, P, T any }{q.Namespace, q.Name, q.Text})
	written := policy.Policy{Namespace: q.Namespace, Name: q.Name, Text: q.Text}
	if c.check == nil {
		c.check = policyError(policy.Validate(written))
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Policy, error) {
		if err := s.usable(q.Namespace); err != nil { // it would outlive the namespace
			return Policy{}, err
		}
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
	next := s.policies.source.clone()
	delete(next.policies, path)
	tx.detail("policy", q.Name)
	if q.Namespace != "" {
		tx.detail("namespace", q.Namespace)
	}
	if written != nil {
		next.policies[path] = *written
		tx.detail("text", written.Text)
	}
	about, err := s.policyResource(q.Namespace)(ctx)
	if err != nil {
		return Policy{}, err
	}
	revision, err := s.planEnforcement(tx, next, about, q.Name, q.ConfirmLockout)
	if err != nil {
		return Policy{}, err
	}
	if written == nil {
		tx.delete(path, old.revision)
		return Policy{}, nil
	}
	now := s.now().UTC()
	p := Policy{Namespace: q.Namespace, Name: q.Name, Text: written.Text, Created: now, Updated: now, Revision: revision}
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
