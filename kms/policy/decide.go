package policy

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// Decide answers a request. It never fails: whatever cannot be decided is
// denied, and Reason says why. A caller with ancestors may do what it and each of
// them may. A decision that depends on no context is remembered for as long as
// the resource's revision stays the same; to repeat it allocates nothing.
func (s *Set) Decide(r *Request) Decision {
	action, refusal := precheck(r)
	if refusal != "" {
		return s.denial(refusal)
	}
	if decision, ok := s.cache.get(r); ok {
		return decision
	}
	decision, looked := s.decideChain(r, action)
	if !looked.context {
		s.cache.put(r, looked.attributes, decision)
	}
	return decision
}

func (s *Set) denial(reason string) Decision {
	return Decision{Verdict: Deny, Revision: s.revision, Reason: reason}
}

// decideChain decides for the caller and then for its ancestors, until one is
// denied. It also returns what was looked at.
func (s *Set) decideChain(r *Request, action *actionInfo) (Decision, reads) {
	decision, looked := s.decideFor(r, r.Caller, action)
	for ancestor := r.Caller.Parent; ancestor != nil && decision.Verdict == Allow; ancestor = ancestor.Parent {
		bound, more := s.decideFor(r, ancestor, action)
		decision, looked = decision.within(ancestor, bound), looked.or(more)
	}
	return decision, looked
}

// decideFor decides as if caller, who is the request's or an ancestor, asked.
func (s *Set) decideFor(r *Request, caller *Caller, action *actionInfo) (Decision, reads) {
	if refusal := caller.narrowed(action, r.Resource); refusal != "" {
		narrowed := s.denial(refusal)
		narrowed.Bound = caller.Principal()
		return narrowed, reads{}
	}
	q := s.query(r, caller, action)
	found := s.candidates(q)
	return s.evaluate(q, found).decision(s.revision), found.reads
}

// within bounds an allowing decision by that for an ancestor.
func (d Decision) within(ancestor *Caller, bound Decision) Decision {
	name := ancestor.Principal()
	if bound.Verdict != Allow {
		bound.Bound, bound.Reason = name, "the token was made with one of "+name+", for whom: "+bound.Reason
		return bound
	}
	d.Policies = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(d.Policies), bound.Policies...))))
	d.Erred = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(d.Erred), bound.Erred...))))
	d.Reason += "; for " + name + " " + bound.Reason
	return d
}

// precheck refuses what no policy is asked about: requests that are incomplete,
// of callers whose credentials ended, and of actions that do not apply to the
// kind of resource, for which policies were never checked.
func precheck(r *Request) (*actionInfo, string) {
	if r == nil {
		return nil, "the request names no caller"
	}
	if refusal := r.Caller.precheck(r.Time); refusal != "" {
		return nil, refusal
	}
	if r.Resource == nil || r.Time.IsZero() {
		return nil, "the request names no resource or no time"
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

// precheck looks at the caller and at its ancestors.
func (c *Caller) precheck(now time.Time) string {
	for depth := 0; depth == 0 || c != nil; c, depth = c.Parent, depth+1 {
		switch {
		case depth > MaxAncestors:
			return "the token descends from too many others"
		case c == nil || c.ID == "":
			return "the request names no caller"
		case !slices.Contains(principalTypes(), types.EntityType(c.Type)):
			return "the caller is of an unknown type"
		case c.expired(now) && depth == 0:
			return "the caller's credentials have expired"
		case c.expired(now):
			return "a token that the caller's was made with has expired"
		}
	}
	return ""
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
