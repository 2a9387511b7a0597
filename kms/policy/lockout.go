package policy

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// Governed reports whether somebody could still put policies on a resource, the
// installation or a namespace: whether a statement permits it to a principal, to a
// stored group that has a member, or to a whole type, and nothing forbids it
// whatever else holds. A condition on what only a request knows could hold. Groups
// that credentials claim count for nobody, since who claims them cannot be known;
// bearers of tokens count where somebody else could create tokens.
func (s *Set) Governed(resource *Resource) bool {
	others := []types.EntityType{types.EntityType(User), types.EntityType(Workload)}
	tokens := []types.EntityType{types.EntityType(Token)}
	return s.anyoneCould(PutPolicy, resource, others) ||
		s.anyoneCould(PutPolicy, resource, tokens) && s.anyoneCould(CreateToken, &Resource{}, others)
}

// anyoneCould looks for a principal of one of the types that could do the action.
func (s *Set) anyoneCould(name Action, resource *Resource, of []types.EntityType) bool {
	action := theModel().actions[name]
	for _, each := range s.ordered {
		if each.forbids() || each.actions&action.mask == 0 {
			continue
		}
		for _, principal := range s.supposed(scopeOf(tree(each.cedar).Principal), of) {
			if s.could(principal, name, action, resource) {
				return true
			}
		}
	}
	return false
}

// supposed returns the principals that a scope stands for. One without an id is
// any of its type.
func (s *Set) supposed(scope scope, of []types.EntityType) []types.EntityUID {
	var all []types.EntityUID
	switch named := scope.named(); {
	case len(named) == 0:
		for _, kind := range of {
			all = append(all, types.EntityUID{Type: kind})
		}
	case named[0].Type == typeGroup:
		for _, member := range s.groups.members[named[0]] {
			all = append(all, principalUID(member))
		}
	default:
		all = named
	}
	return slices.DeleteFunc(all, func(uid types.EntityUID) bool {
		return !slices.Contains(of, uid.Type) || scope.is != "" && scope.is != uid.Type
	})
}

// could evaluates what concerns the principal as far as that goes without a
// request.
func (s *Set) could(principal types.EntityUID, name Action, action *actionInfo, resource *Resource) bool {
	caller := &Caller{Type: PrincipalType(principal.Type), ID: string(principal.ID)}
	q := s.query(&Request{Caller: caller, Action: name, Resource: resource}, caller, action)
	env, permitted := q.openEnvironment(), false
	for _, each := range s.candidates(q).statements {
		rest, kept := eval.PartialPolicy(env, tree(each.cedar))
		switch {
		case !kept:
		case each.forbids():
			if len(rest.Conditions) == 0 || errs(rest) {
				return false
			}
		case !errs(rest):
			permitted = true
		}
	}
	return permitted
}

// openEnvironment is one in which nothing is known of the context, of the
// principal's trust domain and, where it has no id, of the principal.
func (q *query) openEnvironment() eval.Env {
	all := q.entities(reads{attributes: true})
	all.principal.Attributes = types.NewRecord(types.RecordMap{"name": q.principal.ID, "trustDomain": eval.Variable("trustDomain")})
	env := eval.Env{Entities: all, Principal: q.principal, Action: q.action.entity.UID, Resource: q.resource, Context: eval.Variable("context")}
	if q.principal.ID == "" {
		env.Principal = eval.Variable("principal")
	}
	return env
}

// errs reports whether all that is left of a statement is an error.
func errs(rest *ast.Policy) bool {
	if len(rest.Conditions) != 1 {
		return false
	}
	_, is := eval.ToPartialError(rest.Conditions[0].Body)
	return is
}
