package policy

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

// Validate reports why a policy may not be stored, as *InvalidPolicy: names and
// size, syntax, nesting, entities, actions and attributes that the schema does
// not know, attributes and tags used without having been checked for (`has`,
// `hasTag`), and a scope that leaves the namespace owning the policy. Whatever
// it accepts, NewSet compiles.
//
// What it accepts can still fail to evaluate in one way: arithmetic (on
// numbers, dates and durations) that overflows.
func Validate(p Policy) error {
	doc, invalid := parse(p)
	if invalid != nil {
		return invalid
	}
	for _, statement := range doc.statements {
		for _, check := range []func(*cedar.Policy) *InvalidPolicy{
			doc.checkScope, doc.checkConfinement, doc.checkLiterals, doc.checkTypes,
		} {
			if invalid := check(statement); invalid != nil {
				return invalid
			}
		}
	}
	return nil
}

// checkTypes checks the statement against the schema.
func (d *parsed) checkTypes(statement *cedar.Policy) *InvalidPolicy {
	policy, checker := tree(statement), theModel().checker
	err := checker.Policy("", policy)
	if err == nil {
		return nil
	}
	parts := d.parts(statement)
	for i, condition := range policy.Conditions {
		alone := *policy
		alone.Conditions = []ast.ConditionType{condition}
		if conditionErr := checker.Policy("", &alone); conditionErr != nil && i+1 < len(parts) {
			return d.typeError(conditionErr, parts[i+1])
		}
	}
	return d.typeError(err, parts[0])
}

// typeError reports the checker's first complaint about the given tokens, at
// the first of them that the complaint mentions.
func (d *parsed) typeError(err error, tokens []cedartext.Token) *InvalidPolicy {
	problem := slices.Min(messages(err))
	return d.invalid(mentioned(tokens, problem), problem, adviceFor(problem))
}

// perAction matches what makes one complaint many: the action supposed when it
// was found.
var perAction = regexp.MustCompile(` for Action::"[A-Za-z]*"`)

// messages returns the texts of all errors joined in err.
func messages(err error) []string {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []string{perAction.ReplaceAllString(err.Error(), "")}
	}
	var texts []string
	for _, each := range joined.Unwrap() {
		texts = append(texts, messages(each)...)
	}
	return texts
}

// quotedName matches the name that a complaint is about; of a path such as
// `a.b`, the last part.
var quotedName = regexp.MustCompile("`(?:[A-Za-z_]+\\.)*([^`]+)`")

// mentioned returns the token that the problem quotes, or the first of tokens.
func mentioned(tokens []cedartext.Token, problem string) cedartext.Token {
	if match := quotedName.FindStringSubmatch(problem); match != nil {
		return cedartext.Find(tokens, match[1])
	}
	return cedartext.Find(tokens, "")
}

// adviceFor says what to do about a complaint of the type checker, whose errors
// are only text. What is not recognised here is refused all the same, with
// general advice.
func adviceFor(problem string) string {
	for _, row := range []struct{ part, advice string }{
		{"access to tag", `check first, in the same condition: resource.hasTag("env") && resource.getTag("env") == "prod"`},
		{"optional attribute", "check first, in the same condition: context has source && context.source.isInRange(…)"},
		{"in context not found", "the context has time, source, method and encryptionContext, whose pairs are tags: context.encryptionContext.hasTag(…)"},
		{"on entity type `Namespace` not found", "the actions also apply to namespaces: begin with resource is Key && …; labels are tags: resource.hasTag(…)"},
		{"on entity type `System` not found", "the actions also apply to the installation: begin with resource is Key && …"},
		{"on entity type", "keys have name, purpose, algorithm, protection and exportable, namespaces name, principals name and trustDomain; labels are tags: resource.hasTag(…)"},
		{"applicable action", `no action in the scope applies to such a resource; a scope of resource in Namespace::"…" covers the namespace and its keys`},
		{"tag", "only keys and namespaces (their labels) and context.encryptionContext have tags, all strings"},
		{"empty set", "write at least one element"},
		{"failed to parse", `write it as in ip("10.0.0.0/8"), datetime("2026-01-31T08:00:00Z"), duration("1h30m"), decimal("0.5")`},
		{"non-literal", `give ip, datetime, duration and decimal a literal text, as in ip("10.0.0.0/8")`},
		{"wrong number of arguments", "give the function the arguments it takes"},
		{"not compatible", "compare values of one type only"},
		{"unexpected type", "use a value of the expected type; tags and attributes are strings, but exportable true or false, and context.time a datetime"},
	} {
		if strings.Contains(problem, row.part) {
			return row.advice
		}
	}
	return "see the schema for what exists"
}
