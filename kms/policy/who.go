package policy

import (
	"errors"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/eval"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

// ErrNotApplicable is returned by WhoMay for an action that cannot be asked of
// such a resource.
var ErrNotApplicable = errors.New("the action does not apply to this kind of resource")

// Grant says of some that they may do something to a resource, by one statement.
type Grant struct {
	// Who is a principal as Cedar text, a group (`Group::"ops"`, `every User in
	// Group::"ops"`), a type ("every Token") or "everyone".
	Who string
	// Members are those of a stored group, in its order. The slice is shared.
	Members []string
	// Statement has no Result.
	Statement Considered
	// Conditions must hold too, as written: `when { … }`, `unless { … }`.
	Conditions []string
}

// WhoMay returns who may do an action to a resource as it is, and the statements
// that forbid it to some of them; those tell in Detail to whom, and when. A
// statement whose conditions cannot hold for this resource is left out.
func (s *Set) WhoMay(name Action, resource *Resource) (grants []Grant, exceptions []Considered, err error) {
	action := theModel().actions[name]
	if action == nil {
		return nil, nil, ErrUnknownAction
	}
	if action.on&resource.kind() == 0 {
		return nil, nil, ErrNotApplicable
	}
	r := &Request{Action: name, Resource: resource}
	resources := s.query(r, &Caller{}, action).resourceTerms()
	for _, each := range s.ordered {
		if each.actions&action.mask == 0 || !slices.Contains(resources, each.resource) {
			continue
		}
		found, applies := s.whom(r, action, each)
		switch {
		case applies && each.forbids():
			found.Statement.Detail = strings.Join(append([]string{found.Who}, found.Conditions...), " ")
			exceptions = append(exceptions, found.Statement)
		case applies:
			grants = append(grants, found)
		}
	}
	return grants, exceptions, nil
}

// whom says to whom a statement applies, and false if it cannot to anyone.
func (s *Set) whom(r *Request, action *actionInfo, of *statement) (Grant, bool) {
	scope := scopeOf(tree(of.cedar).Principal)
	env := s.query(r, &Caller{}, action).openEnvironment() // of whoever asks, what it claims is not known
	found := Grant{Who: scope.who(), Members: s.membersIn(scope),
		Statement: Considered{Namespace: of.policy.Namespace, Name: of.policy.Name, Line: of.cedar.Position().Line, Effect: of.effect()}}
	for i := range partCondition + part(len(tree(of.cedar).Conditions)) {
		rest, kept := eval.PartialPolicy(env, partOf(tree(of.cedar), i))
		if !kept || errs(rest) && !of.forbids() {
			return Grant{}, false
		}
		if i >= partCondition && len(rest.Conditions) > 0 {
			found.Conditions = append(found.Conditions, clip(cedartext.Text(withoutEnd(of.clause(i)))))
		}
	}
	return found, true
}

// withoutEnd leaves the semicolon out that ends a statement.
func withoutEnd(clause []cedartext.Token) []cedartext.Token {
	if n := len(clause); n > 0 && clause[n-1].Text == ";" {
		return clause[:n-1]
	}
	return clause
}

// who writes a principal scope for people.
func (s scope) who() string {
	named := s.named()
	switch {
	case len(named) == 0 && s.is == "":
		return "everyone"
	case len(named) == 0:
		return "every " + string(s.is)
	case s.is != "" && named[0].Type == typeGroup:
		return "every " + string(s.is) + " in " + named[0].String()
	default:
		return named[0].String()
	}
}

// membersIn returns the members of the stored group that a scope names.
func (s *Set) membersIn(scope scope) []string {
	members := s.groups.members[scope.in]
	if scope.is == "" {
		return members
	}
	return slices.DeleteFunc(slices.Clone(members), func(member string) bool { return principalUID(member).Type != scope.is })
}

// LooksAt reports what the statements that can apply to a request look at beyond
// who asks what of which resource: its context (time, source, method and
// encryption context), and attributes or labels of principal or resource.
func (s *Set) LooksAt(r *Request) (context, attributes bool) {
	action, refusal := precheck(r)
	if refusal != "" {
		return false, false
	}
	var all reads
	for caller := r.Caller; caller != nil; caller = caller.Parent {
		all = all.or(s.candidates(s.query(r, caller, action)).reads)
	}
	return all.context, all.attributes
}
