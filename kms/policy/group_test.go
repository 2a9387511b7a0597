package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func withGroups(t testing.TB, groups []Group, texts ...string) *Set {
	t.Helper()
	var policies []Policy
	for i, text := range texts {
		policies = append(policies, Policy{Name: fmt.Sprintf("p%d", i), Text: text})
	}
	set, err := NewSet(3, policies, groups)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestStoredGroupsCount(t *testing.T) {
	ops := []Group{{"ops", []string{`Token::"app"`, `User::"app"`}}, {"empty", nil}, {"more", []string{`Token::"app"`}}}
	permitOps := `permit (principal in Group::"ops", action, resource);`
	for _, test := range []struct {
		name   string
		groups []Group
		text   string
		edit   func(*Request)
		want   Verdict
	}{
		{"a member", ops, permitOps, func(*Request) {}, Allow},
		{"another type's member", ops, permitOps, func(r *Request) { r.Caller.Type = Workload }, Deny},
		{"no member", ops, permitOps, func(r *Request) { r.Caller.ID = "app2" }, Deny},
		{"no groups", nil, permitOps, func(*Request) {}, Deny},
		{"a claimed group of the name", ops, permitOps, func(r *Request) { r.Caller.ID, r.Caller.Groups = "x", []string{"ops"} }, Allow},
		{"claimed and stored", ops, permitOps, func(r *Request) { r.Caller.Groups = []string{"ops", "more"} }, Allow},
		{"another", ops, `permit (principal in Group::"empty", action, resource);`, func(*Request) {}, Deny},
		{"in a condition", ops, `permit (principal, action, resource) when { principal in Group::"more" };`, func(*Request) {}, Allow},
		{"a type in a group", ops, `permit (principal is User in Group::"ops", action, resource);`, func(*Request) {}, Deny},
	} {
		set := withGroups(t, test.groups, test.text)
		r := ask(Encrypt, test.edit)
		for range 2 {
			if got := set.Decide(r); got.Verdict != test.want {
				t.Errorf("%s: %+v, want %v", test.name, got, test.want)
			}
		}
	}
	// A statement is found once, however often its group is named.
	set := withGroups(t, ops, permitOps)
	r := ask(Encrypt, func(r *Request) { r.Caller.Groups = []string{"ops", "more"} })
	if got := len(set.candidates(set.query(r, r.Caller, theModel().actions[Encrypt])).statements); got != 1 {
		t.Errorf("%d candidates, want 1", got)
	}
}

func TestCheckGroup(t *testing.T) {
	many := make([]string, MaxGroupMembers+1)
	for i := range many {
		many[i] = fmt.Sprintf(`Token::"t%d"`, i)
	}
	long := slices.Repeat([]string{""}, 400)
	for i := range long {
		long[i] = fmt.Sprintf(`User::"%d-%s"`, i, strings.Repeat("x", 1000))
	}
	for _, test := range []struct {
		name    string
		members []string
		field   string
		text    string
	}{
		{"ops", nil, "", ""},
		{"ops", many[1:], "", ""},
		{"ops", []string{`User::"corp:CN=\"eve\",O=x"`, `Workload::"prod:spiffe://a/b"`, `Token::"é"`}, "", ""},
		{"", nil, "name", "not valid"},
		{"a/b", nil, "name", "not valid"},
		{"ops", many, "members", "limits are 10000"},
		{"ops", long, "members", "limits are"},
		{"ops", []string{"app"}, "members", "is no principal"},
		{"ops", []string{`Group::"g"`}, "members", "is no principal"},
		{"ops", []string{`Token::""`}, "members", "is no principal"},
		{"ops", []string{`Token::"a" `}, "members", `write it as Token::"a"`},
		{"ops", []string{`Token::"\u{61}"`}, "members", `write it as Token::"a"`},
		{"ops", []string{`Token::"a"`, `Token::"a"`}, "members", "twice"},
		{"ops", []string{"Token::\"\xff\""}, "members", "is no principal"},
	} {
		err := CheckGroup(Group{test.name, test.members})
		var invalid *InvalidGroup
		if errors.As(err, &invalid) != (test.field != "") || invalid != nil && (invalid.Field != test.field || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%q: %v, want %q about %q", test.name, err, test.text, test.field)
		}
		if _, setErr := NewSet(1, nil, []Group{{test.name, test.members}}); (setErr == nil) != (err == nil) {
			t.Errorf("%q: CheckGroup says %v, NewSet %v", test.name, err, setErr)
		}
	}
}

// FuzzParsePrincipal checks that what is read is written the same again, and that
// every principal that can be written can be read.
func FuzzParsePrincipal(f *testing.F) {
	for _, text := range []string{`Token::"app"`, `User::"corp:CN=\"eve\\\",O=x"`, `Workload::"`, `Token::"\u{0}\n"`, `Group::"x"`, `A::B::"c"`, "", "::", `"a"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if kind, id, err := ParsePrincipal(text); err == nil {
			again := (&Caller{Type: kind, ID: id}).Principal()
			if k, i, err := ParsePrincipal(again); err != nil || k != kind || i != id {
				t.Errorf("%q is %s %q, written %q, which is %s %q, %v", text, kind, id, again, k, i, err)
			}
		}
		if text == "" || strings.ToValidUTF8(text, "") != text {
			return
		}
		written := (&Caller{Type: User, ID: text}).Principal()
		if _, id, err := ParsePrincipal(written); err != nil || id != text {
			t.Errorf("%q is written %q, read %q, %v", text, written, id, err)
		}
	})
}
