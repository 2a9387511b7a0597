package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

// scope is one part of a statement's scope in a uniform shape: what `==` or
// `in` names and what `is` demands. All are empty where anything matches.
type scope struct {
	eq, in types.EntityUID
	set    []types.EntityUID // action in […]
	is     types.EntityType
	inSet  bool
}

func scopeOf(node ast.IsScopeNode) scope {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return scope{eq: n.Entity}
	case ast.ScopeTypeIn:
		return scope{in: n.Entity}
	case ast.ScopeTypeInSet:
		return scope{set: n.Entities, inSet: true}
	case ast.ScopeTypeIs:
		return scope{is: n.Type}
	case ast.ScopeTypeIsIn:
		return scope{is: n.Type, in: n.Entity}
	default:
		return scope{}
	}
}

// named returns every entity the scope names.
func (s scope) named() []types.EntityUID {
	var uids []types.EntityUID
	for _, uid := range append([]types.EntityUID{s.eq, s.in}, s.set...) {
		if !uid.IsZero() {
			uids = append(uids, uid)
		}
	}
	return uids
}

func principalTypes() []types.EntityType {
	return []types.EntityType{types.EntityType(Workload), types.EntityType(User), types.EntityType(Token)}
}

// checkScope checks principal, action and resource of the scope, with better
// words than the type checker has.
func (d *parsed) checkScope(statement *cedar.Policy) *InvalidPolicy {
	policy, head := tree(statement), d.parts(statement)[0]
	if problem, advice := principalProblem(scopeOf(policy.Principal)); problem != "" {
		return d.invalid(scopeToken(head, "principal"), problem, advice)
	}
	if problem, advice := actionProblem(scopeOf(policy.Action)); problem != "" {
		return d.invalid(scopeToken(head, "action"), problem, advice)
	}
	if problem, advice := resourceProblem(scopeOf(policy.Resource)); problem != "" {
		return d.invalid(scopeToken(head, "resource"), problem, advice)
	}
	return nil
}

// scopeToken returns the word in the scope, which follows all annotations.
func scopeToken(head []cedartext.Token, word string) cedartext.Token {
	for i, t := range slices.Backward(head) {
		if t.Text == word && i > 0 && (head[i-1].Text == "(" || head[i-1].Text == ",") {
			return t
		}
	}
	return cedartext.Find(head, "")
}

const principalAdvice = `principals are Workload, User and Token, as in principal == Token::"app"; groups of them principal in Group::"ops"`

func principalProblem(s scope) (problem, advice string) {
	if s.is != "" && !slices.Contains(principalTypes(), s.is) {
		return fmt.Sprintf("unknown type of principal `%s`", s.is), principalAdvice
	}
	if !s.eq.IsZero() && !slices.Contains(principalTypes(), s.eq.Type) {
		return fmt.Sprintf("a principal cannot be equal to %s", s.eq), principalAdvice
	}
	if !s.in.IsZero() && s.in.Type != typeGroup && !slices.Contains(principalTypes(), s.in.Type) {
		return fmt.Sprintf("a principal cannot be in %s", s.in), principalAdvice
	}
	return firstEntityProblem(s.named())
}

func actionProblem(s scope) (problem, advice string) {
	if problem, advice := firstEntityProblem(s.named()); problem != "" {
		return problem, advice
	}
	if _, single := theModel().actions[Action(s.eq.ID)]; !s.eq.IsZero() && !single {
		return fmt.Sprintf("%s is a role, which no action is equal to", s.eq), fmt.Sprintf("write action in %s", s.eq)
	}
	if s.inSet && len(s.set) == 0 {
		return "an empty set of actions matches nothing", "name at least one action"
	}
	return "", ""
}

const resourceAdvice = `resources are Key::"namespace/key", Namespace::"namespace" and System::"keywright"`

func resourceProblem(s scope) (problem, advice string) {
	known := func(t types.EntityType) bool { return kindsByType()[t] != 0 }
	if s.is != "" && !known(s.is) {
		return fmt.Sprintf("unknown type of resource `%s`", s.is), resourceAdvice
	}
	for _, uid := range s.named() {
		if !known(uid.Type) {
			return fmt.Sprintf("%s is no resource", uid), resourceAdvice
		}
	}
	return firstEntityProblem(s.named())
}

// checkConfinement sees to it that a policy owned by a namespace names that
// namespace, or keys in it, as the resource of each statement.
func (d *parsed) checkConfinement(statement *cedar.Policy) *InvalidPolicy {
	owner := d.policy.Namespace
	if owner == "" || confined(scopeOf(tree(statement).Resource), owner) {
		return nil
	}
	return d.invalid(scopeToken(d.parts(statement)[0], "resource"),
		fmt.Sprintf("a policy owned by namespace %q must name it, or keys in it, as its resource", owner),
		fmt.Sprintf(`write resource in Namespace::%q, or resource == Key::"%s/…"`, owner, owner))
}

func confined(resource scope, owner string) bool {
	uids := resource.named()
	for _, uid := range uids {
		inside := uid.Type == typeKey && strings.HasPrefix(string(uid.ID), owner+"/")
		if uid != namespaceUID(owner) && !inside {
			return false
		}
	}
	return len(uids) > 0
}
