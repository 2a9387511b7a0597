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

// checkLiterals checks the entities that a statement's conditions mention: they
// must be possible, and nothing may be read from them, because a decision knows
// the attributes of nothing but its own principal and resource.
func (d *parsed) checkLiterals(statement *cedar.Policy) *InvalidPolicy {
	parts := d.parts(statement)
	for i, condition := range tree(statement).Conditions {
		problem, advice := literalProblem(condition.Body)
		if problem != "" {
			return d.invalid(cedartext.Find(parts[min(i+1, len(parts)-1)], ""), problem, advice)
		}
	}
	return nil
}

func literalProblem(body ast.IsNode) (problem, advice string) {
	ast.Inspect(ast.NewNode(body), func(node ast.IsNode) bool {
		if problem == "" {
			problem, advice = nodeProblem(node)
		}
		return problem == ""
	})
	return problem, advice
}

func nodeProblem(node ast.IsNode) (problem, advice string) {
	if source := readFrom(node); source != nil {
		if uids := entitiesIn(source); len(uids) > 0 {
			return fmt.Sprintf("attributes and tags of %s are not known", uids[0]),
				"read them from principal, resource or context"
		}
	}
	switch n := node.(type) {
	case ast.NodeTypeHas:
		return attributeProblem(n)
	case ast.NodeTypeHasTag:
		return tagProblem(n.Left)
	case ast.NodeTypeLessThan:
		return comparisonProblem(n.BinaryNode)
	case ast.NodeTypeLessThanOrEqual:
		return comparisonProblem(n.BinaryNode)
	case ast.NodeTypeGreaterThan:
		return comparisonProblem(n.BinaryNode)
	case ast.NodeTypeGreaterThanOrEqual:
		return comparisonProblem(n.BinaryNode)
	case ast.NodeTypeIs:
		return typeProblem(n.EntityType)
	case ast.NodeTypeIsIn:
		return typeProblem(n.EntityType)
	case ast.NodeValue:
		if uid, ok := n.Value.(types.EntityUID); ok {
			return entityProblem(uid)
		}
	}
	return "", ""
}

// typeProblem refuses an `is` that nothing can satisfy, which the type checker
// lets pass as merely false.
func typeProblem(t types.EntityType) (problem, advice string) {
	if slices.Contains(principalTypes(), t) || kindsByType()[t] != 0 {
		return "", ""
	}
	return fmt.Sprintf("no principal and no resource is of type `%s`", t), principalAdvice + "; " + resourceAdvice
}

// attributeProblem refuses a `has` that is always false, which the type checker
// lets pass: most likely a label is meant.
func attributeProblem(n ast.NodeTypeHas) (problem, advice string) {
	known := map[types.String][]types.String{
		"principal": {"name", "trustDomain"},
		"resource":  {"name", "purpose", "algorithm", "protection", "exportable"},
		"context":   {"time", "source", "method", "encryptionContext"},
		"action":    {},
	}
	variable, ok := n.Arg.(ast.NodeTypeVariable)
	if !ok || slices.Contains(known[variable.Name], n.Value) {
		return "", ""
	}
	return fmt.Sprintf("%s never has an attribute `%s`", variable.Name, n.Value),
		fmt.Sprintf("labels are tags: resource.hasTag(%q); so are the pairs of context.encryptionContext", n.Value)
}

// tagProblem refuses to ask a principal for tags, which is always false.
func tagProblem(owner ast.IsNode) (problem, advice string) {
	if variable, ok := owner.(ast.NodeTypeVariable); !ok || variable.Name != "principal" {
		return "", ""
	}
	return "a principal has no tags", `use principal in Group::"…", principal.name or principal.trustDomain`
}

// comparisonProblem refuses to order values of different types. The type
// checker only sees to it that each of them has an order.
func comparisonProblem(n ast.BinaryNode) (problem, advice string) {
	left, right := orderedType(n.Left), orderedType(n.Right)
	if left == right {
		return "", ""
	}
	return fmt.Sprintf("a value of type %s is compared with one of type %s", left, right), "compare values of one type only"
}

// orderedType returns the type of an expression that has an order, given that
// the type checker accepts it: of all there is to read, only context.time
// has. Literal records, which nobody needs, are taken for it.
func orderedType(node ast.IsNode) string {
	switch n := node.(type) {
	case ast.NodeTypeIfThenElse:
		return orderedType(n.Then)
	case ast.NodeTypeAccess:
		return "datetime"
	case ast.NodeTypeExtensionCall:
		switch n.Name {
		case "datetime", "offset", "toDate":
			return "datetime"
		case "duration", "durationSince", "toTime":
			return "duration"
		}
	}
	return "Long"
}

// readFrom returns the expression that a node reads an attribute or tag of, nil
// if it does not.
func readFrom(node ast.IsNode) ast.IsNode {
	switch n := node.(type) {
	case ast.NodeTypeAccess:
		return n.Arg
	case ast.NodeTypeGetTag:
		return n.Left
	case ast.NodeTypeHas:
		return n.Arg
	case ast.NodeTypeHasTag:
		return n.Left
	default:
		return nil
	}
}

func entitiesIn(node ast.IsNode) []types.EntityUID {
	var uids []types.EntityUID
	ast.Inspect(ast.NewNode(node), func(inner ast.IsNode) bool {
		if value, ok := inner.(ast.NodeValue); ok {
			if uid, ok := value.Value.(types.EntityUID); ok {
				uids = append(uids, uid)
			}
		}
		return true
	})
	return uids
}

func firstEntityProblem(uids []types.EntityUID) (problem, advice string) {
	for _, uid := range uids {
		if problem, advice = entityProblem(uid); problem != "" {
			return problem, advice
		}
	}
	return "", ""
}

// entityProblem says why no such entity can exist.
func entityProblem(uid types.EntityUID) (problem, advice string) {
	id := string(uid.ID)
	switch uid.Type {
	case typeAction:
		return unknownAction(uid)
	case typeSystem:
		if uid != systemUID() {
			return fmt.Sprintf("%s does not exist", uid), fmt.Sprintf("the installation is %s", systemUID())
		}
	case typeNamespace:
		if !validName.MatchString(id) {
			return fmt.Sprintf("%s cannot exist", uid), nameAdvice
		}
	case typeKey:
		namespace, key, _ := strings.Cut(id, "/")
		if !validName.MatchString(namespace) || !validName.MatchString(key) {
			return fmt.Sprintf("%s cannot exist", uid), `write Key::"namespace/key"`
		}
	default:
		if !slices.Contains(append(principalTypes(), typeGroup), uid.Type) {
			return fmt.Sprintf("unknown entity type `%s`", uid.Type), principalAdvice + "; " + resourceAdvice
		}
		if id == "" {
			return fmt.Sprintf("%s has no id", uid), "name one, or write principal is " + string(uid.Type)
		}
	}
	return "", ""
}

func unknownAction(uid types.EntityUID) (problem, advice string) {
	members := theModel().members
	if members[uid] != 0 {
		return "", ""
	}
	for known := range members {
		if strings.EqualFold(string(known.ID), string(uid.ID)) {
			return fmt.Sprintf("unknown action %s", uid), fmt.Sprintf("names are case-sensitive: write %s", known)
		}
	}
	return fmt.Sprintf("unknown action %s", uid), "roles are " + strings.Join(roleNames(), ", ") + "; for the actions see the schema"
}

func roleNames() []string {
	var names []string
	for _, row := range roleTable() {
		names = append(names, row.role)
	}
	return names
}
