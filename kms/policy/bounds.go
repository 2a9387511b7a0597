package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of what bounds a token.
const (
	MaxAncestors = 4  // tokens that a token descends from
	MaxNarrowing = 64 // entries of Caller.Actions, and of Caller.Resources
)

// narrowedToSystem stands in Caller.Resources for the installation itself. No
// namespace can be called so.
const narrowedToSystem = "system"

// InvalidNarrowing says what is wrong with a token's narrowing, and what to do.
type InvalidNarrowing struct {
	// Field is "actions" or "resources".
	Field   string
	Problem string
	Advice  string
}

// Error puts field, problem and advice into one line.
func (e *InvalidNarrowing) Error() string {
	return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Advice)
}

// CheckNarrowing reports why a token may not be narrowed so, as
// *InvalidNarrowing. actions are names of actions or roles; resources are
// namespaces, with all their keys ("payments"), single keys ("payments/card"), or
// the installation itself ("system"). Each has at most MaxNarrowing entries.
func CheckNarrowing(actions, resources []string) error {
	for field, entries := range map[string][]string{"actions": actions, "resources": resources} {
		if len(entries) > MaxNarrowing {
			return &InvalidNarrowing{field, fmt.Sprintf("%d entries, the limit is %d", len(entries), MaxNarrowing), "name roles or namespaces instead"}
		}
	}
	for _, name := range actions {
		if theModel().members[actionUID(name)] == 0 {
			problem, advice := unknownAction(actionUID(name))
			return &InvalidNarrowing{"actions", problem, advice}
		}
	}
	for _, name := range resources {
		namespace, key, isKey := strings.Cut(name, "/")
		if !validName.MatchString(namespace) || isKey && (!validName.MatchString(key) || namespace == narrowedToSystem) {
			return &InvalidNarrowing{"resources", fmt.Sprintf("%q is no resource", name), `write "namespace", "namespace/key", or "system" for the installation`}
		}
	}
	return nil
}

// Within reports, as *InvalidNarrowing, where a child's narrowing names what its
// parent's leaves out. A child that names nothing asks for nothing more: its
// parent bounds it all the same. Both must have passed CheckNarrowing.
func Within(child, parent *Caller) error {
	if allowed := actionsNamed(parent.Actions); len(parent.Actions) > 0 {
		for _, name := range child.Actions {
			if theModel().members[actionUID(name)]&^allowed != 0 {
				return beyondParent("actions", name, parent.Actions)
			}
		}
	}
	for _, name := range child.Resources {
		namespace, _, _ := strings.Cut(name, "/")
		if len(parent.Resources) > 0 && !slices.Contains(parent.Resources, name) && !slices.Contains(parent.Resources, namespace) {
			return beyondParent("resources", name, parent.Resources)
		}
	}
	return nil
}

func beyondParent(field, name string, allowed []string) error {
	return &InvalidNarrowing{field, fmt.Sprintf("%q is more than the token has that this one is made with", name),
		"name some of " + strings.Join(allowed, ", ")}
}

func actionsNamed(names []string) actionMask {
	var mask actionMask
	for _, name := range names {
		mask |= theModel().members[actionUID(name)]
	}
	return mask
}

// narrowed says why the caller's own narrowing does not let an action on a
// resource through; "" if it does.
func (c *Caller) narrowed(action *actionInfo, r *Resource) string {
	if len(c.Actions) > 0 && actionsNamed(c.Actions)&action.mask == 0 {
		return "the token is narrowed to the actions " + strings.Join(c.Actions, ", ")
	}
	if len(c.Resources) > 0 && !slices.ContainsFunc(c.Resources, r.isWithin) {
		return "the token is narrowed to the resources " + strings.Join(c.Resources, ", ")
	}
	return ""
}

// isWithin reports whether an entry of Caller.Resources names the resource or
// the namespace that holds it.
func (r *Resource) isWithin(entry string) bool {
	switch namespace, key, isKey := strings.Cut(entry, "/"); {
	case entry == narrowedToSystem:
		return r.kind() == onSystem
	case isKey:
		return r.Namespace == namespace && r.Key == key
	default:
		return r.Namespace == namespace
	}
}
