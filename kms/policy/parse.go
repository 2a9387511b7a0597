package policy

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// parsed is a policy whose text is Cedar, not yet checked against the schema.
type parsed struct {
	policy     Policy
	tokens     []token
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
		return nil, doc.invalid(token{}, fmt.Sprintf("text is %d bytes long, the limit is %d", len(p.Text), MaxPolicySize),
			"split it into several policies")
	}
	doc.tokens = tokenize(p.Text)
	if t, complex := tooComplex(doc.tokens); complex {
		return nil, doc.invalid(t, fmt.Sprintf("too complex: a statement has at most %d brackets and ifs inside each other, %d signs or %d dots in a row, %d uses of has and hasTag",
			maxNesting, maxUnary, maxChain, maxGuards), "simplify it or split it into several statements")
	}
	var err error
	if doc.statements, err = cedar.NewPolicyListFromBytes("", []byte(p.Text)); err != nil {
		return nil, doc.syntaxError(err)
	}
	if len(doc.statements) == 0 {
		return nil, doc.invalid(token{}, "text holds no statement", `write one, such as: permit (principal == Token::"app", action in Action::"encrypter", resource in Namespace::"payments");`)
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
func (d *parsed) invalid(at token, problem, advice string) *InvalidPolicy {
	return &InvalidPolicy{Name: d.policy.ID(), Line: at.line, Column: at.column, Problem: problem, Advice: advice}
}

// parts returns the statement's tokens, head first, then one slice for each
// condition.
func (d *parsed) parts(statement *cedar.Policy) [][]token {
	return clauses(statementTokens(d.tokens, statement.Position().Offset))
}

// tree returns the statement's syntax tree, which must not be modified.
func tree(statement *cedar.Policy) *ast.Policy { return (*ast.Policy)(statement.AST()) }

// cedar-go's parser has no typed errors: the place of a problem is only in the
// text. These patterns take it apart for display; what they do not recognise
// is shown as it is.
var (
	placedError = regexp.MustCompile(`(?s)(parse error at )?<input>:(\d+):(\d+)(?: "(?:[^"\\]|\\.)*")?: (.*)$`)
	wantedError = regexp.MustCompile(`(?s)^(?:exact )?got (.*) want (.*)$`)
	namingError = regexp.MustCompile("(?s)^(?:unexpected effect: |duplicate key: |`)([^`]*)")
)

const syntaxAdvice = `a statement reads: permit (principal, action, resource) when { … };`

func (d *parsed) syntaxError(err error) *InvalidPolicy {
	if !utf8.ValidString(d.policy.Text) {
		return d.invalid(d.firstInvalidByte(), "text is not valid UTF-8", "save it as UTF-8")
	}
	match := placedError.FindStringSubmatch(err.Error())
	if match == nil {
		problem := strings.TrimPrefix(err.Error(), "parser error: ")
		return d.invalid(d.failingStatement(), "cannot read: "+problem, syntaxAdvice)
	}
	at, problem := token{line: number(match[2]), column: number(match[3])}, match[4]
	if fromScanner := match[1] == ""; fromScanner {
		return d.invalid(at, "cannot read: "+problem, syntaxAdvice)
	}
	if wanted := wantedError.FindStringSubmatch(problem); wanted != nil {
		return d.invalid(d.culprit(at, wanted[1]), fmt.Sprintf("expected %s but found %s", quote(wanted[2]), quote(wanted[1])), syntaxAdvice)
	}
	name := ""
	if naming := namingError.FindStringSubmatch(problem); naming != nil {
		name = naming[1]
	}
	return d.invalid(d.culprit(at, name), "cannot read: "+problem, syntaxAdvice)
}

// quote shows a token; the parser's word for the end of the text is nothing.
func quote(text string) string {
	if text == "" {
		return "the end of the text"
	}
	return strconv.Quote(text)
}

// number reads digits, with which positions are written from 1.
func number(digits string) int {
	n, _ := strconv.Atoi(digits) // the pattern lets only digits through
	return max(n, 1)
}

// culprit returns the token a parse error is about: the last one so named, or
// else the last one read. The parser reports the place of the one after it.
func (d *parsed) culprit(at token, name string) token {
	read := len(d.tokens)
	for i, t := range d.tokens {
		if t.line == at.line && t.column == at.column {
			read = i
		}
	}
	if name == "" && read == len(d.tokens) {
		return at
	}
	for _, t := range slices.Backward(d.tokens[:min(read+1, len(d.tokens))]) {
		if t.text == name {
			return t
		}
	}
	return d.tokens[max(read-1, 0)]
}

// firstInvalidByte returns where the text stops being UTF-8.
func (d *parsed) firstInvalidByte() token {
	s := &scanner{text: d.policy.Text, line: 1, column: 1}
	for s.offset < len(s.text) {
		r, size := utf8.DecodeRuneInString(s.rest())
		if r == utf8.RuneError && size == 1 {
			break
		}
		s.advance(size)
	}
	return token{offset: s.offset, line: s.line, column: s.column}
}

// failingStatement returns the beginning of the first statement that does not
// parse.
func (d *parsed) failingStatement() token {
	decoder, start := cedar.NewDecoder(bytes.NewReader([]byte(d.policy.Text))), 0
	for {
		var statement cedar.Policy
		if decoder.Decode(&statement) != nil {
			break
		}
		start += len(statementTokens(d.tokens[start:], statement.Position().Offset))
	}
	return find(d.tokens[min(start, max(len(d.tokens)-1, 0)):], "")
}
