package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
)

// MaxConsidered is how many statements an Explanation tells of.
const MaxConsidered = 20

// maxTried bounds how many statements are evaluated in search of those that fail
// in one same part of their scope.
const maxTried = 200

// Explanation says why a request is decided as it is.
type Explanation struct {
	// Principal is who asks, as Cedar text; "" where the request names nobody.
	Principal string
	Verdict   Verdict
	// Reason says why in a sentence, as Decision does.
	Reason   string
	Revision uint64
	// Statements are those that decided, then those that came nearest to deciding
	// otherwise, at most MaxConsidered: of a denial by none, what almost permitted;
	// of an allowed request, what almost forbade.
	Statements []Considered
	// Bounds are the same for the caller's ancestors, nearest first. The verdict
	// above takes them into account, each of these stands for itself.
	Bounds []Explanation
}

// Result is what became of a statement.
type Result string

// The results.
const (
	Permitted  Result = "permitted"
	Forbade    Result = "forbade"
	Erred      Result = "erred" // could not be evaluated
	NotApplied Result = "did not apply"
)

// Considered is one statement of a policy, held against a request. Whatever it
// says was found by evaluation.
type Considered struct {
	// Namespace and Name are the policy's.
	Namespace, Name string
	// Line is where the statement begins in the policy's text, from 1.
	Line int
	// Effect is "permit" or "forbid".
	Effect string
	Result Result
	// FailedPart is what did not hold, or erred: "principal", "action" or
	// "resource" of the scope, "when" or "unless"; FailedText is its text, in one
	// line and at most maxText characters, and FailedLine where it begins.
	FailedPart, FailedText string
	FailedLine             int
	// Detail is the values that part looked at, or the error.
	Detail string
}

// Explain decides as Decide does, and says why. It costs up to some milliseconds
// with 10,000 policies.
func (s *Set) Explain(r *Request) Explanation {
	e := Explanation{Revision: s.revision}
	if r != nil && r.Caller != nil {
		e.Principal = r.Caller.Principal()
	}
	action, refusal := precheck(r)
	if refusal != "" {
		e.Reason = refusal
		return e
	}
	e = s.explainFor(r, r.Caller, action)
	for ancestor := r.Caller.Parent; ancestor != nil; ancestor = ancestor.Parent {
		e.Bounds = append(e.Bounds, s.explainFor(r, ancestor, action))
	}
	whole, _ := s.decideChain(r, action)
	e.Verdict, e.Reason = whole.Verdict, whole.Reason
	return e
}

func (s *Set) explainFor(r *Request, caller *Caller, action *actionInfo) Explanation {
	decision, _ := s.decideFor(r, caller, action)
	return Explanation{Principal: caller.Principal(), Verdict: decision.Verdict, Reason: decision.Reason,
		Revision: s.revision, Statements: s.consider(s.query(r, caller, action))}
}

// consider holds the statements against a query and describes the most telling.
func (s *Set) consider(q *query) []Considered {
	judge := newJudge(q)
	applied, near := s.judgeAll(judge)
	all := slices.Concat(applied, slices.DeleteFunc(near, func(j judgement) bool { return !isTelling(j, applied) }))
	slices.SortStableFunc(all, func(a, b judgement) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), strings.Compare(a.statement.policyID, b.statement.policyID))
	})
	var told []Considered
	for _, each := range all[:min(len(all), MaxConsidered)] {
		told = append(told, judge.describe(each))
	}
	return told
}

// isTelling reports whether a statement that did not apply could have changed the
// outcome alone: a permit where nothing permitted, a forbid where nothing forbade
// but something permitted.
func isTelling(near judgement, applied []judgement) bool {
	permitted := slices.ContainsFunc(applied, func(j judgement) bool { return j.result() == Permitted })
	forbade := slices.ContainsFunc(applied, func(j judgement) bool { return j.statement.forbids() })
	if near.statement.forbids() {
		return permitted && !forbade
	}
	return !permitted
}

// judgeAll returns the statements that applied, and those that failed in their
// conditions alone or in one part of their scope alone.
func (s *Set) judgeAll(judge *judge) (applied, near []judgement) {
	principals, resources := judge.query.principalTerms(), judge.query.resourceTerms()
	tried := map[part]int{}
	for _, each := range s.ordered {
		missed, one := missedTerm(each, principals, resources, judge.query.action.mask)
		if !one {
			continue
		}
		if tried[missed]++; missed != partNone && tried[missed] > maxTried {
			continue
		}
		switch j := judge.judge(each); {
		case j.result() != NotApplied:
			applied = append(applied, j)
		case j.scope == 0 || j.failures == 1:
			near = append(near, j)
		}
	}
	return applied, near
}

// missedTerm tells by what the index knows which part of the scope cannot match,
// and false where more than one cannot.
func missedTerm(s *statement, principals, resources []types.EntityUID, action actionMask) (missed part, one bool) {
	misses := 0
	for _, each := range []struct {
		part part
		hit  bool
	}{
		{partAction, s.actions&action != 0},
		{partResource, slices.Contains(resources, s.resource)},
		{partPrincipal, slices.Contains(principals, s.principal)},
	} {
		if !each.hit {
			missed, misses = each.part, misses+1
		}
	}
	return missed, misses <= 1
}
