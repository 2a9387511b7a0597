package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// told writes a considered statement as tests compare it.
func told(c Considered) string {
	text := fmt.Sprintf("%s:%d %s %s", strings.TrimPrefix(c.Namespace+"/"+c.Name, "/"), c.Line, c.Effect, c.Result)
	if c.FailedPart != "" {
		text += fmt.Sprintf(" | %s@%d %s | %s", c.FailedPart, c.FailedLine, c.FailedText, c.Detail)
	}
	return text
}

func TestExplain(t *testing.T) {
	prod := func(r *Request) { r.Resource.Labels = map[string]string{"env": "dev"} }
	for _, test := range []struct {
		name    string
		texts   []string
		request *Request
		verdict Verdict
		want    []string
	}{
		{"permitted", []string{encrypterRow}, ask(Encrypt), Allow, []string{"p0:1 permit permitted"}},
		{"forbidden", []string{permitAll, "\n\nforbid (principal, action, resource);"}, ask(Encrypt), Deny,
			[]string{"p1:3 forbid forbade", "p0:1 permit permitted"}},
		{"another action", []string{encrypterRow}, ask(Decrypt), Deny,
			[]string{`p0:1 permit did not apply | action@1 action in Action::"encrypter" | the action is Decrypt, of Action::"decrypter"`}},
		{"another resource", []string{`permit (principal == Token::"app", action, resource == Key::"payments/k");`}, ask(Encrypt), Deny,
			[]string{`p0:1 permit did not apply | resource@1 resource == Key::"payments/k" | the resource is Key::"payments/card"`}},
		{"another principal", []string{`permit (principal in Group::"ops", action, resource);`}, ask(Encrypt, func(r *Request) { r.Caller.Groups = []string{"dev"} }), Deny,
			[]string{`p0:1 permit did not apply | principal@1 principal in Group::"ops" | the principal is Token::"app", in Group::"dev"`}},
		{"two parts are too far", []string{`permit (principal in Group::"ops", action == Action::"Sign", resource);`}, ask(Encrypt), Deny, nil},
		{"a resource kind", []string{`permit (principal, action, resource == System::"keywright");`}, ask(Encrypt), Deny,
			[]string{`p0:1 permit did not apply | resource@1 resource == System::"keywright" | the resource is Key::"payments/card"`}},
		{"a conjunct of a condition", []string{"permit (principal, action, resource)\nwhen {\n  resource.hasTag(\"env\") && // why\n  resource.getTag(\"env\")  ==  \"prod\"\n};"}, ask(Encrypt, prod), Deny,
			[]string{`p0:1 permit did not apply | when@4 resource.getTag("env") == "prod" | resource.getTag("env") is "dev"`}},
		{"a missing tag", []string{`permit (principal, action, resource) when { resource.hasTag("team") && resource.getTag("team") == "x" };`}, ask(Encrypt), Deny,
			[]string{`p0:1 permit did not apply | when@1 resource.hasTag("team") | resource.hasTag("team") is false`}},
		{"an unless", []string{"permit (principal, action, resource)\nunless { context.method == \"token\" };"}, ask(Encrypt), Deny,
			[]string{`p0:1 permit did not apply | unless@2 context.method == "token" | context.method is "token"`}},
		{"a disjunction is one", []string{`permit (principal, action, resource) when { context.method == "mtls" || principal.name == "root" };`}, ask(Encrypt), Deny,
			[]string{`p0:1 permit did not apply | when@1 context.method == "mtls" || principal.name == "root" | context.method is "token"; principal.name is "app"`}},
		{"context, source and time", []string{`permit (principal, action, resource) when { context.time < datetime("2026-01-01") };`,
			`permit (principal, action, resource) when { context has source && context.source.isInRange(ip("10.0.0.0/8")) };`,
			`permit (principal, action, resource) when { context.encryptionContext.hasTag("t") && context.encryptionContext.getTag("t") == principal.name };`},
			ask(Encrypt, func(r *Request) {
				r.Caller.Source, r.EncryptionContext = netip.MustParseAddr("192.0.2.1"), map[string]string{"t": "x"}
			}), Deny,
			[]string{`p0:1 permit did not apply | when@1 context.time < datetime("2026-01-01") | context.time is datetime("2026-11-23T12:00:00.000Z")`,
				`p1:1 permit did not apply | when@1 context.source.isInRange(ip("10.0.0.0/8")) | context.source is ip("192.0.2.1")`,
				`p2:1 permit did not apply | when@1 context.encryptionContext.getTag("t") == principal.name | context.encryptionContext.getTag("t") is "x"; principal.name is "app"`}},
		{"a condition on a group", []string{`permit (principal, action, resource) when { principal in Group::"ops" };`}, ask(Encrypt), Deny,
			[]string{`p0:1 permit did not apply | when@1 principal in Group::"ops" | the principal is Token::"app", in no group`}},
		{"the nearest first", []string{`permit (principal == User::"x", action, resource);`, `permit (principal, action == Action::"Sign", resource);`,
			`permit (principal, action, resource) when { false } when { false };`, `permit (principal, action, resource) when { false };`}, ask(Encrypt), Deny,
			[]string{"p3:1 permit did not apply | when@1 false | ", "p2:1 permit did not apply | when@1 false | ",
				`p1:1 permit did not apply | action@1 action == Action::"Sign" | the action is Encrypt, of Action::"encrypter"`,
				`p0:1 permit did not apply | principal@1 principal == User::"x" | the principal is Token::"app", in no group`}},
		{"what almost forbade", []string{encrypterRow, `forbid (principal, action, resource) when { resource.hasTag("frozen") };`, `permit (principal == User::"x", action, resource);`}, ask(Encrypt), Allow,
			[]string{"p0:1 permit permitted", `p1:1 forbid did not apply | when@1 resource.hasTag("frozen") | resource.hasTag("frozen") is false`}},
		{"erred", []string{permitAll, "forbid (principal, action, resource)\nwhen { " + overflow + " };"}, ask(Encrypt), Deny,
			[]string{"p1:1 forbid erred | when@2 " + overflow + " | integer overflow while attempting to add `9223372036854775807` with `1`", "p0:1 permit permitted"}},
		{"what follows a failure does not err", []string{"permit (principal == User::\"x\", action, resource) when { " + overflow + " };"}, ask(Encrypt), Deny, nil},
		{"refused before any policy", []string{permitAll}, ask("Exfiltrate"), Deny, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := newSet(t, test.texts...).Explain(test.request)
			var got []string
			for _, each := range e.Statements {
				got = append(got, told(each))
			}
			if e.Verdict != test.verdict || !slices.Equal(got, test.want) {
				t.Errorf("%s (%s)\n got %s\nwant %s", e.Verdict, e.Reason, strings.Join(got, "\n     "), strings.Join(test.want, "\n     "))
			}
			if e.Principal != `Token::"app"` || e.Reason == "" || e.Revision != 3 {
				t.Errorf("explanation %+v lacks something", e)
			}
		})
	}
}

func TestExplainBounds(t *testing.T) {
	set := newSet(t, `permit (principal == Token::"child", action, resource);`, `permit (principal == Token::"parent", action == Action::"Decrypt", resource);`)
	e := set.Explain(ask(Encrypt, func(r *Request) { r.Caller = token("child", token("parent", nil)) }))
	if e.Verdict != Deny || !strings.Contains(e.Reason, `Token::"parent"`) || len(e.Bounds) != 1 {
		t.Fatalf("got %+v", e)
	}
	if len(e.Statements) != 1 || e.Statements[0].Result != Permitted {
		t.Errorf("of the child: %+v", e.Statements)
	}
	if bound := e.Bounds[0]; bound.Verdict != Deny || bound.Principal != `Token::"parent"` || bound.Statements[0].FailedPart != "action" {
		t.Errorf("of the parent: %+v", bound)
	}
	narrowed := set.Explain(ask(Encrypt, func(r *Request) { r.Caller = narrow(token("child", nil), "Sign", "") }))
	if narrowed.Verdict != Deny || !strings.Contains(narrowed.Reason, "narrowed to the actions Sign") || narrowed.Statements[0].Result != Permitted {
		t.Errorf("narrowed: %+v", narrowed)
	}
	if e := set.Explain(nil); e.Verdict != Deny || e.Reason == "" || e.Principal != "" {
		t.Errorf("Explain(nil) = %+v", e)
	}
}

func TestExplanationIsBounded(t *testing.T) {
	set := manyPolicies(t, 10_000)
	began := time.Now()
	e := set.Explain(ask(Encrypt, func(r *Request) { r.Caller.ID = "stranger" }))
	if elapsed := time.Since(began); elapsed > 20*time.Second {
		t.Errorf("took %s", elapsed)
	}
	if e.Verdict != Deny || len(e.Statements) != MaxConsidered {
		t.Errorf("%v with %d statements, want a denial with %d", e.Verdict, len(e.Statements), MaxConsidered)
	}
	long := `permit (principal, action, resource) when { resource.hasTag("` + strings.Repeat("é", 2000) + `") };`
	if got := newSet(t, long).Explain(ask(Encrypt)).Statements[0]; len([]rune(got.FailedText)) != maxText+1 || len([]rune(got.Detail)) > 2*maxText+10 {
		t.Errorf("texts of %d and %d characters", len(got.FailedText), len(got.Detail))
	}
}

func BenchmarkExplain(b *testing.B) {
	set := manyPolicies(b, 10_000)
	r := ask(Encrypt, func(r *Request) { r.Caller.ID = "stranger" })
	for b.Loop() {
		set.Explain(r)
	}
}
