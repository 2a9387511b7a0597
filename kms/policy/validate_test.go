package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/policy/internal/cedartext"
)

func TestValidateAccepts(t *testing.T) {
	for name, p := range map[string]Policy{
		"one line":               {Text: encrypterRow},
		"several, with comments": {Text: "// a\n@id(\"when\")\n" + permitAll + "\n// b\nforbid (principal, action, resource) unless { principal in Group::\"ops\" };\n// end"},
		"owned, namespace":       {Namespace: "payments", Text: encrypterRow},
		"owned, keys":            {Namespace: "payments", Text: `forbid (principal, action, resource == Key::"payments/card"); permit (principal, action, resource is Key in Namespace::"payments");`},
		"long lists":             {Text: `permit (principal, action, resource) when { ` + strings.Repeat(`principal == Token::"a" || `, 1000) + `false };`},
		"admin":                  {Text: `permit (principal in Group::"admins", action in Action::"admin", resource in System::"keywright");`},
		"arithmetic":             {Text: `forbid (principal, action, resource) when { ` + overflow + ` };`},
		"office hours":           {Text: `permit (principal, action, resource) when { context.time.toTime() >= duration("8h") && context.time.toTime() < duration("18h") };`},
		"branches":               {Text: `permit (principal, action, resource) when { if resource.hasTag("env") then resource.getTag("env") == "dev" else false };`},
		"keys only":              {Text: `permit (principal, action, resource is Key) when { ["MAC", "SIGN_VERIFY"].contains(resource.purpose) };`},
	} {
		p.Name = "p"
		if err := Validate(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := NewSet(1, []Policy{p}, nil); err != nil {
			t.Errorf("%s: NewSet: %v", name, err)
		}
	}
}

// TestValidateRefuses checks that every mistake is refused with its place, the
// problem and advice.
func TestValidateRefuses(t *testing.T) {
	when := func(condition string) string {
		return "permit (principal, action, resource)\nwhen { principal is User }\nunless {\n  " + condition + "\n};"
	}
	for _, test := range []struct {
		name, text      string
		line, column    int
		problem, advice string
	}{
		{"empty", "", 0, 0, "no statement", "permit ("},
		{"comment only", "// nothing\n", 0, 0, "no statement", "permit ("},
		{"too long", strings.Repeat(" ", MaxPolicySize+1), 0, 0, "65537 bytes", "split"},
		{"not UTF-8", "permit (\n \xff", 2, 2, "not valid UTF-8", "UTF-8"},
		{"NUL", "permit (\x00principal, action, resource);", 1, 8, "NUL", "permit ("},
		{"not Cedar", "allow everything", 1, 1, "allow", "permit ("},
		{"missing semicolon", "permit (principal, action, resource)\n" + permitAll, 2, 1, `expected ";" but found "permit"`, "permit ("},
		{"missing comma", "permit (principal action, resource);", 1, 19, `expected "," but found "action"`, "permit ("},
		{"unfinished", "permit (principal, action", 1, 26, "the end of the text", "permit ("},
		{"unclosed string", "permit (principal == User::\"x", 1, 0, "cannot read", "permit ("},
		{"integer out of range", permitAll + "\npermit (principal, action, resource) when { 99999999999999999999 > 1 };", 2, 1, "cannot read", "permit ("},
		{"unknown function", when(`resource.matches("x")`), 4, 0, "matches", "permit ("},
		{"deep", when(strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100)), 4, 0, "too complex", "simplify"},
		{"deep ifs", when(strings.Repeat("if true then true else ", 100) + "true"), 4, 0, "too complex", "simplify"},
		{"many signs", when("!!!!!true"), 4, 7, "too complex", "simplify"},

		{"principal type", "permit (\n  principal == Person::\"x\",\n  action, resource);", 2, 3, `Person::"x"`, "Workload, User and Token"},
		{"principal is", "permit (principal is Person, action, resource);", 1, 9, "`Person`", "Workload, User and Token"},
		{"principal equals group", "permit (principal == Group::\"x\", action, resource);", 1, 9, "cannot be equal", "principal in Group"},
		{"principal in namespace", "permit (principal in Namespace::\"x\", action, resource);", 1, 9, "cannot be in", "principal in Group"},
		{"principal without id", "permit (principal == User::\"\", action, resource);", 1, 9, "no id", "principal is User"},
		{"action", "permit (principal, action == Action::\"Frob\", resource);", 1, 20, `unknown action Action::"Frob"`, "encrypter"},
		{"action's case", "permit (principal, action == Action::\"encrypt\", resource);", 1, 20, "unknown action", `Action::"Encrypt"`},
		{"action equals role", "permit (principal, action == Action::\"admin\", resource);", 1, 20, "is a role", `action in Action::"admin"`},
		{"no actions", "permit (principal, action in [], resource);", 1, 20, "empty set", "at least one"},
		{"action of other type", "permit (principal, action == Act::\"Encrypt\", resource);", 1, 20, "`Act`", "principals are"},
		{"resource type", "permit (principal, action, resource == Bucket::\"x\");", 1, 28, "no resource", "Namespace::"},
		{"resource is", "permit (principal, action, resource is Bucket);", 1, 28, "`Bucket`", "Namespace::"},
		{"namespace's name", "permit (principal, action, resource in Namespace::\"a/b\");", 1, 28, "cannot exist", "1 to 63"},
		{"key's name", "permit (principal, action, resource == Key::\"card\");", 1, 28, "cannot exist", `Key::"namespace/key"`},
		{"key's name, long", "permit (principal, action, resource == Key::\"a/b/c\");", 1, 28, "cannot exist", `Key::"namespace/key"`},
		{"installation's name", "permit (principal, action, resource in System::\"x\");", 1, 28, "does not exist", `System::"keywright"`},
		{"inapplicable", "permit (principal, action == Action::\"Encrypt\",\nresource == Namespace::\"payments\");", 1, 1, "applicable action", "in Namespace"},
		{"annotated", "@principal(\"x\")\npermit (principal == Group::\"x\", action, resource);", 2, 9, "cannot be equal", "Group"},

		{"unguarded tag", when(`resource.getTag("env") == "prod"`), 4, 19, "`\"env\"`", "hasTag"},
		{"tag guarded elsewhere", "permit (principal, action, resource)\nwhen { resource.hasTag(\"env\") }\nwhen { resource.getTag(\"env\") == \"x\" };", 3, 24, "tag", "in the same condition"},
		{"tag guarded by or", when(`resource.hasTag("env") || resource.getTag("env") == "prod"`), 4, 19, "tag", "hasTag"},
		{"tag guarded by another", when(`resource.hasTag("a") && resource.getTag("b") == "prod"`), 4, 43, "tag", "hasTag"},
		{"unguarded encryption context", when(`context.encryptionContext.getTag("tenant") == "x"`), 4, 36, "tag", "hasTag"},
		{"unguarded source", when(`context.source.isLoopback()`), 4, 11, "`source`", "context has source"},
		{"unknown in context", when(`context.tenant == "x"`), 4, 11, "`tenant`", "encryptionContext"},
		{"attribute of keys only", when(`resource.purpose == "MAC"`), 4, 12, "`purpose`", "resource is Key"},
		{"unknown attribute", "permit (principal, action, resource is Key)\nwhen { resource.labels == \"x\" };", 2, 17, "`labels`", "hasTag"},
		{"unknown principal attribute", when(`principal.email == "x"`), 4, 0, "`email`", "trustDomain"},
		{"tags of a principal", when(`principal.hasTag("a") && principal.getTag("a") == "b"`), 3, 1, "no tags", "Group"},
		{"label as attribute", when(`resource has env && resource.env == "prod"`), 3, 1, "`env`", `hasTag("env")`},
		{"long chain", when("context" + strings.Repeat(".a", 20) + " == 1"), 4, 0, "dots", "split"},
		{"many guards in all", strings.Repeat(when("context has source && context has source"), 130), 516, 0, "hasTag", "split"},
		{"many guards", when(strings.Repeat(`resource.hasTag("a") && `, 40) + "true"), 4, 0, "hasTag", "split"},
		{"types", when(`context.time < 5`), 3, 1, "datetime is compared with one of type Long", "one type"},
		{"durations against times", when(`context.time.toTime() >= (if true then context.time else context.time)`), 3, 1, "duration is compared", "one type"},
		{"not a condition", when(`resource`), 3, 1, "Bool", "type"},
		{"strings against numbers", when(`context.method == 5`), 3, 1, "not compatible", "one type"},
		{"bad address", when(`context has source && context.source.isInRange(ip("10.0.0.0/99"))`), 4, 0, "failed to parse", `ip("10.0.0.0/8")`},
		{"computed address", when(`ip(context.method).isLoopback()`), 3, 0, "non-literal", "literal"},
		{"arguments", when(`context.time.toTime(1) == duration("1h")`), 3, 0, "number of arguments", "arguments"},
		{"empty set", when(`[].contains(1)`), 3, 0, "empty set", "one element"},
		{"reads another key", when(`Key::"a/b".purpose == "MAC"`), 3, 1, "not known", "principal, resource or context"},
		{"reads another key, hidden", when(`(if principal is User then Key::"a/b" else Key::"a/c").hasTag("x")`), 3, 1, "not known", "principal, resource or context"},
		{"unknown entity in condition", when(`principal in Team::"x"`), 3, 1, "`Team`", "principals are"},
		{"unknown type in condition", when(`resource is key`), 3, 1, "`key`", "resources are"},
		{"unknown type in condition, in", when(`resource is key in Namespace::"x"`), 3, 1, "`key`", "resources are"},
		{"unknown action in condition", when(`action == Action::"Frob"`), 3, 1, "unknown action", "encrypter"},
		{"second statement", permitAll + "\n" + when(`context.tenant == "x"`), 5, 11, "`tenant`", "encryptionContext"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := Validate(Policy{Name: "p", Text: test.text})
			var invalid *InvalidPolicy
			if !errors.As(err, &invalid) {
				t.Fatalf("Validate = %v, want *InvalidPolicy", err)
			}
			t.Log(err)
			if invalid.Name != "p" || invalid.Line != test.line || test.column > 0 && invalid.Column != test.column || (invalid.Line > 0) != (invalid.Column > 0) {
				t.Errorf("%q at %d:%d, want %d:%d", invalid.Name, invalid.Line, invalid.Column, test.line, test.column)
			}
			if !strings.Contains(invalid.Problem, test.problem) || !strings.Contains(invalid.Advice, test.advice) {
				t.Errorf("got problem %q, advice %q\nwant %q, %q", invalid.Problem, invalid.Advice, test.problem, test.advice)
			}
			if invalid.Problem == "" || invalid.Advice == "" || strings.Contains(invalid.Advice, "see the schema for what exists") {
				t.Errorf("no problem or only general advice: %+v", invalid)
			}
		})
	}
}

func TestValidateNames(t *testing.T) {
	for _, p := range []Policy{
		{Name: ""}, {Name: ".."}, {Name: "a/b"}, {Name: strings.Repeat("a", 64)}, {Name: "a\n"}, {Name: "ä"},
		{Name: "p", Namespace: "-"}, {Name: "p", Namespace: "a/b"},
	} {
		p.Text = permitAll
		var invalid *InvalidPolicy
		if err := Validate(p); !errors.As(err, &invalid) || invalid.Advice == "" {
			t.Errorf("Validate(%+v) = %v, want *InvalidPolicy with advice", p, err)
		}
		if _, err := NewSet(1, []Policy{p}, nil); !errors.As(err, &invalid) {
			t.Errorf("NewSet(%+v) = %v, want *InvalidPolicy", p, err)
		}
	}
}

// TestConfinement checks that a namespace cannot own a policy that reaches
// beyond it, neither when it is written nor when it is compiled.
func TestConfinement(t *testing.T) {
	for resource, confined := range map[string]bool{
		`resource == Namespace::"payments"`:                  true,
		`resource in Namespace::"payments"`:                  true,
		`resource is Key in Namespace::"payments"`:           true,
		`resource is Namespace in Namespace::"payments"`:     true,
		`resource == Key::"payments/card"`:                   true,
		`resource in Key::"payments/card"`:                   true,
		`resource`:                                           false,
		`resource is Key`:                                    false,
		`resource is Namespace`:                              false,
		`resource in System::"keywright"`:                    false,
		`resource == System::"keywright"`:                    false,
		`resource in Namespace::"hr"`:                        false,
		`resource in Namespace::"payments2"`:                 false,
		`resource == Key::"hr/card"`:                         false,
		`resource == Key::"payments2/card"`:                  false,
		`resource is Namespace in System::"keywright"`:       false,
		`resource is Key in Namespace::"Payments"`:           false,
		`resource is Key in Namespace::"payments.x"`:         false,
		`resource == Namespace::"payments\u{0}"`:             false,
		`resource == Key::"payments/card") when { true };//`: true,
	} {
		for _, effect := range []string{"permit", "forbid"} {
			p := Policy{Name: "p", Namespace: "payments", Text: effect + "(principal, action,\n" + resource + ");"}
			var invalid *InvalidPolicy
			err := Validate(p)
			if (err == nil) != confined {
				t.Errorf("Validate(%s) = %v", p.Text, err)
			}
			if !confined && (!errors.As(err, &invalid) || invalid.Line != 2 || invalid.Column != 1 || invalid.Name != "payments/p") {
				t.Errorf("Validate(%s) = %+v, want the place of the resource", p.Text, err)
			}
			if _, err := NewSet(1, []Policy{p}, nil); (err == nil) != confined {
				t.Errorf("NewSet(%s) = %v", p.Text, err)
			}
		}
	}
}

func TestConfinementOfEveryStatement(t *testing.T) {
	p := Policy{Name: "p", Namespace: "payments", Text: encrypterRow + "\n" + permitAll}
	var invalid *InvalidPolicy
	if err := Validate(p); !errors.As(err, &invalid) || invalid.Line != 2 {
		t.Errorf("Validate = %v, want line 2 refused", err)
	}
}

func TestNewSetRefusesDuplicates(t *testing.T) {
	p := Policy{Name: "p", Text: permitAll}
	var invalid *InvalidPolicy
	if _, err := NewSet(1, []Policy{p, p}, nil); !errors.As(err, &invalid) || invalid.Name != "p" {
		t.Errorf("NewSet = %v, want *InvalidPolicy", err)
	}
	q := Policy{Name: "p", Namespace: "payments", Text: encrypterRow}
	if _, err := NewSet(1, []Policy{p, q}, nil); err != nil {
		t.Errorf("same name with another owner: %v", err)
	}
}

func TestInvalidPolicyText(t *testing.T) {
	err := &InvalidPolicy{Name: "ns/p", Line: 2, Column: 5, Problem: "bad", Advice: "do better"}
	if got, want := err.Error(), `policy "ns/p", line 2, column 5: bad; do better`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestValidateIsQuick bounds what the longest texts cost: whoever may write one
// policy must not be able to stall the server.
func TestValidateIsQuick(t *testing.T) {
	fill := func(head, each, tail string) string {
		return head + strings.Repeat(each, (MaxPolicySize-len(head)-len(tail))/len(each)) + tail
	}
	var guards strings.Builder
	for i := range cedartext.MaxGuards {
		fmt.Fprintf(&guards, `resource.hasTag("%d") && `, i)
	}
	const limit = 30 * time.Second // without limits on complexity it is many minutes
	for name, text := range map[string]string{
		"brackets": fill("permit (principal, action, resource) when { ", "(", " };"),
		"signs":    fill("permit (principal, action, resource) when { ", "!", "true };"),
		"ors":      fill("permit (principal, action, resource) when { ", "true || ", "true };"),
		"accesses": fill("permit (principal, action, resource) when { context", ".a", " };"),
		"has":      fill("permit (principal, action, resource) when { context has a", ".a", " };"),
		"guards":   strings.Repeat("permit (principal, action, resource) when { "+guards.String()+"true };", cedartext.MaxPolicyGuards/cedartext.MaxGuards),
		"many":     fill("", permitAll, ""),
		"set":      fill("permit (principal, action, resource) when { [", `"a",`, `"a"].contains("b") };`),
		"bytes":    fill("", "\xff", ""),
		"strings":  fill("", `"`, ""),
	} {
		start := time.Now()
		err := Validate(Policy{Name: "p", Text: text})
		took := time.Since(start)
		t.Logf("%s: %v, valid: %v", name, took, err == nil)
		if took > limit {
			t.Errorf("%s: took %v", name, took)
		}
	}
}
