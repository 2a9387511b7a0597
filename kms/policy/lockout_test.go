package policy

import "testing"

func TestGoverned(t *testing.T) {
	const (
		root  = `permit (principal == User::"root", action in Action::"admin", resource);`
		ops   = `permit (principal in Group::"ops", action in Action::"admin", resource in System::"keywright");`
		boot  = `permit (principal == Token::"boot", action in Action::"admin", resource);`
		maker = `permit (principal == User::"maker", action == Action::"CreateToken", resource);`
	)
	permit := func(condition string) string {
		return `permit (principal == User::"root", action == Action::"PutPolicy", resource) ` + condition + ";"
	}
	forbid := func(scope, condition string) string {
		return "forbid (" + scope + ", action, resource) " + condition + ";"
	}
	members := func(names ...string) []Group { return []Group{{"ops", names}} }
	for _, test := range []struct {
		name   string
		groups []Group
		texts  []string
		want   bool
	}{
		{"no policies", nil, nil, false},
		{"a principal", nil, []string{root}, true},
		{"everybody", nil, []string{permitAll}, true},
		{"a type", nil, []string{`permit (principal is User, action, resource == System::"keywright");`}, true},
		{"other actions", nil, []string{`permit (principal, action in Action::"operator", resource); permit (principal, action == Action::"GetPolicy", resource);`}, false},
		{"a namespace alone", nil, []string{`permit (principal, action, resource in Namespace::"payments");`}, false},
		{"namespaces alone", nil, []string{`permit (principal, action, resource is Namespace); permit (principal, action, resource is Key);`}, false},
		{"a stored group", members(`User::"a"`), []string{ops}, true},
		{"an empty group", members(), []string{ops}, false},
		{"a group that is not stored", nil, []string{ops}, false},
		{"of a group, the wrong type", members(`User::"a"`), []string{`permit (principal is Workload in Group::"ops", action, resource);`}, false},
		{"tokens that nobody can create", nil, []string{boot}, false},
		{"tokens that only tokens can create", nil, []string{boot, `permit (principal is Token, action, resource);`}, false},
		{"tokens that somebody can create", nil, []string{boot, maker}, true},
		{"tokens in a group that somebody can create", members(`Token::"x"`), []string{ops, maker}, true},
		{"a condition on the context", nil, []string{permit(`when { context.time < datetime("2030-01-01") && context has source }`)}, true},
		{"a condition on the trust domain", nil, []string{permit(`when { principal.trustDomain == "prod" }`)}, true},
		{"a condition that never holds", nil, []string{permit(`when { false }`)}, false},
		{"a condition on the wrong name", nil, []string{permit(`when { principal.name == "toor" }`)}, false},
		{"a condition on the right name", nil, []string{permit(`unless { principal.name == "toor" }`)}, true},
		{"a condition on a label", nil, []string{permit(`when { resource is Key }`)}, false},
		{"a condition that errs", nil, []string{permit(`when { 9223372036854775807 + 1 > 0 }`)}, false},
		{"all forbidden", nil, []string{root, forbid("principal", "")}, false},
		{"forbidden to him", nil, []string{root, forbid(`principal == User::"root"`, "")}, false},
		{"forbidden to another", nil, []string{root, forbid(`principal == User::"eve"`, "")}, true},
		{"forbidden to his type", nil, []string{root, forbid(`principal is User`, "")}, false},
		{"forbidden to one type of all", nil, []string{permitAll, forbid(`principal is User`, "")}, true},
		{"forbidden to all types that count", nil, []string{permitAll, forbid(`principal is User`, ""), forbid(`principal is Workload`, "")}, false},
		{"forbidden to one of all", nil, []string{permitAll, forbid(`principal == User::"root"`, "")}, true},
		{"forbidden on a condition", nil, []string{root, forbid("principal", `unless { context has source && context.source.isLoopback() }`)}, true},
		{"forbidden on a condition that always holds", nil, []string{root, forbid("principal", `unless { resource is Key }`)}, false},
		{"forbidden by an error", nil, []string{root, forbid("principal", `when { 9223372036854775807 + 1 > 0 }`)}, false},
		{"a member of two is forbidden", members(`User::"a"`, `User::"b"`), []string{ops, forbid(`principal == User::"a"`, "")}, true},
		{"the group is forbidden", members(`User::"a"`, `User::"b"`), []string{ops, forbid(`principal in Group::"ops"`, "")}, false},
		{"a namespace is forbidden", nil, []string{root, `forbid (principal, action, resource in Namespace::"payments");`}, true},
		{"another permit stands", nil, []string{root, forbid(`principal == User::"root"`, ""), ops}, false},
	} {
		for _, text := range test.texts {
			if err := Validate(Policy{Name: "p", Text: text}); err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
		}
		if got := withGroups(t, test.groups, test.texts...).Governed(&Resource{}); got != test.want {
			t.Errorf("%s: governed %v, want %v", test.name, got, test.want)
		}
	}
}

func TestGovernedNamespace(t *testing.T) {
	const root = `permit (principal == User::"root", action in Action::"admin", resource);`
	stop := func(condition string) string {
		return `forbid (principal, action, resource in Namespace::"payments") ` + condition + ";"
	}
	labelled := &Resource{Namespace: "payments", Labels: map[string]string{"env": "prod"}}
	for _, test := range []struct {
		name  string
		texts []string
		want  bool
	}{
		{"the administrator", []string{root}, true},
		{"the namespace's own", []string{`permit (principal == User::"a", action == Action::"PutPolicy", resource in Namespace::"payments");`}, true},
		{"its keys alone", []string{`permit (principal == User::"a", action, resource is Key in Namespace::"payments");`}, false},
		{"another namespace's", []string{`permit (principal == User::"a", action, resource in Namespace::"hr");`}, false},
		{"the installation alone", []string{`permit (principal, action, resource == System::"keywright");`}, false},
		{"forbidden", []string{root, stop("")}, false},
		{"forbidden but to one", []string{root, stop(`unless { principal.name == "root" }`)}, true},
		{"forbidden by a label", []string{root, stop(`when { resource.hasTag("env") }`)}, false},
		{"forbidden by another label", []string{root, stop(`when { resource.hasTag("team") }`)}, true},
	} {
		if got := newSet(t, test.texts...).Governed(labelled); got != test.want {
			t.Errorf("%s: governed %v, want %v", test.name, got, test.want)
		}
	}
}
