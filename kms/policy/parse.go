package policy

import (
	"fmt"
	"regexp"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

// parsed is a policy whose text is Cedar, not yet checked against the schema.
type parsed struct {
	policy     Policy
	tokens     []cedartext.Token
	statements []*cedar.Policy
}

// parse reads a policy's text and checks what needs no schema: names, size,
// nesting, syntax.
func parse(p Policy) (*parsed, *InvalidPolicy) {
	doc := &parsed{policy: p}
	if invalid := checkNames(p); invalid != nil {
		return nil, invalid
	}
	if len(p.Text) > MaxPolicySize {
		return nil, doc.invalid(cedartext.Token{}, fmt.Sprintf("text is %d bytes long, the limit is %d", len(p.Text), MaxPolicySize),
			"split it into several policies")
	}
	doc.tokens = cedartext.Tokenize(p.Text)
	if t, excessive := cedartext.TooComplex(doc.tokens); excessive {
		return nil, doc.invalid(t, "too complex: "+cedartext.Limits(), "simplify it or split it into several statements or policies")
	}
	var err error
	if doc.statements, err = cedar.NewPolicyListFromBytes("", []byte(p.Text)); err != nil {
		at, problem := cedartext.SyntaxError(p.Text, err)
		return nil, doc.invalid(at, problem, "write UTF-8 text with statements such as: permit (principal, action, resource) when { … };")
	}
	if len(doc.statements) == 0 {
		return nil, doc.invalid(cedartext.Token{}, "text holds no statement", `write one, such as: permit (principal == Token::"app", action in Action::"encrypter", resource in Namespace::"payments");`)
	}
	return doc, nil
}

// validName matches the names of policies, namespaces and keys.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

const nameAdvice = "use 1 to 63 of the characters A-Z a-z 0-9 . _ -, beginning with a letter or digit"

func checkNames(p Policy) *InvalidPolicy {
	if !validName.MatchString(p.Name) {
		return &InvalidPolicy{Name: p.ID(), Problem: fmt.Sprintf("name %q is not valid", p.Name), Advice: nameAdvice}
	}
	if p.Namespace != "" && !validName.MatchString(p.Namespace) {
		return &InvalidPolicy{Name: p.ID(), Problem: fmt.Sprintf("namespace %q is not valid", p.Namespace), Advice: nameAdvice}
	}
	return nil
}

// invalid reports a problem at the given token; the zero token is no place.
func (d *parsed) invalid(at cedartext.Token, problem, advice string) *InvalidPolicy {
	return &InvalidPolicy{Name: d.policy.ID(), Line: at.Line, Column: at.Column, Problem: problem, Advice: advice}
}

// parts returns the statement's tokens, head first, then one slice for each
// condition.
func (d *parsed) parts(statement *cedar.Policy) [][]cedartext.Token {
	return cedartext.Clauses(cedartext.Statement(d.tokens, statement.Position().Offset))
}

// tree returns the statement's syntax tree, which must not be modified.
func tree(statement *cedar.Policy) *ast.Policy { return (*ast.Policy)(statement.AST()) }
