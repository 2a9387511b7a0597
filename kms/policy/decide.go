package policy

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Decide answers a request. It never fails: whatever cannot be decided is
// denied, and Reason says why. A decision that depends on no context is
// remembered for as long as the resource's revision stays the same; to repeat
// it allocates nothing.
func (s *Set) Decide(r *Request) Decision {
	action, refusal := precheck(r)
	if refusal != "" {
		return Decision{Verdict: Deny, Revision: s.revision, Reason: refusal}
	}
	if decision, ok := s.cache.get(r); ok {
		return decision
	}
	q := newQuery(r, action)
	found := s.candidates(q)
	decision := s.evaluate(q, found).decision(s.revision)
	if !found.reads.context {
		s.cache.put(r, found.reads.attributes, decision)
	}
	return decision
}

// precheck refuses what no policy is asked about: requests that are incomplete,
// of callers whose credentials ended, and of actions that do not apply to the
// kind of resource, for which policies were never checked.
func precheck(r *Request) (*actionInfo, string) {
	switch {
	case r == nil || r.Caller == nil || r.Caller.ID == "":
		return nil, "the request names no caller"
	case !slices.Contains(principalTypes(), types.EntityType(r.Caller.Type)):
		return nil, "the caller is of an unknown type"
	case r.Resource == nil || r.Time.IsZero():
		return nil, "the request names no resource or no time"
	case r.Caller.expired(r.Time):
		return nil, "the caller's credentials have expired"
	}
	action := theModel().actions[r.Action]
	if action == nil {
		return nil, "unknown action"
	}
	if action.on&r.Resource.kind() == 0 {
		return nil, "the action does not apply to this kind of resource"
	}
	return action, ""
}

// kind returns which kind of resource this is, 0 for a key without a namespace.
func (r *Resource) kind() kinds {
	switch {
	case r.Namespace != "" && r.Key != "":
		return onKey
	case r.Namespace != "":
		return onNamespace
	case r.Key == "":
		return onSystem
	default:
		return 0
	}
}

// outcome is the policies that applied to a request, by what they said.
type outcome struct {
	permits, forbids policySet
	erred            policySet // all that could not be evaluated
	erredForbids     policySet // those of them that forbid
}

// evaluate has Cedar evaluate the candidates.
func (s *Set) evaluate(q *query, found candidates) outcome {
	var o outcome
	if len(found.statements) == 0 {
		return o
	}
	_, diagnostic := cedar.Authorize(found, q.entities(found.reads), q.cedarRequest(found.reads))
	for _, reason := range diagnostic.Reasons {
		if statement := s.statements[reason.PolicyID]; statement.forbids() {
			o.forbids.add(statement.policyID)
		} else {
			o.permits.add(statement.policyID)
		}
	}
	for _, failure := range diagnostic.Errors {
		statement := s.statements[failure.PolicyID]
		o.erred.add(statement.policyID)
		if statement.forbids() {
			o.erredForbids.add(statement.policyID)
		}
	}
	return o
}

// decision applies the rules: forbid wins, and here, unlike in Cedar, a forbid
// that cannot be evaluated denies; then permit; else deny.
func (o outcome) decision(revision uint64) Decision {
	d := Decision{Revision: revision, Erred: o.erred.sorted()}
	switch {
	case len(o.forbids) > 0:
		d.Policies, d.Reason = o.forbids.sorted(), "forbidden by "+o.forbids.String()
	case len(o.erredForbids) > 0:
		d.Policies, d.Reason = o.erredForbids.sorted(), o.erredForbids.String()+" could not be evaluated"
	case len(o.permits) > 0:
		d.Verdict = Allow
		d.Policies, d.Reason = o.permits.sorted(), "permitted by "+o.permits.String()
	default:
		d.Reason = "no policy permits this"
	}
	return d
}

// policySet is a set of policy ids.
type policySet map[string]bool

func (p *policySet) add(id string) {
	if *p == nil {
		*p = policySet{}
	}
	(*p)[id] = true
}

func (p policySet) sorted() []string { return slices.Sorted(maps.Keys(p)) }

func (p policySet) String() string { return strings.Join(p.sorted(), ", ") }

// All makes candidates a cedar.PolicyIterator.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, s := range c.statements {
			if !yield(s.id, s.cedar) {
				return
			}
		}
	}
}
