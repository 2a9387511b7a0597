package cedartext

import "fmt"

// Limits on a statement, so that no text can make the parser or the evaluator
// recurse without end, or the type checker, whose cost grows with the cube of
// the guards, take seconds. They are far above what people write.
const (
	maxNesting = 64 // brackets and ifs around an expression
	maxUnary   = 4  // ! or - in a row, as in the reference implementation
	maxChain   = 16 // dots in a row, as in a.b.c
	MaxGuards  = 16 // uses of has and hasTag

	MaxPolicyGuards = 256 // uses of has and hasTag in all statements together
)

// Limits says in words what the limits are.
func Limits() string {
	return fmt.Sprintf("a statement has at most %d brackets and ifs inside each other, %d signs or %d dots in a row, %d uses of has and hasTag (a policy %d)",
		maxNesting, maxUnary, maxChain, MaxGuards, MaxPolicyGuards)
}

// complexity counts what a statement has of each.
type complexity struct{ nesting, unary, chain, guards, policyGuards int }

func (c *complexity) excessive() bool {
	return c.nesting > maxNesting || c.unary > maxUnary || c.chain > maxChain ||
		c.guards > MaxGuards || c.policyGuards > MaxPolicyGuards
}

// TooComplex returns the first token that exceeds a limit, and whether there is one.
func TooComplex(tokens []Token) (Token, bool) {
	var c complexity
	for _, t := range tokens {
		c.count(t.Text)
		if c.excessive() {
			return t, true
		}
	}
	return Token{}, false
}

func (c *complexity) count(text string) {
	if text != "!" && text != "-" {
		c.unary = 0
	}
	switch text {
	case "(", "[", "{", "if":
		c.nesting++
	case ")", "]", "}":
		c.nesting--
	case "!", "-":
		c.unary++
	case ".":
		c.chain++
	case "has", "hasTag":
		c.guards++
		c.policyGuards++
	case "&&", "||", ",", "then", "else":
		c.chain = 0
	case ";":
		*c = complexity{policyGuards: c.policyGuards}
	}
}
