package cedartext

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
)

// cedar-go's parser has no typed errors: the place of a problem is only in the
// text. These patterns take it apart for display; what they do not recognise
// is shown as it is.
var (
	placedError = regexp.MustCompile(`(?s)(parse error at )?<input>:(\d+):(\d+)(?: "(?:[^"\\]|\\.)*")?: (.*)$`)
	wantedError = regexp.MustCompile(`(?s)^(?:exact )?got (.*) want (.*)$`)
	namingError = regexp.MustCompile("(?s)^(?:unexpected effect: |duplicate key: |`)([^`]*)")
)

// SyntaxError explains an error that cedar-go's parser returned for the text:
// where it is and what it is.
func SyntaxError(text string, err error) (at Token, problem string) {
	tokens := Tokenize(text)
	match := placedError.FindStringSubmatch(err.Error())
	switch {
	case !utf8.ValidString(text):
		return firstInvalidByte(text), "text is not valid UTF-8"
	case match == nil:
		return failingStatement(text, tokens), "cannot read: " + strings.TrimPrefix(err.Error(), "parser error: ")
	}
	at, problem = Token{Line: number(match[2]), Column: number(match[3])}, match[4]
	if fromScanner := match[1] == ""; fromScanner {
		return at, "cannot read: " + problem
	}
	if wanted := wantedError.FindStringSubmatch(problem); wanted != nil {
		return culprit(tokens, at, wanted[1]), fmt.Sprintf("expected %s but found %s", quote(wanted[2]), quote(wanted[1]))
	}
	name := ""
	if naming := namingError.FindStringSubmatch(problem); naming != nil {
		name = naming[1]
	}
	return culprit(tokens, at, name), "cannot read: " + problem
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
func culprit(tokens []Token, at Token, name string) Token {
	read := len(tokens)
	for i, t := range tokens {
		if t.Line == at.Line && t.Column == at.Column {
			read = i
		}
	}
	if len(tokens) == 0 || name == "" && read == len(tokens) {
		return at
	}
	for _, t := range slices.Backward(tokens[:min(read+1, len(tokens))]) {
		if t.Text == name {
			return t
		}
	}
	return tokens[max(read-1, 0)]
}

// firstInvalidByte returns where the text stops being UTF-8.
func firstInvalidByte(text string) Token {
	s := &scanner{text: text, line: 1, column: 1}
	for s.offset < len(s.text) {
		r, size := utf8.DecodeRuneInString(s.rest())
		if r == utf8.RuneError && size == 1 {
			break
		}
		s.advance(size)
	}
	return s.place()
}

// failingStatement returns the beginning of the first statement that does not
// parse.
func failingStatement(text string, tokens []Token) Token {
	decoder, start := cedar.NewDecoder(bytes.NewReader([]byte(text))), 0
	for {
		var statement cedar.Policy
		if decoder.Decode(&statement) != nil {
			break
		}
		start += len(Statement(tokens[start:], statement.Position().Offset))
	}
	return Find(tokens[min(start, max(len(tokens)-1, 0)):], "")
}
