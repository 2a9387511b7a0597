// Package cedartext finds places in the text of Cedar policies. cedar-go keeps
// no position below a whole statement and bounds neither nesting nor size; this
// package splits a text into tokens, so that a problem can be pointed at and an
// excessive text refused before it is parsed. It never decides what a text means.
//
// All functions are pure: they keep no state and may be called concurrently.
package cedartext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Token is one word, literal or sign of a text and where it stands. The zero
// Token is no place.
type Token struct {
	Text         string
	Offset       int // in bytes, from 0
	Line, Column int // from 1, Column in characters
}

// scanner splits Cedar text into tokens. It accepts any text.
type scanner struct {
	text         string
	offset       int
	line, column int
}

// Tokenize splits any text, valid or not, into tokens, leaving out white space
// and comments.
func Tokenize(text string) []Token {
	s := &scanner{text: text, line: 1, column: 1}
	var tokens []Token
	for {
		s.skipBlank()
		if s.offset == len(text) {
			return tokens
		}
		start := s.place()
		s.advance(s.tokenLength())
		start.Text = text[start.Offset:s.offset]
		tokens = append(tokens, start)
	}
}

// place returns where the scanner stands, as a token without text.
func (s *scanner) place() Token { return Token{Offset: s.offset, Line: s.line, Column: s.column} }

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
		blank += commentLength(rest[blank:])
		if blank == 0 {
			return
		}
		s.advance(blank)
	}
}

// commentLength returns the length of the comment that text begins with, 0 if
// it begins with none. Besides line comments cedar-go knows the other kind of C.
func commentLength(text string) int {
	switch {
	case strings.HasPrefix(text, "//"):
		return lengthUntil(text, func(r rune) bool { return r == '\n' })
	case strings.HasPrefix(text, "/*"):
		if end := strings.Index(text[2:], "*/"); end >= 0 {
			return 2 + end + 2
		}
		return len(text)
	default:
		return 0
	}
}

// tokenLength returns the length in bytes of the token that comes next.
func (s *scanner) tokenLength() int {
	rest := s.rest()
	first, size := utf8.DecodeRuneInString(rest)
	switch {
	case first == '"':
		return stringLength(rest)
	case unicode.IsDigit(first):
		return lengthUntil(rest, func(r rune) bool { return !unicode.IsDigit(r) })
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

// Statement returns the tokens of the statement that starts at offset.
func Statement(tokens []Token, offset int) []Token {
	start := len(tokens)
	for i, t := range tokens {
		if t.Offset < offset {
			continue
		}
		start = min(start, i)
		if t.Text == ";" {
			return tokens[start : i+1]
		}
	}
	return tokens[start:]
}

// Clauses splits a statement into its head (annotations and scope) and its
// conditions, each beginning with its `when` or `unless`.
func Clauses(statement []Token) [][]Token {
	var parts [][]Token
	depth, start := 0, 0
	for i, t := range statement {
		switch t.Text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		case "when", "unless":
			if depth == 0 && (i == 0 || statement[i-1].Text != "@") {
				parts, start = append(parts, statement[start:i]), i
			}
		}
	}
	return append(parts, statement[start:])
}

// Find returns the first token with this text, or else the first of all, which
// is the zero Token if there is none.
func Find(tokens []Token, text string) Token {
	for _, t := range tokens {
		if t.Text == text {
			return t
		}
	}
	if len(tokens) == 0 {
		return Token{}
	}
	return tokens[0]
}
