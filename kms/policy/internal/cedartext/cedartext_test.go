package cedartext

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
)

func texts(tokens []Token) string {
	var all []string
	for _, t := range tokens {
		all = append(all, t.Text)
	}
	return strings.Join(all, " ")
}

func TestTokenize(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		" \n// only a comment":         "",
		"/* a \" b \n */ x":            "x",
		"/* never closed x":            "",
		`permit(principal=="a b\"c");`: `permit ( principal == "a b\"c" ) ;`,
		`Key::"a/b"`:                   `Key :: "a/b"`,
		"a<=b&&c||!d!=e - -1":          "a <= b && c || ! d != e - - 1",
		"1has a.b_2":                   "1 has a . b_2",
		`"never closed \`:              `"never closed \`,
		"ä€ \xff":                      "ä € \xff",
	} {
		if got := texts(Tokenize(text)); got != want {
			t.Errorf("Tokenize(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestPlaces(t *testing.T) {
	tokens := Tokenize("a\n  \"ä\" b /* \n */ c")
	want := []Token{{"a", 0, 1, 1}, {`"ä"`, 4, 2, 3}, {"b", 9, 2, 7}, {"c", 19, 3, 5}}
	if !slices.Equal(tokens, want) {
		t.Errorf("got %+v, want %+v", tokens, want)
	}
}

func TestStatementAndClauses(t *testing.T) {
	text := `@when("x") permit (a) when { {when: 1} } unless { b }; forbid (c);`
	tokens := Tokenize(text)
	first := Statement(tokens, 0)
	if got := texts(Statement(tokens, strings.Index(text, "forbid"))); got != "forbid ( c ) ;" {
		t.Errorf("second statement is %q", got)
	}
	var got []string
	for _, clause := range Clauses(first) {
		got = append(got, texts(clause))
	}
	if want := []string{`@ when ( "x" ) permit ( a )`, "when { { when : 1 } }", "unless { b } ;"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Statement(tokens, len(text)); len(got) != 0 {
		t.Errorf("statement after the end: %+v", got)
	}
}

func TestFind(t *testing.T) {
	tokens := Tokenize("a b a")
	if got := Find(tokens[1:], "a"); got.Column != 5 {
		t.Errorf("found %+v", got)
	}
	if got := Find(tokens, "c"); got.Column != 1 {
		t.Errorf("not found gives %+v, want the first", got)
	}
	if got := Find(nil, "c"); got != (Token{}) {
		t.Errorf("nothing gives %+v", got)
	}
}

func TestTooComplex(t *testing.T) {
	for text, want := range map[string]bool{
		strings.Repeat("(", 64):                              false,
		strings.Repeat("(", 65):                              true,
		strings.Repeat("()", 99) + strings.Repeat("[];", 99): false,
		strings.Repeat("if ", 65):                            true,
		"!!!!x - -1":                                         false,
		"!!!!!x":                                             true,
		"!!/* */!!!x":                                        true,
		"/* \" */" + strings.Repeat("(", 65):                 true,
		strings.Repeat(".a", 16) + "&&" + strings.Repeat(".a", 16):        false,
		strings.Repeat(".a", 17):                                          true,
		strings.Repeat("x has y && ", 16):                                 false,
		strings.Repeat("x has y && ", 17):                                 true,
		strings.Repeat("x.hasTag(y) && ", 17):                             true,
		strings.Repeat(strings.Repeat("x has y && ", 16)+";", 16):         false,
		strings.Repeat(strings.Repeat("x has y && ", 16)+";", 16) + "has": true,
	} {
		if _, got := TooComplex(Tokenize(text)); got != want {
			t.Errorf("TooComplex(%.40q) = %v, want %v", text, got, want)
		}
	}
}

// TestSyntaxErrorWithoutWords checks that errors of unknown wording still get a
// place: the first statement that does not parse.
func TestSyntaxErrorWithoutWords(t *testing.T) {
	text := "permit (principal, action, resource);\n permit (principal == User::\"x\", frob"
	at, problem := SyntaxError(text, errors.New("parser error: something else"))
	if at.Line != 2 || at.Column != 2 || problem != "cannot read: something else" {
		t.Errorf("got %+v, %q", at, problem)
	}
}

// FuzzSyntaxError checks that every refusal of the parser is explained without
// panic and with a place.
func FuzzSyntaxError(f *testing.F) {
	for _, text := range []string{"permit", "permit(", "\"", "/*", "1", "permit (principal, action, resource) when { {a:1,a:2} };", "\xff", "@"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens := Tokenize(text)
		for _, token := range tokens {
			if token.Text == "" || !strings.HasPrefix(text[token.Offset:], token.Text) {
				t.Fatalf("token %+v is not in the text", token)
			}
		}
		if _, excessive := TooComplex(tokens); excessive {
			return
		}
		if _, err := cedar.NewPolicyListFromBytes("", []byte(text)); err != nil {
			if at, problem := SyntaxError(text, err); problem == "" || at.Line < 1 || at.Column < 1 {
				t.Errorf("%v: explained as %q at %+v", err, problem, at)
			}
		}
	})
}
