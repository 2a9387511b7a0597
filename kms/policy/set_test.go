package policy

import (
	"fmt"
	"testing"
)

// A set made after another decides as one made anew, and compiles what differs alone.
func TestNext(t *testing.T) {
	allow := func(principal string) string {
		return fmt.Sprintf("permit (principal == %s, action, resource);", principal)
	}
	before := []Policy{
		{Name: "kept", Text: allow(`Token::"kept"`)}, {Name: "changed", Text: allow(`Token::"old"`)}, {Name: "removed", Text: allow(`Token::"removed"`)},
		{Namespace: "payments", Name: "kept", Text: `permit (principal == Token::"namespaced", action, resource in Namespace::"payments");`},
	}
	after := []Policy{
		before[0], {Name: "changed", Text: allow(`Token::"new"`)}, before[3],
		{Name: "added", Text: allow(`Token::"added"`) + ` forbid (principal == Token::"kept", action == Action::"Decrypt", resource);`},
	}
	first, err := NewSet(1, before, nil)
	if err != nil {
		t.Fatal(err)
	}
	next, err := first.Next(2, after, nil)
	if err != nil {
		t.Fatal(err)
	}
	anew, err := NewSet(2, after, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"kept", "old", "new", "removed", "namespaced", "added", "nobody"} {
		for _, action := range []Action{Encrypt, Decrypt} {
			ask := func(s *Set) Decision {
				return s.Decide(&Request{Caller: &Caller{Type: Token, ID: id}, Action: action, Resource: &Resource{Namespace: "payments", Key: "card"}, Time: noon})
			}
			got, want := ask(next), ask(anew)
			if got.Verdict != want.Verdict || fmt.Sprint(got.Policies) != fmt.Sprint(want.Policies) || got.Revision != 2 {
				t.Errorf("%s may %s: %+v, made anew %+v", id, action, got, want)
			}
			if old := ask(first); (old.Verdict == Allow) != (id == "kept" || id == "old" || id == "removed" || id == "namespaced") {
				t.Errorf("the first set changed: %s may %s: %+v", id, action, old)
			}
		}
	}
	for id, shared := range map[string]bool{"kept": true, "payments/kept": true, "changed": false} {
		if got := first.byPolicy[id][0] == next.byPolicy[id][0]; got != shared {
			t.Errorf("%s is shared: %v", id, got)
		}
	}
	if len(next.statements) != len(anew.statements) || len(next.ordered) != len(anew.ordered) {
		t.Errorf("%d statements, made anew %d", len(next.statements), len(anew.statements))
	}
	twice := append(after[:len(after):len(after)], before[0])
	if _, err := next.Next(3, twice, nil); err == nil {
		t.Error("two policies of one name were taken")
	}
}

// BenchmarkNext changes one of ten thousand policies.
func BenchmarkNext(b *testing.B) {
	policies := make([]Policy, 10_000)
	for i := range policies {
		policies[i] = Policy{Name: fmt.Sprint("p", i), Text: fmt.Sprintf(`permit (principal == Token::"app-%d", action, resource in Namespace::"pay");`, i)}
	}
	set, err := NewSet(1, policies, nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, from := range []struct {
		name string
		set  *Set
	}{{"anew", nil}, {"after", set}} {
		b.Run(from.name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				policies[0].Text = fmt.Sprintf(`permit (principal == Token::"other-%d", action, resource);`, i)
				if _, err := from.set.Next(2, policies, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
