package policy

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
)

// Limits of a group. MaxGroupBytes is of all members together.
const (
	MaxGroupMembers = 10_000
	MaxGroupBytes   = 320 << 10
)

// Group is a stored group of principals. Who is a member of it is in
// Group::"name" to policies, besides the groups that its credentials claim.
type Group struct {
	// Name is 1 to 63 of the characters A-Z a-z 0-9 . _ -, beginning with a letter
	// or digit.
	Name string
	// Members are principals as Caller.Principal writes them, such as
	// User::"corp:CN=alice", each once.
	Members []string
}

// InvalidGroup says what is wrong with a group, and what to do.
type InvalidGroup struct {
	Name string
	// Field is "name" or "members".
	Field   string
	Problem string
	Advice  string
}

// Error puts name, problem and advice into one line.
func (e *InvalidGroup) Error() string {
	return fmt.Sprintf("group %q: %s; %s", e.Name, e.Problem, e.Advice)
}

// CheckGroup reports why a group may not be stored, as *InvalidGroup.
func CheckGroup(g Group) error {
	size := 0
	for _, member := range g.Members {
		size += len(member)
	}
	invalid := func(field, advice, problem string, args ...any) error {
		return &InvalidGroup{Name: g.Name, Field: field, Problem: fmt.Sprintf(problem, args...), Advice: advice}
	}
	switch {
	case !validName.MatchString(g.Name):
		return invalid("name", nameAdvice, "name %q is not valid", g.Name)
	case len(g.Members) > MaxGroupMembers || size > MaxGroupBytes:
		return invalid("members", "use several groups", "it has %d members of %d bytes together, the limits are %d and %d",
			len(g.Members), size, MaxGroupMembers, MaxGroupBytes)
	}
	seen := make(map[string]bool, len(g.Members))
	for _, member := range g.Members {
		kind, id, err := ParsePrincipal(member)
		if err != nil {
			return invalid("members", principalText, "%s", err)
		}
		if canonical := (&Caller{Type: kind, ID: id}).Principal(); canonical != member {
			return invalid("members", "write it as "+canonical, "member %s is not written as principals are", member)
		}
		if seen[member] {
			return invalid("members", "name each member once", "%s is a member twice", member)
		}
		seen[member] = true
	}
	return nil
}

const principalText = `principals are written as in User::"corp:CN=alice", Workload::"prod:spiffe://corp/pay" and Token::"app"`

// ParsePrincipal takes a principal's Cedar text apart, as Caller.Principal
// writes it.
func ParsePrincipal(text string) (PrincipalType, string, error) {
	var uid types.EntityUID
	if !utf8.ValidString(text) || uid.UnmarshalCedar([]byte(text)) != nil || uid.ID == "" ||
		!slices.Contains(principalTypes(), uid.Type) {
		return "", "", fmt.Errorf("%q is no principal", text)
	}
	return PrincipalType(uid.Type), string(uid.ID), nil
}

// groups is the stored groups, by member and by name.
type groups struct {
	byMember map[types.EntityUID][]types.EntityUID
	members  map[types.EntityUID][]string
}

func newGroups(stored []Group) (*groups, error) {
	g := &groups{byMember: map[types.EntityUID][]types.EntityUID{}, members: map[types.EntityUID][]string{}}
	for _, group := range stored {
		if err := CheckGroup(group); err != nil {
			return nil, err
		}
		uid := groupUID(group.Name)
		g.members[uid] = group.Members
		for _, member := range group.Members {
			principal := principalUID(member)
			g.byMember[principal] = append(g.byMember[principal], uid)
		}
	}
	return g, nil
}

// principalUID is for a text that CheckGroup accepted.
func principalUID(text string) types.EntityUID {
	kind, id, _ := ParsePrincipal(text)
	return types.NewEntityUID(types.EntityType(kind), types.String(id))
}

// of returns the stored groups that a principal is in. The slice is shared.
func (g *groups) of(principal types.EntityUID) []types.EntityUID { return g.byMember[principal] }
