package cedartext

import "strings"

// Scope returns the three parts of the scope in a statement's head: principal,
// action and resource. A part is empty where the head is no statement's.
func Scope(head []Token) (principal, action, resource []Token) {
	open, depth := 0, 0
	for i, t := range head { // annotations have brackets too, but come first
		switch t.Text {
		case "(":
			if depth == 0 {
				open = i + 1
			}
			depth++
		case ")":
			depth--
		}
	}
	parts := split(within(head, open), ",")
	parts = append(parts, nil, nil, nil)
	return parts[0], parts[1], parts[2]
}

// Body returns what stands between the braces of a condition.
func Body(clause []Token) []Token { return within(clause, 2) }

// Conjuncts splits an expression at each && that binds nothing but the whole.
// Where || or if binds looser, the expression is one part.
func Conjuncts(expression []Token) [][]Token {
	depth := 0
	for _, t := range expression {
		depth += nesting(t)
		if depth == 0 && (t.Text == "||" || t.Text == "if") {
			return [][]Token{expression}
		}
	}
	return split(expression, "&&")
}

// within returns the tokens from start up to the bracket that closes them.
func within(tokens []Token, start int) []Token {
	if start >= len(tokens) {
		return nil
	}
	depth := 0
	for i, t := range tokens[start:] {
		if depth += nesting(t); depth < 0 {
			return tokens[start : start+i]
		}
	}
	return tokens[start:]
}

// split splits tokens at each separator outside brackets.
func split(tokens []Token, separator string) [][]Token {
	var parts [][]Token
	depth, start := 0, 0
	for i, t := range tokens {
		if depth += nesting(t); depth == 0 && t.Text == separator {
			parts, start = append(parts, tokens[start:i]), i+1
		}
	}
	return append(parts, tokens[start:])
}

func nesting(t Token) int {
	switch t.Text {
	case "(", "[", "{":
		return 1
	case ")", "]", "}":
		return -1
	default:
		return 0
	}
}

// Text writes tokens in one line: without comments, and with one space where any
// space was.
func Text(tokens []Token) string {
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 && tokens[i-1].Offset+len(tokens[i-1].Text) < t.Offset {
			b.WriteByte(' ')
		}
		b.WriteString(t.Text)
	}
	return b.String()
}
