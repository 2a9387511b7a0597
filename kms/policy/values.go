package policy

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
)

// Limits of what an explanation quotes.
const (
	maxText   = 500 // characters of one text
	maxValues = 12  // values of one condition
)

func clip(text string) string {
	if runes := []rune(text); len(runes) > maxText {
		return string(runes[:maxText]) + "…"
	}
	return text
}

// values lists what an expression reads from the request, with its value. What
// has none, such as a tag that is not there, is left out.
func (c *judge) values(expression ast.IsNode) string {
	var found []string
	add := func(text string) {
		if !slices.Contains(found, text) && len(found) < maxValues {
			found = append(found, text)
		}
	}
	ast.Inspect(ast.NewNode(expression), func(node ast.IsNode) bool {
		if readFrom(node) != nil {
			if text, ok := c.reading(node); ok {
				add(text)
			}
			return !isVariable(readFrom(node))
		}
		if variable, ok := node.(ast.NodeTypeVariable); ok {
			add(c.variable(variable))
		}
		return true
	})
	return strings.Join(slices.DeleteFunc(found, func(text string) bool { return text == "" }), "; ")
}

func isVariable(node ast.IsNode) bool {
	_, ok := node.(ast.NodeTypeVariable)
	return ok
}

// variable tells what a variable that is not read from stands for.
func (c *judge) variable(v ast.NodeTypeVariable) string {
	switch v.Name {
	case "principal":
		return c.principal()
	case "action":
		return "the action is " + string(c.query.request.Action)
	case "resource":
		return "the resource is " + c.query.resource.String()
	default:
		return ""
	}
}

// reading returns what is read and its value, as in `resource.getTag("env") is
// "dev"`.
func (c *judge) reading(node ast.IsNode) (string, bool) {
	text, ok := c.notation(node)
	if !ok {
		return "", false
	}
	value, err := eval.Eval(node, c.env)
	if err != nil {
		return "", false
	}
	if uid, ok := value.(types.EntityUID); ok && uid.Type == typeEncryptionContext {
		return "", false
	}
	return clip(text) + " is " + clip(string(value.MarshalCedar())), true
}

// notation writes what is read as policies do.
func (c *judge) notation(node ast.IsNode) (string, bool) {
	switch n := node.(type) {
	case ast.NodeTypeVariable:
		return string(n.Name), true
	case ast.NodeTypeAccess:
		owner, ok := c.notation(n.Arg)
		return owner + "." + string(n.Value), ok
	case ast.NodeTypeHas:
		owner, ok := c.notation(n.Arg)
		return owner + " has " + string(n.Value), ok
	case ast.NodeTypeHasTag:
		return c.call(n.Left, "hasTag", n.Right)
	case ast.NodeTypeGetTag:
		return c.call(n.Left, "getTag", n.Right)
	default:
		return "", false
	}
}

// call writes a method with the value of its argument.
func (c *judge) call(owner ast.IsNode, method string, argument ast.IsNode) (string, bool) {
	text, ok := c.notation(owner)
	value, err := eval.Eval(argument, c.env)
	if !ok || err != nil {
		return "", false
	}
	return text + "." + method + "(" + string(value.MarshalCedar()) + ")", true
}
