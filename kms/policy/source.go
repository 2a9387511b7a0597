package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is one word of a policy's text and where it stands. cedar-go keeps no
// positions below a whole statement; these serve to point at a problem and to
// bound nesting before the text is parsed, never to decide anything.
type token struct {
	text         string
	offset       int // in bytes
	line, column int // from 1, column in characters
}

// scanner splits Cedar text into tokens. It accepts any text.
type scanner struct {
	text         string
	offset       int
	line, column int
}

func tokenize(text string) []token {
	s := &scanner{text: text, line: 1, column: 1}
	var tokens []token
	for {
		s.skipBlank()
		if s.offset == len(text) {
			return tokens
		}
		start := token{offset: s.offset, line: s.line, column: s.column}
		s.advance(s.tokenLength())
		start.text = text[start.offset:s.offset]
		tokens = append(tokens, start)
	}
}

func (s *scanner) rest() string { return s.text[s.offset:] }

// advance moves over n bytes, keeping count of lines and characters.
func (s *scanner) advance(n int) {
	for _, r := range s.text[s.offset : s.offset+n] {
		s.column++
		if r == '\n' {
			s.line, s.column = s.line+1, 1
		}
	}
	s.offset += n
}

// skipBlank moves over white space and comments.
func (s *scanner) skipBlank() {
	for {
		rest := s.rest()
		blank := len(rest) - len(strings.TrimLeft(rest, " \t\r\n"))
		if strings.HasPrefix(rest[blank:], "//") {
			blank += lengthUntil(rest[blank:], func(r rune) bool { return r == '\n' })
		}
		if blank == 0 {
			return
		}
		s.advance(blank)
	}
}

// tokenLength returns the length in bytes of the token that comes next.
func (s *scanner) tokenLength() int {
	rest := s.rest()
	first, size := utf8.DecodeRuneInString(rest)
	switch {
	case first == '"':
		return stringLength(rest)
	case isWord(first):
		return lengthUntil(rest, func(r rune) bool { return !isWord(r) })
	case len(rest) > 1 && strings.Contains(":: == != <= >= && ||", rest[:2]) && rest[0] != ' ' && rest[1] != ' ':
		return 2
	default:
		return size
	}
}

func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// stringLength returns the length of the string literal that text begins with,
// up to the end of the text if it is never closed.
func stringLength(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func lengthUntil(text string, stop func(rune) bool) int {
	if i := strings.IndexFunc(text, stop); i >= 0 {
		return i
	}
	return len(text)
}

// Limits on a statement, so that no text can make the parser or the evaluator
// recurse without end, or the type checker, whose cost grows with the cube of
// the guards, take seconds. They are far above what people write.
const (
	maxNesting = 64 // brackets and ifs around an expression
	maxUnary   = 4  // ! or - in a row, as in the reference implementation
	maxChain   = 16 // dots in a row, as in a.b.c
	maxGuards  = 16 // uses of has and hasTag
)

// complexity counts what a statement has of each.
type complexity struct{ nesting, unary, chain, guards int }

// tooComplex returns the first token that exceeds a limit.
func tooComplex(tokens []token) (token, bool) {
	var c complexity
	for _, t := range tokens {
		c.count(t.text)
		if c.nesting > maxNesting || c.unary > maxUnary || c.chain > maxChain || c.guards > maxGuards {
			return t, true
		}
	}
	return token{}, false
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
	case "&&", "||", ",", "then", "else":
		c.chain = 0
	case ";":
		*c = complexity{}
	}
}

// statementTokens returns the tokens of the statement that starts at offset.
func statementTokens(tokens []token, offset int) []token {
	start := len(tokens)
	for i, t := range tokens {
		if t.offset < offset {
			continue
		}
		start = min(start, i)
		if t.text == ";" {
			return tokens[start : i+1]
		}
	}
	return tokens[start:]
}

// clauses splits a statement into its head (annotations and scope) and its
// conditions, each beginning with its `when` or `unless`.
func clauses(statement []token) [][]token {
	var parts [][]token
	depth, start := 0, 0
	for i, t := range statement {
		switch t.text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		case "when", "unless":
			if depth == 0 && (i == 0 || statement[i-1].text != "@") {
				parts, start = append(parts, statement[start:i]), i
			}
		}
	}
	return append(parts, statement[start:])
}

// find returns the first token with this text, or the first token of all.
func find(tokens []token, text string) token {
	for _, t := range tokens {
		if t.text == text {
			return t
		}
	}
	if len(tokens) == 0 {
		return token{}
	}
	return tokens[0]
}
