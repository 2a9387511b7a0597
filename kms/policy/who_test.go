package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWhoMay(t *testing.T) {
	groups := []Group{{"ops", []string{`User::"alice"`, `Token::"robot"`}}}
	for _, test := range []struct {
		name   string
		text   string
		action Action
		want   []string // who [members] conditions
		except []string
	}{
		{"nobody", encrypterRow, Decrypt, nil, nil},
		{"a principal", encrypterRow, Encrypt, []string{`Token::"app"`}, nil},
		{"a stored group", `permit (principal in Group::"ops", action, resource);`, Encrypt, []string{`Group::"ops" [User::"alice" Token::"robot"]`}, nil},
		{"a group of tokens", `permit (principal in Group::"claimed", action, resource);`, Encrypt, []string{`Group::"claimed"`}, nil},
		{"a type in a group", `permit (principal is User in Group::"ops", action, resource);`, Encrypt, []string{`every User in Group::"ops" [User::"alice"]`}, nil},
		{"a type", `permit (principal is Workload, action, resource is Key in Namespace::"payments");`, Encrypt, []string{`every Workload`}, nil},
		{"everyone", permitAll, Encrypt, []string{`everyone`}, nil},
		{"another namespace", `permit (principal, action, resource in Namespace::"hr");`, Encrypt, nil, nil},
		{"another key", `permit (principal, action, resource == Key::"payments/k");`, Encrypt, nil, nil},
		{"the installation alone", `permit (principal, action, resource == System::"keywright");`, Encrypt, nil, nil},
		{"of the installation", permitAll, CreateToken, []string{"everyone"}, nil},
		{"conditions", "permit (principal, action, resource)\nwhen { context.method == \"mtls\" // why\n } unless { principal.name like \"x*\" };", Encrypt,
			[]string{`everyone when { context.method == "mtls" } unless { principal.name like "x*" }`}, nil},
		{"a condition that holds", `permit (principal, action, resource) when { resource.hasTag("env") && resource.getTag("env") == "prod" };`, Encrypt, []string{"everyone"}, nil},
		{"a condition that cannot hold", `permit (principal, action, resource) when { resource.hasTag("env") && resource.getTag("env") == "dev" };`, Encrypt, nil, nil},
		{"a condition on who is named", `permit (principal == Token::"app", action, resource) when { principal in Group::"claimed" };`, Encrypt, []string{`Token::"app" when { principal in Group::"claimed" }`}, nil},
		{"a permit that errs", `permit (principal, action, resource) when { 9223372036854775807 + 1 > 0 };`, Encrypt, nil, nil},
		{"exceptions", permitAll + `forbid (principal is User, action, resource) unless { context has source };` + `forbid (principal, action, resource in Namespace::"hr");`, Encrypt,
			[]string{"everyone"}, []string{"every User unless { context has source }"}},
		{"a forbid that errs", permitAll + `forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };`, Encrypt,
			[]string{"everyone"}, []string{"everyone when { 9223372036854775807 + 1 > 0 }"}},
	} {
		set := withGroups(t, groups, test.text)
		permitted, exceptions, err := set.WhoMay(test.action, resourceFor(test.action))
		if err != nil {
			t.Fatal(err)
		}
		var got, except []string
		for _, p := range permitted {
			text := p.Who
			if len(p.Members) > 0 {
				text += fmt.Sprint(" ", p.Members)
			}
			got = append(got, strings.Join(append([]string{text}, p.Conditions...), " "))
			if p.Statement.Name != "p0" || p.Statement.Effect != "permit" || p.Statement.Line < 1 {
				t.Errorf("%s: by %+v", test.name, p.Statement)
			}
		}
		for _, e := range exceptions {
			except = append(except, e.Detail)
		}
		if !slices.Equal(got, test.want) || !slices.Equal(except, test.except) {
			t.Errorf("%s: %q except %q, want %q except %q", test.name, got, except, test.want, test.except)
		}
	}
	if _, _, err := newSet(t).WhoMay(Encrypt, &Resource{}); !errors.Is(err, ErrNotApplicable) {
		t.Errorf("got %v", err)
	}
	if _, _, err := newSet(t).WhoMay("Exfiltrate", &Resource{}); !errors.Is(err, ErrUnknownAction) {
		t.Errorf("got %v", err)
	}
}

// TestWhoMayAgreesWithDecide: who is named, and nobody else, is allowed.
func TestWhoMayAgreesWithDecide(t *testing.T) {
	set := withGroups(t, []Group{{"ops", []string{`User::"alice"`}}},
		`permit (principal == Token::"app", action in Action::"encrypter", resource in Namespace::"payments");`,
		`permit (principal in Group::"ops", action, resource == Key::"payments/card");`)
	for _, action := range []Action{Encrypt, Decrypt} {
		permitted, _, err := set.WhoMay(action, card())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range permitted {
			if names = append(names, p.Members...); len(p.Members) == 0 {
				names = append(names, p.Who)
			}
		}
		for _, text := range []string{`Token::"app"`, `User::"alice"`, `User::"bob"`} {
			kind, id, _ := ParsePrincipal(text)
			got := set.Decide(ask(action, func(r *Request) { r.Caller = &Caller{Type: kind, ID: id} })).Verdict == Allow
			if got != slices.Contains(names, text) {
				t.Errorf("%s %s: allowed %v, but who says %q", action, text, got, names)
			}
		}
	}
}

func TestLooksAt(t *testing.T) {
	for text, want := range map[string][2]bool{
		permitAll: {},
		`permit (principal, action, resource) when { resource.hasTag("a") };`:                 {false, true},
		`permit (principal, action, resource) when { context.method == "x" };`:                {true, true},
		`permit (principal == User::"x", action, resource) when { context.method == "x" };`:   {},
		`permit (principal == Token::"p", action, resource) when { resource.hasTag("a") };`:   {false, true},
		`permit (principal, action == Action::"Sign", resource) when { context has source };`: {},
	} {
		r := ask(Encrypt, func(r *Request) { r.Caller.Parent = token("p", nil) })
		if context, attributes := newSet(t, text).LooksAt(r); [2]bool{context, attributes} != want {
			t.Errorf("%s looks at context: %v, attributes: %v; want %v", text, context, attributes, want)
		}
	}
	if context, attributes := newSet(t, permitAll).LooksAt(ask("Exfiltrate")); context || attributes {
		t.Error("an unknown action looks at something")
	}
}
