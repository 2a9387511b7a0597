package kms

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// Limits of one comparison.
const (
	MaxDiffEntries = 1_000_000 // audit entries
	maxChanged     = 1000      // changed decisions listed
	maxRemembered  = 10_000    // callers and resources kept at hand
)

// DiffRequest asks which audited requests of a time would be decided otherwise
// with the policies changed as proposed. A zero Since is a day ago, a zero Until
// now.
type DiffRequest struct {
	Changes      []PolicyChange
	Since, Until time.Time
}

// PolicyDiff answers a DiffRequest.
type PolicyDiff struct {
	Changed []ChangedDecision
	Entries uint64 // that were compared
	// Undecidable counts requests whose decision cannot be known, by reason.
	Undecidable map[string]uint64
	// Truncated tells that more changed than are listed.
	Truncated bool
}

// ChangedDecision is audited requests that are alike: same caller, action, key and
// decisions.
type ChangedDecision struct {
	Principal      string
	Action         policy.Action
	Namespace, Key string
	Before, After  policy.Verdict
	Count          uint64
	Entry          uint64 // the first of them
	Reason         string // of the decision after
}

// DiffPolicies decides audited requests by the policies of now, unchanged and as
// proposed, with the keys' attributes and labels of now. It reads at most
// MaxDiffEntries entries. Where all changes belong to one namespace, so do the
// requests, and the right to explain there suffices.
func (s *Service) DiffPolicies(ctx context.Context, call Call, q DiffRequest) (PolicyDiff, error) {
	return perform(ctx, s, call, policy.ExplainPolicy, q, func(s *Service, ctx context.Context, t *trace, q DiffRequest) (PolicyDiff, error) {
		namespace := explainedNamespace(nil, q.Changes)
		if err := s.permitExplanation(ctx, t, namespace); err != nil {
			return PolicyDiff{}, err
		}
		if len(q.Changes) == 0 {
			return PolicyDiff{}, invalid("changes", "is empty; propose a change of a policy")
		}
		if q.Since.IsZero() {
			q.Since = t.start.Add(-24 * time.Hour)
		}
		d, err := s.newDiff(q.Changes, namespace)
		if err != nil {
			return PolicyDiff{}, err
		}
		filter := audit.Filter{Since: q.Since, Until: q.Until, Namespace: namespace}
		err = s.audit.Scan(ctx, filter, func(e audit.Entry) error { return d.compare(ctx, &e) })
		return d.result, readAuditError(err)
	})
}

// comparison decides audited requests by two sets of policies.
type comparison struct {
	service       *Service
	namespace     string // all that counts, "" for everything
	before, after *policy.Set
	result        PolicyDiff
	places        map[alike]int // in result.Changed
	callers       map[callerKey]*policy.Caller
	resources     map[[2]string]resourceNow
}

type alike struct {
	principal, namespace, key string
	action                    policy.Action
	after                     policy.Verdict
}

type callerKey struct{ principal, method, source, groups string }

func (s *Service) newDiff(changes []PolicyChange, namespace string) (*comparison, error) {
	before, err := s.proposed(nil)
	if err != nil {
		return nil, err
	}
	after, err := s.proposed(changes)
	return &comparison{service: s, namespace: namespace, before: before.Apart(), after: after, result: PolicyDiff{Undecidable: map[string]uint64{}},
		places: map[alike]int{}, callers: map[callerKey]*policy.Caller{}, resources: map[[2]string]resourceNow{}}, err
}

func (d *comparison) compare(ctx context.Context, e *audit.Entry) error {
	questions := questionsOf(e)
	if len(questions) == 0 {
		return nil
	}
	if d.result.Entries++; d.result.Entries > MaxDiffEntries {
		return &Error{Code: ResourceExhausted, Reason: "TOO_MANY_ENTRIES", Field: "since",
			Message: fmt.Sprintf("more than %d audited requests fall into that time; ask for a shorter one, by since and until", MaxDiffEntries)}
	}
	for _, q := range questions {
		if d.namespace != "" && q.namespace != d.namespace {
			continue
		}
		if err := d.compareOne(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

func (d *comparison) compareOne(ctx context.Context, q question) error {
	request, now, err := d.request(ctx, q)
	if err != nil || request == nil {
		return err
	}
	before := d.before.Decide(request)
	if reason := d.unknown(q, request, now, before); reason != "" {
		d.result.Undecidable[reason] += q.count
		return nil
	}
	if after := d.after.Decide(request); after.Verdict != before.Verdict {
		d.changed(q, before, after)
	}
	return nil
}

// unknown says why it cannot be known how a request is decided.
func (d *comparison) unknown(q question, r *policy.Request, now resourceNow, before policy.Decision) string {
	if q.hidden || now.missing {
		context, attributes := d.before.LooksAt(r)
		contextAfter, attributesAfter := d.after.LooksAt(r)
		switch {
		case q.hidden && (context || contextAfter):
			return "policies look at the encryption context, of which the log has the hash alone"
		case now.missing && (attributes || attributesAfter):
			return "policies look at attributes or labels of what does not exist any more"
		}
	}
	same := q.entry.PolicyRevision == before.Revision && len(q.entry.Batch) == 0 && q.entry.Details["destination"] == ""
	if same && q.entry.Decision != before.Verdict.String() {
		return "by what the log tells it would have been decided otherwise than it was"
	}
	return ""
}

func (d *comparison) changed(q question, before, after policy.Decision) {
	like := alike{q.entry.Principal, q.namespace, q.key, q.action, after.Verdict}
	if place, ok := d.places[like]; ok {
		d.result.Changed[place].Count += q.count
		return
	}
	if len(d.result.Changed) == maxChanged {
		d.result.Truncated = true
		return
	}
	d.places[like] = len(d.result.Changed)
	d.result.Changed = append(d.result.Changed, ChangedDecision{Principal: q.entry.Principal, Action: q.action, Namespace: q.namespace, Key: q.key,
		Before: before.Verdict, After: after.Verdict, Count: q.count, Entry: q.entry.Sequence, Reason: after.Reason})
}

// request rebuilds a request; nil for one of no caller that policies decide about.
func (d *comparison) request(ctx context.Context, q question) (*policy.Request, resourceNow, error) {
	caller := d.caller(q.entry)
	if caller == nil {
		return nil, resourceNow{}, nil
	}
	now, err := d.resource(ctx, q.namespace, q.key)
	return &policy.Request{Caller: caller, Action: q.action, Resource: now.resource, EncryptionContext: q.context, Time: q.entry.Time}, now, err
}

func (d *comparison) caller(e *audit.Entry) *policy.Caller {
	key := callerKey{e.Principal, e.Method, e.Source, strings.Join(e.Groups, "\n")}
	caller, known := d.callers[key]
	if !known {
		caller, _ = loggedCaller(e) // nil then
		if len(d.callers) >= maxRemembered {
			clear(d.callers)
		}
		d.callers[key] = caller
	}
	return caller
}

func (d *comparison) resource(ctx context.Context, namespace, name string) (resourceNow, error) {
	place := [2]string{namespace, name}
	if now, known := d.resources[place]; known {
		return now, nil
	}
	now, err := d.service.resourceNow(ctx, namespace, name)
	if err != nil && CodeOf(err) != InvalidArgument {
		return resourceNow{}, err
	}
	if len(d.resources) >= maxRemembered {
		clear(d.resources)
	}
	d.resources[place] = now
	return now, nil
}
