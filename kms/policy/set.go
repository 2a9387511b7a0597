package policy

import (
	"strconv"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// Set is all policies and groups in force at one revision, compiled. It never
// changes, and may be used by any number of goroutines at once.
type Set struct {
	revision   uint64
	groups     *groups
	index      index
	statements map[types.PolicyID]*statement
	ordered    []*statement            // as the policies were given
	byPolicy   map[string][]*statement // by the policy's ID
	cache      *cache
}

// statement is one compiled Cedar statement of a policy.
type statement struct {
	id       types.PolicyID // unique in the Set
	policyID string
	policy   *Policy
	cedar    *cedar.Policy
	actions  actionMask // those its scope lets through
	reads    reads
	// The index's terms: see there.
	resource, principal types.EntityUID
}

func (s *statement) forbids() bool { return s.cedar.Effect() == cedar.Forbid }

// reads is what statements look at beyond the identity of principal, action and
// resource.
type reads struct {
	context    bool
	attributes bool // of principal or resource, tags included
}

func (r reads) or(other reads) reads {
	return reads{r.context || other.context, r.attributes || other.attributes}
}

// index finds the statements whose scope can match: by the entity that their
// resource scope names, then by the one that their principal scope names. The
// zero UID stands for a scope that names none, a UID without id for a type. It
// only narrows: each statement found is still evaluated whole.
type index map[types.EntityUID]map[types.EntityUID][]*statement

func (x index) add(s *statement) {
	if x[s.resource] == nil {
		x[s.resource] = map[types.EntityUID][]*statement{}
	}
	x[s.resource][s.principal] = append(x[s.resource][s.principal], s)
}

func principalTerm(s scope) types.EntityUID {
	switch {
	case !s.eq.IsZero():
		return s.eq
	case !s.in.IsZero():
		return s.in
	default:
		return types.EntityUID{Type: s.is}
	}
}

// resourceTerm leaves statements about the installation or a type of resource
// unscoped: they are few.
func resourceTerm(s scope) types.EntityUID {
	for _, uid := range s.named() {
		if uid.Type != typeSystem {
			return uid
		}
	}
	return types.EntityUID{}
}

// NewSet compiles the policies and groups in force; revision names their state
// and is carried by every decision. It fails with *InvalidPolicy on the first
// policy that does not parse, leaves the namespace that owns it, or shares its
// name with another, and with *InvalidGroup on a group that CheckGroup refuses.
// It does not repeat Validate's check against the schema: what was stored under
// an older schema goes on being enforced.
func NewSet(revision uint64, policies []Policy, stored []Group) (*Set, error) {
	return (*Set)(nil).Next(revision, policies, stored)
}

// Next is NewSet for policies of which most are those of s: only what differs is
// compiled, so that a change costs little however many policies there are. s stays as it
// is.
func (s *Set) Next(revision uint64, policies []Policy, stored []Group) (*Set, error) {
	groups, err := newGroups(stored)
	if err != nil {
		return nil, err
	}
	next := &Set{
		revision:   revision,
		groups:     groups,
		index:      index{},
		statements: make(map[types.PolicyID]*statement, len(policies)),
		ordered:    make([]*statement, 0, len(policies)),
		byPolicy:   make(map[string][]*statement, len(policies)),
		cache:      newCache(),
	}
	for _, p := range policies {
		if next.byPolicy[p.ID()] != nil {
			return nil, &InvalidPolicy{Name: p.ID(), Problem: "two policies have this name", Advice: "rename one of them"}
		}
		compiled := s.compiled(p)
		if compiled == nil {
			var invalid *InvalidPolicy
			if compiled, invalid = compilePolicy(p); invalid != nil {
				return nil, invalid
			}
		}
		next.add(p.ID(), compiled)
	}
	return next, nil
}

// compiled returns the statements of a policy if the very same is in the Set.
func (s *Set) compiled(p Policy) []*statement {
	if s == nil {
		return nil
	}
	found := s.byPolicy[p.ID()]
	if len(found) == 0 || *found[0].policy != p {
		return nil
	}
	return found
}

func (s *Set) add(id string, compiled []*statement) {
	s.byPolicy[id] = compiled
	for _, each := range compiled {
		s.statements[each.id] = each
		s.ordered = append(s.ordered, each)
		s.index.add(each)
	}
}

// Revision returns the revision the Set was made with.
func (s *Set) Revision() uint64 { return s.revision }

// Apart returns a Set that decides alike but remembers its decisions apart, so
// that a great many questions do not displace those that matter.
func (s *Set) Apart() *Set {
	apart := *s
	apart.cache = newCache()
	return &apart
}

// compilePolicy makes a policy's statements, of which it has at least one.
func compilePolicy(p Policy) (compiled []*statement, invalid *InvalidPolicy) {
	doc, invalid := parse(p)
	if invalid != nil {
		return nil, invalid
	}
	for i, each := range doc.statements {
		if invalid := doc.checkConfinement(each); invalid != nil {
			return nil, invalid
		}
		scoped := tree(each)
		compiled = append(compiled, &statement{
			id:        types.PolicyID(p.ID() + "#" + strconv.Itoa(i)),
			policyID:  p.ID(),
			policy:    &p,
			cedar:     each,
			actions:   maskOf(scopeOf(scoped.Action)),
			reads:     readsOf(scoped),
			resource:  resourceTerm(scopeOf(scoped.Resource)),
			principal: principalTerm(scopeOf(scoped.Principal)),
		})
	}
	return compiled, nil
}

// maskOf returns the actions that an action scope lets through.
func maskOf(s scope) actionMask {
	if len(s.named()) == 0 && !s.inSet {
		return ^actionMask(0)
	}
	var mask actionMask
	for _, uid := range s.named() {
		mask |= theModel().members[uid]
	}
	return mask
}

// readsOf finds out what the statement's conditions look at.
func readsOf(policy *ast.Policy) reads {
	var found reads
	for _, condition := range policy.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(node ast.IsNode) bool {
			if variable, ok := node.(ast.NodeTypeVariable); ok && variable.Name == "context" {
				found.context = true
			}
			found.attributes = found.attributes || readFrom(node) != nil
			return true
		})
	}
	return found
}

// candidates are the statements that can apply to one request.
type candidates struct {
	statements []*statement
	reads      reads
}

// candidates returns the statements whose scope can match the request. The
// action must be known.
func (s *Set) candidates(q *query) candidates {
	var found candidates
	principals := q.principalTerms()
	for _, resource := range q.resourceTerms() {
		byPrincipal := s.index[resource]
		if len(byPrincipal) == 0 {
			continue
		}
		for _, principal := range principals {
			found.add(byPrincipal[principal], q.action.mask)
		}
	}
	return found
}

func (c *candidates) add(statements []*statement, action actionMask) {
	for _, s := range statements {
		if s.actions&action != 0 {
			c.statements = append(c.statements, s)
			c.reads = c.reads.or(s.reads)
		}
	}
}
