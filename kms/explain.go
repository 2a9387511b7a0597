package kms

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/policy"
)

// Limits of one dry run.
const (
	MaxSupposed      = 1000 // requests
	MaxPolicyChanges = 100
)

// SupposedRequest is a request that nobody made.
type SupposedRequest struct {
	// Principal is Cedar text, such as Token::"billing"; Groups are those that its
	// credentials would claim, besides which stored ones count.
	Principal string
	Groups    []string
	Action    string
	// Namespace and Key may both be empty: the installation. What does not exist
	// has no labels.
	Namespace, Key    string
	EncryptionContext map[string]string
	Time              time.Time // zero is now
	Source            string    // an IP address, "" for none
	Method            string    // "mtls", "token" or "unix"; "" goes by the type of the principal
}

// PolicyChange is a policy as it would be; without text it would be deleted.
type PolicyChange struct{ Namespace, Name, Text string }

// ExplainRequest asks about the audit entry with sequence Entry or, with that nil,
// about Supposed, with the policies changed as proposed.
type ExplainRequest struct {
	Entry    *uint64
	Supposed *SupposedRequest
	Changes  []PolicyChange
}

// ExplainedDecision is the answer to an ExplainRequest.
type ExplainedDecision struct {
	// Explanation is by the policies of the time; attributes and labels of keys
	// are always those of now.
	Explanation policy.Explanation
	// Now explains an entry by the policies of now, as changed; nil where those are
	// the same.
	Now *policy.Explanation
	// Caveats say what could not be known.
	Caveats []string
}

// TestRequest asks how Requests would be decided, with the policies changed as
// proposed.
type TestRequest struct {
	Requests []SupposedRequest
	Changes  []PolicyChange
}

// PermittedRequest asks who may do Action to a key, a namespace or the installation.
type PermittedRequest struct{ Action, Namespace, Key string }

// PermittedList answers a PermittedRequest.
type PermittedList struct {
	Grants     []policy.Grant
	Exceptions []policy.Considered
}

// ExplainDecision says why a request was decided as it was, or would be. Who may
// explain in one namespace may ask about requests there, with changes of that
// namespace's own policies.
func (s *Service) ExplainDecision(ctx context.Context, call Call, q ExplainRequest) (ExplainedDecision, error) {
	return perform(ctx, s, call, policy.ExplainPolicy, q, func(s *Service, ctx context.Context, t *trace, q ExplainRequest) (ExplainedDecision, error) {
		if (q.Entry == nil) == (q.Supposed == nil) {
			return ExplainedDecision{}, invalid("subject", "is missing or given twice; give either the sequence of an audit entry or a supposed request")
		}
		if q.Entry != nil {
			return s.explainEntry(ctx, t, *q.Entry, q.Changes)
		}
		explained, err := s.explainSupposed(ctx, t, TestRequest{[]SupposedRequest{*q.Supposed}, q.Changes})
		if err != nil {
			return ExplainedDecision{}, err
		}
		return ExplainedDecision{Explanation: explained[0]}, nil
	})
}

// TestPolicies explains 1 to MaxSupposed supposed requests, in their order.
// Nothing is changed. The right needed is as for ExplainDecision.
func (s *Service) TestPolicies(ctx context.Context, call Call, q TestRequest) ([]policy.Explanation, error) {
	return perform(ctx, s, call, policy.ExplainPolicy, q, func(s *Service, ctx context.Context, t *trace, q TestRequest) ([]policy.Explanation, error) {
		if len(q.Requests) == 0 || len(q.Requests) > MaxSupposed {
			return nil, invalid("requests", "has %d entries; give 1 to %d", len(q.Requests), MaxSupposed)
		}
		return s.explainSupposed(ctx, t, q)
	})
}

// ListPermitted says who may do something, by which statements, and who is
// excepted by which.
func (s *Service) ListPermitted(ctx context.Context, call Call, q PermittedRequest) (PermittedList, error) {
	return perform(ctx, s, call, policy.ExplainPolicy, q, func(s *Service, ctx context.Context, t *trace, q PermittedRequest) (PermittedList, error) {
		if err := s.permitExplanation(ctx, t, q.Namespace); err != nil {
			return PermittedList{}, err
		}
		action, err := parseAction(q.Action)
		if err != nil {
			return PermittedList{}, err
		}
		now, err := s.resourceNow(ctx, q.Namespace, q.Key)
		if err != nil {
			return PermittedList{}, err
		}
		grants, exceptions, err := s.policies.set.Load().WhoMay(action, now.resource)
		if err != nil {
			err = invalid("action", "%s cannot be asked of such a resource; docs/policy.md says what each applies to", action)
		}
		return PermittedList{grants, exceptions}, err
	})
}

// permitExplanation authorises explanations about a namespace, which need not
// exist, or, with "", about everything.
func (s *Service) permitExplanation(ctx context.Context, t *trace, namespace string) error {
	t.on(namespace, "")
	resource, missing := s.policyResource(namespace)(ctx)
	if CodeOf(missing) == NotFound {
		missing = nil
	}
	return s.permit(t, policy.ExplainPolicy, resource, nil, missing)
}

// explainedNamespace is the one namespace that all of it is about, or "".
func explainedNamespace(requests []SupposedRequest, changes []PolicyChange) string {
	var all []string
	for _, r := range requests {
		all = append(all, r.Namespace)
	}
	for _, c := range changes {
		all = append(all, c.Namespace)
	}
	if all = slices.Compact(all); len(all) == 1 {
		return all[0]
	}
	return ""
}

func (s *Service) explainSupposed(ctx context.Context, t *trace, q TestRequest) ([]policy.Explanation, error) {
	if err := s.permitExplanation(ctx, t, explainedNamespace(q.Requests, q.Changes)); err != nil {
		return nil, err
	}
	set, err := s.proposed(q.Changes)
	if err != nil {
		return nil, err
	}
	explained := make([]policy.Explanation, len(q.Requests))
	for i, supposed := range q.Requests {
		if err := ctx.Err(); err != nil {
			return nil, storeError(err)
		}
		request, err := s.suppose(ctx, t.start, supposed)
		if err != nil {
			return nil, err
		}
		explained[i] = set.Explain(request)
	}
	return explained, nil
}

// proposed is the policies of now with changes; their revision stays what it is.
func (s *Service) proposed(changes []PolicyChange) (*policy.Set, error) {
	if len(changes) > MaxPolicyChanges {
		return nil, invalid("changes", "has %d entries, the limit is %d; try fewer at once", len(changes), MaxPolicyChanges)
	}
	s.head.lock.Lock()
	set, source := s.policies.set.Load(), s.policies.source
	s.head.lock.Unlock()
	if len(changes) == 0 {
		return set, nil
	}
	source = source.clone()
	for _, change := range changes {
		if err := source.change(change); err != nil {
			return nil, err
		}
	}
	changed, err := source.compile(set.Revision(), set)
	return changed, policyError(err)
}

func (p policySource) change(c PolicyChange) error {
	path, changed := pathPolicy(c.Namespace, c.Name), policy.Policy{Namespace: c.Namespace, Name: c.Name, Text: c.Text}
	if c.Text != "" {
		p.policies[path] = changed
		return policyError(policy.Validate(changed))
	}
	if _, ok := p.policies[path]; !ok {
		return errNoPolicy(PolicyRef{Namespace: c.Namespace, Name: c.Name})
	}
	delete(p.policies, path)
	return nil
}

// suppose completes a supposed request.
func (s *Service) suppose(ctx context.Context, now time.Time, q SupposedRequest) (*policy.Request, error) {
	caller, err := supposedCaller(q)
	if err != nil {
		return nil, err
	}
	action, err := parseAction(q.Action)
	if err != nil {
		return nil, err
	}
	if _, err := keyring.CanonicalContext(q.EncryptionContext); err != nil {
		return nil, keyringError(err)
	}
	on, err := s.resourceNow(ctx, q.Namespace, q.Key)
	if err != nil {
		return nil, err
	}
	if !q.Time.IsZero() {
		now = q.Time
	}
	return &policy.Request{Caller: caller, Action: action, Resource: on.resource, EncryptionContext: q.EncryptionContext, Time: now}, nil
}

func supposedCaller(q SupposedRequest) (*policy.Caller, error) {
	for _, group := range q.Groups {
		if err := checkName("groups", group); err != nil {
			return nil, err
		}
	}
	if !slices.Contains([]string{"", methodMTLS, methodToken, methodUnix}, q.Method) {
		return nil, invalid("method", "is %q; use %s, %s or %s, or leave it out", clip(q.Method), methodMTLS, methodToken, methodUnix)
	}
	caller, err := callerNamed(q.Principal, q.Method, q.Source)
	if err != nil {
		return nil, err
	}
	caller.Groups = q.Groups
	return caller, nil
}

// How callers authenticate, as policy.Caller.Method has it.
const (
	methodMTLS  = "mtls"
	methodToken = "token"
	methodUnix  = "unix"
)

// callerNamed is the caller that goes by the name of a principal.
func callerNamed(principal, method, source string) (*policy.Caller, error) {
	kind, id, err := policy.ParsePrincipal(principal)
	if err != nil {
		return nil, invalid("principal", "%q is none; write one as policies do, such as Token::\"app\"", clip(principal))
	}
	caller := &policy.Caller{Type: kind, ID: id, Method: method}
	switch {
	case method == "" && kind == policy.Token:
		caller.Method = methodToken
	case method == "":
		caller.Method = methodMTLS
	}
	if caller.Method == methodMTLS {
		caller.TrustDomain, _, _ = strings.Cut(id, ":")
	}
	if source != "" {
		if caller.Source, err = netip.ParseAddr(source); err != nil {
			return nil, invalid("source", "%q is no IP address", clip(source))
		}
	}
	return caller, nil
}

func parseAction(name string) (policy.Action, error) {
	action, err := policy.ParseAction(name)
	if err != nil {
		return "", invalid("action", "%q is none; names are case-sensitive, such as %s", clip(name), policy.GenerateDataKey)
	}
	return action, nil
}

// resourceNow is what is known now of a key, a namespace or the installation.
type resourceNow struct {
	resource         *policy.Resource // of what does not exist, the name alone
	missing          bool
	created, updated time.Time // zero for the installation
}

func (s *Service) resourceNow(ctx context.Context, owner, name string) (resourceNow, error) {
	var now resourceNow
	var k *key
	var ns *namespace
	var err error
	switch {
	case name != "":
		if now.resource, k, err = s.keyResource(ctx, owner, name); k != nil {
			now.created, now.updated = k.Created, k.Updated
		}
	case owner != "":
		if now.resource, ns, err = s.namespaceResource(ctx, owner); ns != nil {
			now.created, now.updated = ns.Created, ns.Updated
		}
	default:
		now.resource = &policy.Resource{}
	}
	if CodeOf(err) == NotFound {
		now.missing, err = true, nil
	}
	return now, err
}
