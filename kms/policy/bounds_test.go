package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// token is a caller whose token was made with that of parent.
func token(id string, parent *Caller) *Caller {
	return &Caller{Type: Token, ID: id, Method: "token", TokenID: "t-" + id, Parent: parent}
}

func narrow(c *Caller, actions, resources string) *Caller {
	c.Actions, c.Resources = strings.Fields(actions), strings.Fields(resources)
	return c
}

func TestBounds(t *testing.T) {
	const ( // p0 is for the child, p1 for the parent
		both    = `permit (principal in Group::"apps", action, resource);`
		child   = `permit (principal == Token::"child", action, resource);`
		parent  = `permit (principal == Token::"parent", action == Action::"Encrypt", resource);`
		grand   = `permit (principal == Token::"grand", action, resource);`
		forbids = `forbid (principal == Token::"parent", action, resource) when { context.method == "token" };`
	)
	family := func() *Caller { return token("child", token("parent", nil)) }
	for _, test := range []struct {
		name     string
		policies []string
		caller   *Caller
		action   Action
		want     Verdict
		bound    string
		reason   string
	}{
		{"both may", []string{child, parent}, family(), Encrypt, Allow, "", `permitted by p0; for Token::"parent" permitted by p1`},
		{"the parent may not", []string{child, parent}, family(), Decrypt, Deny, `Token::"parent"`, `for whom: no policy permits this`},
		{"the child may not", []string{parent}, family(), Encrypt, Deny, "", "no policy permits this"},
		{"the parent's rights are not inherited", []string{parent}, token("other", token("parent", nil)), Encrypt, Deny, "", "no policy permits this"},
		{"the parent is forbidden", []string{child, parent, forbids}, family(), Encrypt, Deny, `Token::"parent"`, "forbidden by p2"},
		{"the grandparent may not", []string{child, parent}, token("child", token("parent", token("grand", nil))), Encrypt, Deny, `Token::"grand"`, "no policy permits this"},
		{"three may", []string{child, parent, grand}, token("child", token("parent", token("grand", nil))), Encrypt, Allow, "", "permitted by p2"},
		{"an own action", []string{child}, narrow(token("child", nil), "Encrypt", ""), Encrypt, Allow, "", ""},
		{"another action", []string{child}, narrow(token("child", nil), "Encrypt Sign", ""), Decrypt, Deny, `Token::"child"`, "narrowed to the actions Encrypt, Sign"},
		{"a role", []string{child}, narrow(token("child", nil), "decrypter", ""), Decrypt, Allow, "", ""},
		{"another role", []string{child}, narrow(token("child", nil), "admin", ""), Decrypt, Deny, `Token::"child"`, "narrowed"},
		{"the namespace", []string{child}, narrow(token("child", nil), "", "hr payments"), Encrypt, Allow, "", ""},
		{"another namespace", []string{child}, narrow(token("child", nil), "", "hr pay"), Encrypt, Deny, `Token::"child"`, "narrowed to the resources hr, pay"},
		{"the key", []string{child}, narrow(token("child", nil), "", "payments/card"), Encrypt, Allow, "", ""},
		{"another key", []string{child}, narrow(token("child", nil), "", "payments/car hr/card"), Encrypt, Deny, `Token::"child"`, "narrowed"},
		{"the namespace of a key alone", []string{child}, narrow(token("child", nil), "", "payments/card"), ListKeys, Deny, `Token::"child"`, "narrowed"},
		{"the installation is in no namespace", []string{child}, narrow(token("child", nil), "", "payments"), GetStatus, Deny, `Token::"child"`, "narrowed"},
		{"the installation", []string{child}, narrow(token("child", nil), "", "system"), GetStatus, Allow, "", ""},
		{"the installation alone", []string{child}, narrow(token("child", nil), "", "system"), Encrypt, Deny, `Token::"child"`, "narrowed"},
		{"the parent's narrowing", []string{both, child, parent}, token("child", narrow(token("parent", nil), "Sign", "")), Encrypt, Deny, `Token::"parent"`, "narrowed to the actions Sign"},
		{"narrowing permits nothing", nil, narrow(token("child", nil), "Encrypt", "payments"), Encrypt, Deny, "", "no policy permits this"},
		{"too deep", []string{permitAll}, token("e", token("d", token("c", token("b", token("a", token("0", nil)))))), Encrypt, Deny, "", "descends from too many"},
		{"deep", []string{permitAll}, token("e", token("d", token("c", token("b", token("a", nil))))), Encrypt, Allow, "", ""},
		{"a nameless ancestor", []string{permitAll}, token("a", token("", nil)), Encrypt, Deny, "", "names no caller"},
		{"an ancestor of no type", []string{permitAll}, token("a", &Caller{Type: "Robot", ID: "r"}), Encrypt, Deny, "", "unknown type"},
		{"an expired ancestor", []string{permitAll}, token("a", &Caller{Type: Token, ID: "r", Expires: noon}), Encrypt, Deny, "", "made with has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := newSet(t, test.policies...)
			for range 2 {
				got := set.Decide(&Request{Caller: test.caller, Action: test.action, Resource: resourceFor(test.action), Time: noon})
				if got.Verdict != test.want || got.Bound != test.bound || !strings.Contains(got.Reason, test.reason) {
					t.Errorf("got %+v, want %v, bound by %q, reason %q", got, test.want, test.bound, test.reason)
				}
			}
		})
	}
}

// TestNoStaleBounds is TestNoStaleDecision for what bounds a token: each change
// must be seen, also one in place.
func TestNoStaleBounds(t *testing.T) {
	caller := func() *Caller {
		return narrow(token("child", narrow(token("parent", nil), "encrypter decrypter", "payments hr")), "encrypter", "payments")
	}
	allowed := `permit (principal in Group::"g", action, resource); permit (principal == Token::"child", action, resource);
		permit (principal == Token::"parent", action, resource) when { principal.trustDomain == "" };`
	for name, edit := range map[string]func(*Caller){
		"actions":                   func(c *Caller) { c.Actions = []string{"decrypter"} },
		"actions in place":          func(c *Caller) { c.Actions[0] = "signer" },
		"resources":                 func(c *Caller) { c.Resources = []string{"hr"} },
		"resources in place":        func(c *Caller) { c.Resources[0] = "payments/k" },
		"other parent":              func(c *Caller) { c.Parent = token("stranger", nil) },
		"parent's id in place":      func(c *Caller) { c.Parent.ID = "stranger" },
		"parent's type":             func(c *Caller) { c.Parent.Type = User },
		"parent's trust domain":     func(c *Caller) { c.Parent.TrustDomain = "dev" },
		"parent's actions in place": func(c *Caller) { c.Parent.Actions[0] = "signer" },
		"parent's resources":        func(c *Caller) { c.Parent.Resources = []string{"hr"} },
		"parent expired":            func(c *Caller) { c.Parent.Expires = noon },
		"a grandparent":             func(c *Caller) { c.Parent.Parent = token("stranger", nil) },
		"parent's group in place":   func(c *Caller) { c.Parent.ID, c.Parent.Groups[0] = "member", "h" },
	} {
		set, r := newSet(t, allowed), ask(Encrypt, func(r *Request) { r.Caller = caller() })
		if strings.Contains(name, "group") {
			r.Caller.Parent.ID, r.Caller.Parent.Groups = "member", []string{"g"}
		}
		for range 2 {
			if got := set.Decide(r); got.Verdict != Allow {
				t.Fatalf("%s, before: %+v, want allow", name, got)
			}
		}
		if stored(set) != 1 {
			t.Fatalf("%s: %d decisions remembered, want 1", name, stored(set))
		}
		if edit(r.Caller); set.Decide(r).Verdict != Deny {
			t.Errorf("%s, after: still allowed", name)
		}
	}
	// Fewer ancestors may mean more rights, never remembered ones.
	set, r := newSet(t, `permit (principal == Token::"child", action, resource);`), ask(Encrypt, func(r *Request) { r.Caller = caller() })
	if got := set.Decide(r); got.Verdict != Deny {
		t.Fatalf("with a parent: %+v", got)
	}
	r.Caller.Parent = nil
	if got := set.Decide(r); got.Verdict != Allow {
		t.Errorf("without one: %+v", got)
	}
}

// TestAncestorsContextIsNotRemembered: what an ancestor's policies look at counts
// as what the caller's do.
func TestAncestorsContextIsNotRemembered(t *testing.T) {
	set := newSet(t, `permit (principal == Token::"child", action, resource);`,
		`permit (principal == Token::"parent", action, resource) when { context.time < datetime("2026-11-23T12:00:01Z") };`)
	r := ask(Encrypt, func(r *Request) { r.Caller = token("child", token("parent", nil)) })
	if got := set.Decide(r); got.Verdict != Allow || stored(set) != 0 {
		t.Fatalf("%+v, %d decisions remembered, want none", got, stored(set))
	}
	r.Time = noon.Add(time.Hour)
	if got := set.Decide(r); got.Verdict != Deny {
		t.Errorf("an hour later: %+v", got)
	}
}

// TestAncestorsAskFromWhereTheRequestComes: an ancestor's own context is how it
// authenticated; the rest is the request's.
func TestAncestorsAskFromWhereTheRequestComes(t *testing.T) {
	set := newSet(t, `permit (principal == Token::"child", action, resource);`,
		`permit (principal == Token::"parent", action, resource) when { context.method == "token" && context has source && context.source.isLoopback() };`)
	for source, want := range map[string]Verdict{"127.0.0.1": Allow, "192.0.2.1": Deny} {
		r := ask(Encrypt, func(r *Request) {
			r.Caller = token("child", token("parent", nil))
			r.Caller.Method, r.Caller.Source = "unix", netip.MustParseAddr(source)
		})
		if got := set.Decide(r); got.Verdict != want {
			t.Errorf("from %s: %+v, want %v", source, got, want)
		}
	}
}

func TestCheckNarrowing(t *testing.T) {
	many := make([]string, MaxNarrowing+1)
	for i := range many {
		many[i] = fmt.Sprint("n", i)
	}
	for _, test := range []struct {
		actions, resources []string
		field, text        string
	}{
		{nil, nil, "", ""},
		{[]string{"Encrypt", "signer"}, []string{"payments", "payments/card", "system"}, "", ""},
		{[]string{"encrypt"}, nil, "actions", `write Action::"Encrypt"`},
		{[]string{""}, nil, "actions", "roles are"},
		{nil, []string{""}, "resources", "no resource"},
		{nil, []string{"a/b/c"}, "resources", "no resource"},
		{nil, []string{"a/"}, "resources", "no resource"},
		{nil, []string{"/a"}, "resources", "no resource"},
		{nil, []string{"system/x"}, "resources", "no resource"},
		{nil, many, "resources", "limit is 64"},
		{many, nil, "actions", "limit is 64"},
	} {
		err := CheckNarrowing(test.actions, test.resources)
		var invalid *InvalidNarrowing
		if errors.As(err, &invalid) != (test.field != "") || invalid == nil && err != nil {
			t.Errorf("%q, %q: %v", test.actions, test.resources, err)
		}
		if invalid != nil && (invalid.Field != test.field || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%q, %q: %v, want %s about %s", test.actions, test.resources, err, test.text, test.field)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		childActions, childResources, actions, resources string
		field                                            string
	}{
		{"", "", "", "", ""},
		{"admin", "hr system", "", "", ""},
		{"", "", "Encrypt", "payments", ""},
		{"Encrypt", "payments/card", "encrypter", "payments", ""},
		{"encrypter", "", "encrypter decrypter", "", ""},
		{"encrypter", "", "Encrypt", "", "actions"},
		{"verifier", "", "signer", "", ""},
		{"signer", "", "verifier", "", "actions"},
		{"", "payments", "", "payments/card", "resources"},
		{"", "system", "", "payments", "resources"},
		{"", "system", "", "system payments", ""},
		{"", "payments/card", "", "payments/card2", "resources"},
	} {
		err := Within(narrow(token("c", nil), test.childActions, test.childResources), narrow(token("p", nil), test.actions, test.resources))
		var invalid *InvalidNarrowing
		if errors.As(err, &invalid) != (test.field != "") || invalid != nil && invalid.Field != test.field {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestRememberedBoundsDoNotAllocate(t *testing.T) {
	set := newSet(t, permitAll)
	r := ask(Encrypt, func(r *Request) {
		r.Caller = narrow(token("child", narrow(token("parent", nil), "encrypter", "payments")), "encrypter", "payments")
	})
	set.Decide(r)
	if allocs := testing.AllocsPerRun(1000, func() { set.Decide(r) }); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}
