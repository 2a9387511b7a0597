package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

// part is a part of a statement: of its scope, or, from partCondition on, one of
// its conditions.
type part int

const (
	partPrincipal part = iota
	partAction
	partResource
	partCondition
	partNone part = -1
)

// judge evaluates statements part by part for one query.
type judge struct {
	query *query
	env   eval.Env
}

func newJudge(q *query) *judge {
	request := q.cedarRequest(reads{context: true})
	return &judge{q, eval.Env{Entities: q.entities(reads{context: true, attributes: true}),
		Principal: request.Principal, Action: request.Action, Resource: request.Resource, Context: request.Context}}
}

// judgement is what became of a statement.
type judgement struct {
	statement *statement
	failed    part  // the first that did not hold; partNone if all did
	err       error // why that one could not be evaluated
	failures  int   // parts that did not hold
	scope     int   // those of them that are of the scope
}

func (j judgement) result() Result {
	switch {
	case j.err != nil:
		return Erred
	case j.failed != partNone:
		return NotApplied
	case j.statement.forbids():
		return Forbade
	default:
		return Permitted
	}
}

// rank orders statements by how telling they are: what decided, then what failed
// by a condition, then what is about another action, resource or principal.
func (j judgement) rank() int {
	decided := map[Result]int{Forbade: 0, Permitted: 2}
	switch result := j.result(); {
	case result == Erred && j.statement.forbids():
		return 1
	case result == Erred:
		return 3
	case result != NotApplied:
		return decided[result]
	}
	switch j.failed {
	case partAction:
		return 1000
	case partResource:
		return 1001
	case partPrincipal:
		if j.statement.principal.Type == typeGroup { // who is in it can change
			return 1002
		}
		return 1003
	default:
		return 3 + j.failures
	}
}

// judge evaluates each part by itself. As in a decision, what comes after a part
// that did not hold cannot make a statement err.
func (c *judge) judge(s *statement) judgement {
	j := judgement{statement: s, failed: partNone}
	for i := range partCondition + part(len(tree(s.cedar).Conditions)) {
		holds, err := c.evaluate(partOf(tree(s.cedar), i))
		if holds && err == nil {
			continue
		}
		if i < partCondition {
			j.scope++
		}
		if j.failures++; j.failed == partNone {
			j.failed, j.err = i, err
		}
	}
	return j
}

func (c *judge) evaluate(p *ast.Policy) (bool, error) {
	value, err := eval.Eval(eval.PolicyToNode(p).AsIsNode(), c.env)
	holds, ok := value.(types.Boolean)
	if err == nil && !ok {
		err = fmt.Errorf("the condition is no boolean")
	}
	return bool(holds), err
}

// partOf returns a statement with one part of p alone.
func partOf(p *ast.Policy, which part) *ast.Policy {
	alone := ast.Permit()
	switch which {
	case partPrincipal:
		alone.Principal = p.Principal
	case partAction:
		alone.Action = p.Action
	case partResource:
		alone.Resource = p.Resource
	default:
		alone.Conditions = p.Conditions[which-partCondition : which-partCondition+1]
	}
	return alone
}

// describe puts a judgement into words.
func (c *judge) describe(j judgement) Considered {
	s := j.statement
	told := Considered{Namespace: s.policy.Namespace, Name: s.policy.Name, Line: s.cedar.Position().Line, Effect: s.effect(), Result: j.result()}
	if j.failed == partNone {
		return told
	}
	failed := s.clause(j.failed)
	if j.failed >= partCondition {
		told.FailedPart = failed[0].Text
		failed, told.Detail = c.condition(tree(s.cedar).Conditions[j.failed-partCondition], failed)
	} else {
		told.FailedPart, told.Detail = c.scope(j.failed)
	}
	told.FailedText, told.FailedLine = clip(cedartext.Text(failed)), cedartext.Find(failed, "").Line
	if j.err != nil {
		told.Detail = clip(j.err.Error())
	}
	return told
}

func (s *statement) effect() string {
	if s.forbids() {
		return "forbid"
	}
	return "permit"
}

// clause returns the tokens of a part.
func (s *statement) clause(which part) []cedartext.Token {
	parts := cedartext.Clauses(cedartext.Statement(cedartext.Tokenize(s.policy.Text), s.cedar.Position().Offset))
	principal, action, resource := cedartext.Scope(parts[0])
	return append([][]cedartext.Token{principal, action, resource}, parts[1:]...)[which]
}

// scope says what the query has where a part of a scope did not match.
func (c *judge) scope(which part) (name, detail string) {
	switch which {
	case partPrincipal:
		return "principal", c.principal()
	case partAction:
		return "action", "the action is " + string(c.query.request.Action) + ", of " + strings.Join(c.roles(), ", ")
	default:
		return "resource", "the resource is " + c.query.resource.String()
	}
}

// maxListed is how many groups of a principal are listed.
const maxListed = 10

func (c *judge) principal() string {
	text := "the principal is " + clip(c.query.principal.String())
	groups := c.query.groups
	if len(groups) == 0 {
		return text + ", in no group"
	}
	var names []string
	for _, group := range groups[:min(len(groups), maxListed)] {
		names = append(names, group.String())
	}
	if more := len(groups) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return text + ", in " + strings.Join(names, ", ")
}

func (c *judge) roles() []string {
	var names []string
	for role := range c.query.action.entity.Parents.All() {
		names = append(names, role.String())
	}
	if len(names) == 0 {
		return []string{"no role"}
	}
	slices.Sort(names)
	return names
}

// condition narrows a `when` down to the first of its conjuncts that did not
// hold, where there are several, and tells what that looked at.
func (c *judge) condition(condition ast.ConditionType, clause []cedartext.Token) (failed []cedartext.Token, detail string) {
	body := cedartext.Body(clause)
	nodes, texts := conjuncts(condition.Body), cedartext.Conjuncts(body)
	if condition.Condition != ast.ConditionWhen || len(nodes) != len(texts) {
		return body, c.values(condition.Body)
	}
	for i, node := range nodes {
		if holds, err := c.evaluate(ast.Permit().When(ast.NewNode(node))); !holds || err != nil {
			return texts[i], c.values(node)
		}
	}
	return body, c.values(condition.Body)
}

// conjuncts takes `a && b && c` apart.
func conjuncts(node ast.IsNode) []ast.IsNode {
	if and, ok := node.(ast.NodeTypeAnd); ok {
		return append(conjuncts(and.Left), and.Right)
	}
	return []ast.IsNode{node}
}
