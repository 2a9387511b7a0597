package cedartext

import (
	"slices"
	"testing"
)

func TestScope(t *testing.T) {
	for text, want := range map[string][3]string{
		`permit (principal, action, resource);`: {"principal", "action", "resource"},
		"@permit(\"(a, b\")\n@x forbid ( principal in Group::\"a,b\" , action in [A::\"x\", // no\n A::\"y\"],resource is Key in N::\"n\");": {
			`principal in Group::"a,b"`, `action in [A::"x", A::"y"]`, `resource is Key in N::"n"`},
		"":             {},
		"permit":       {},
		"permit (a":    {"a"},
		"permit (a, b": {"a", "b"},
	} {
		principal, action, resource := Scope(Tokenize(text))
		if got := [3]string{Text(principal), Text(action), Text(resource)}; text != "permit" && got != want {
			t.Errorf("Scope(%s) = %q, want %q", text, got, want)
		}
	}
}

func TestConjuncts(t *testing.T) {
	for text, want := range map[string][]string{
		"when { a }":                       {"a"},
		"when { a &&\n b.c(d && e) && f }": {"a", "b.c(d && e)", "f"},
		"when { a || b && c }":             {"a || b && c"},
		"when { (a || b) && c };":          {"(a || b)", "c"},
		"when { if a then b && c else d }": {"if a then b && c else d"},
		`unless { "&&" == /* && */ x }`:    {`"&&" == x`},
		"when {":                           {""},
	} {
		var got []string
		for _, part := range Conjuncts(Body(Tokenize(text))) {
			got = append(got, Text(part))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the parts %q, want %q", text, got, want)
		}
	}
}
