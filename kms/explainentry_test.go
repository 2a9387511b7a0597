package kms

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// useAs encrypts as a token and returns the entry that tells of it.
func (in *testInstallation) useAs(token string, context map[string]string) audit.Entry {
	in.t.Helper()
	_, _ = in.Encrypt(in.t.Context(), as(policy.Token, token), // the entry tells how it ended
		&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x"), Binding: Binding{Context: context}})
	return in.last("Encrypt")
}

func inShort(e policy.Explanation) string { return e.Verdict.String() + ": " + e.Reason }

// TestExplainEntryByThePoliciesOfThen: each use is explained by the policies that
// decided it, however they changed before and after, across a restart.
func TestExplainEntryByThePoliciesOfThen(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	permit := func(who string) string {
		return "permit (principal " + who + `, action in Action::"encrypter", resource in Namespace::"pay");`
	}
	steps := []struct {
		change     func()
		then, late string // how "late" is decided
	}{
		{func() {}, "deny: no policy permits this", ""},
		{func() { in.put("pay", "late", permit(`== Token::"late"`)) }, "allow: permitted by pay/late", ""},
		{func() { in.put("pay", "late", permit(`in Group::"late"`)) }, "deny: no policy permits this", ""},
		{func() { in.putGroup("late", `Token::"late"`, `Token::"more"`) }, "allow: permitted by pay/late", ""},
		{func() {
			in.put("", "stop", "forbid (principal, action, resource) when { context.method == \"internal\" && principal.name == \"late\" };")
		}, "deny: forbidden by stop", ""},
		{func() { _ = in.DeletePolicy(t.Context(), admin(), PolicyRef{Name: "stop"}) }, "allow: permitted by pay/late", ""},
		{func() { in.putGroup("late") }, "deny: no policy permits this", ""},
		{func() { in.putGroup("late", `Token::"late"`) }, "allow: permitted by pay/late", ""},
		{func() { _ = in.DeleteGroup(t.Context(), admin(), GroupRef{Name: "late"}) }, "deny: no policy permits this", ""},
	}
	entries := make([]audit.Entry, len(steps))
	for i, step := range steps {
		step.change()
		entries[i] = in.useAs("late", nil)
		if want, _, _ := strings.Cut(step.then, ":"); entries[i].Decision != want {
			t.Fatalf("step %d was decided %s, want %s", i, entries[i].Decision, want)
		}
	}
	in.close()
	in.open()
	for i, step := range steps {
		got := in.explain(admin(), ExplainRequest{Entry: &entries[i].Sequence})
		if inShort(got.Explanation) != step.then || got.Explanation.Revision != entries[i].PolicyRevision || len(got.Caveats) > 0 {
			t.Errorf("step %d: %s at revision %d, want %s at %d; caveats %q", i, inShort(got.Explanation), got.Explanation.Revision,
				step.then, entries[i].PolicyRevision, got.Caveats)
		}
		if last := i == len(steps)-1; (got.Now == nil) != last || !last && inShort(*got.Now) != "deny: no policy permits this" {
			t.Errorf("step %d, by the policies of now: %+v", i, got.Now)
		}
	}
	// The nearest miss is one of then, too.
	got := in.explain(admin(), ExplainRequest{Entry: &entries[2].Sequence}).Explanation.Statements[0]
	if got.Name != "late" || got.FailedPart != "principal" || got.Detail != `the principal is Token::"late", in no group` {
		t.Errorf("nearest: %+v", got)
	}
	changed := in.explain(admin(), ExplainRequest{Entry: &entries[0].Sequence, Changes: []PolicyChange{{Name: "new", Text: permit(`== Token::"late"`)}}})
	if inShort(changed.Explanation) != steps[0].then || inShort(*changed.Now) != "allow: permitted by new" {
		t.Errorf("with a proposed change: %+v", changed)
	}
}

// TestHistoryKnowsWhatEndedWithANamespace: its policies ended without a call.
func TestHistoryKnowsWhatEndedWithANamespace(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.put("pay", "late", `permit (principal == Token::"late", action, resource in Namespace::"pay");`)
	delay := 24 * time.Hour
	must[Namespace](t)(in.DeleteNamespace(t.Context(), admin(), DeleteNamespaceRequest{Namespace: "pay", Delay: &delay}))
	in.advance(25 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if gone, ok := in.namespaces.Load("pay"); !ok || !in.tend(t.Context(), gone) {
		t.Fatal("the namespace cannot be removed")
	}
	in.namespace("pay")
	in.key("pay", "card", "")
	entry := in.useAs("late", nil)
	if entry.Decision != audit.Deny {
		t.Fatalf("the policy of a namespace that is gone decides in the next one: %+v", entry)
	}
	in.put("", "later", `permit (principal == Token::"late", action, resource in Namespace::"pay");`)
	got := in.explain(admin(), ExplainRequest{Entry: &entry.Sequence})
	if inShort(got.Explanation) != "deny: no policy permits this" || len(got.Caveats) > 0 {
		t.Errorf("got %+v", got)
	}
}

func TestExplainEntryOfEachKind(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.key("pay", "other", "")
	in.put("", "tenant", `permit (principal == Token::"tenant", action, resource) when { context.encryptionContext.hasTag("t") && context.time > datetime("2020-01-01") };`)
	sealed := in.encrypt("pay", "card", "x")

	entry := in.useAs("tenant", map[string]string{"t": "1"})
	if got := in.explain(admin(), ExplainRequest{Entry: &entry.Sequence}); inShort(got.Explanation) != "allow: permitted by tenant" || len(got.Caveats) > 0 {
		t.Errorf("with a context: %+v", got)
	}
	one := as(policy.Token, "one")
	_, err := in.ReEncrypt(t.Context(), one, &ReEncryptRequest{Namespace: "pay", Key: "card", Ciphertext: sealed, DestinationKey: "other"})
	wantCode(t, err, PermissionDenied)
	entry = in.last("ReEncrypt")
	got := in.explain(admin(), ExplainRequest{Entry: &entry.Sequence})
	if got.Explanation.Verdict != policy.Deny || len(got.Caveats) != 1 || !strings.Contains(got.Caveats[0], "2 decisions; this is about Encrypt on pay/other") {
		t.Errorf("a re-encryption whose destination was denied: %+v", got)
	}
	_ = must[[]Result](t)(in.Batch(t.Context(), as(policy.Token, "tenant"), []Operation{
		&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x"), Binding: Binding{Context: map[string]string{"t": "1"}}},
		&EncryptRequest{Namespace: "pay", Key: "other", Plaintext: []byte("x")}}))
	entry = in.last("Batch")
	got = in.explain(admin(), ExplainRequest{Entry: &entry.Sequence})
	if len(got.Caveats) != 2 || !strings.Contains(got.Caveats[0], "only its hash") || !strings.Contains(got.Caveats[1], "tells of 2 decisions") {
		t.Errorf("a batch: %+v", got)
	}
	_, err = in.RotateKey(t.Context(), nobody(), KeyRef{Namespace: "pay", Key: "card"})
	wantCode(t, err, PermissionDenied)
	entry = in.last("RotateKey")
	if got := in.explain(admin(), ExplainRequest{Entry: &entry.Sequence}); inShort(got.Explanation) != "deny: no policy permits this" {
		t.Errorf("a mutation: %+v", got)
	}
	in.put("pay", "p", `permit (principal == Token::"x", action, resource in Namespace::"pay");`)
	for _, e := range in.entries(audit.Filter{Action: "PutPolicy"}) {
		if e.Phase != audit.PhaseOutcome {
			continue
		}
		if got := in.explain(admin(), ExplainRequest{Entry: &e.Sequence}); inShort(got.Explanation) != "allow: permitted by all" || len(got.Caveats) > 0 {
			t.Errorf("a change of a policy: %+v", got)
		}
	}
	for _, e := range in.entries(audit.Filter{}) {
		if e.Phase != audit.PhaseEvent && e.Phase != audit.PhaseIntent {
			continue
		}
		_, err := in.ExplainDecision(t.Context(), admin(), ExplainRequest{Entry: &e.Sequence})
		wantCode(t, err, FailedPrecondition, "decided")
	}
	none := in.audit.Next() + 5
	_, err = in.ExplainDecision(t.Context(), admin(), ExplainRequest{Entry: &none})
	wantCode(t, err, NotFound, fmt.Sprint(none))
}

// TestExplainEntryWithClaimedGroups: what the credential claimed counts as it did,
// in explanations and in comparisons.
func TestExplainEntryWithClaimedGroups(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.put("", "crew", `permit (principal in Group::"crew", action, resource);`)
	for _, groups := range [][]string{{"crew"}, {"other"}} {
		call := as(policy.Token, "late")
		call.Caller.Groups = groups
		_, _ = in.Encrypt(t.Context(), call, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		entry := in.last("Encrypt")
		got := in.explain(admin(), ExplainRequest{Entry: &entry.Sequence})
		if got.Explanation.Verdict.String() != entry.Decision || len(got.Caveats) > 0 {
			t.Errorf("in %v: logged %s, explained %+v", groups, entry.Decision, got)
		}
	}
	got := must[PolicyDiff](t)(in.DiffPolicies(t.Context(), admin(), DiffRequest{Changes: []PolicyChange{{Name: "crew"}}}))
	if len(got.Changed) != 1 || got.Changed[0].Count != 1 || got.Changed[0].Principal != `Token::"late"` || len(got.Undecidable) > 0 {
		t.Errorf("compared: %+v", got)
	}
}

// TestExplainEntryOfABoundedToken: the log tells whose bounds denied, which no
// policy explains.
func TestExplainEntryOfABoundedToken(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for name, caller := range map[string]*policy.Caller{
		"late": {Type: policy.Token, ID: "app", Method: "token", Parent: &policy.Caller{Type: policy.Token, ID: "late"}},
		"app":  {Type: policy.Token, ID: "app", Method: "token", Actions: []string{"Sign"}},
	} {
		_, err := in.Encrypt(t.Context(), Call{Caller: caller}, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		wantCode(t, err, PermissionDenied, "bounded by how it was made")
		entry := in.last("Encrypt")
		got := in.explain(admin(), ExplainRequest{Entry: &entry.Sequence})
		if len(got.Caveats) != 1 || !strings.Contains(got.Caveats[0], `the log says deny: the token was bounded by the narrowing or the rights of Token::"`+name) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestExplainEntrySaysWhatItCannotKnow(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	create := func(env string) {
		must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "card", Labels: map[string]string{"env": env}}))
	}
	create("prod")
	in.put("", "prod", `permit (principal == Token::"late", action, resource) when { resource.hasTag("env") && resource.getTag("env") == "prod" };`)
	entry := in.useAs("late", nil)
	caveats := func() []string { return in.explain(admin(), ExplainRequest{Entry: &entry.Sequence}).Caveats }
	if got := caveats(); len(got) > 0 {
		t.Errorf("nothing changed since, but %q", got)
	}
	in.advance(time.Minute)
	labels := map[string]string{"env": "dev"}
	must[Key](t)(in.UpdateKey(t.Context(), admin(), UpdateKeyRequest{Namespace: "pay", Key: "card", Labels: &labels}))
	if got := caveats(); len(got) != 2 || !strings.Contains(got[0], "changed since") || !strings.Contains(got[1], "the log says allow") {
		t.Errorf("after a label changed: %q", got)
	}
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card"}))
	if got := caveats(); len(got) != 2 || !strings.Contains(got[0], "does not exist now") {
		t.Errorf("after the key was deleted: %q", got)
	}
	create("prod")
	if got := caveats(); len(got) != 1 || !strings.Contains(got[0], "newer one") {
		t.Errorf("after another key took the name: %q", got)
	}
}

func TestDiffPolicies(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.namespace("hr")
	in.key("pay", "card", "")
	in.key("hr", "k", "")
	in.put("", "hr", `permit (principal == Token::"app", action in Action::"encrypter", resource in Namespace::"hr");`)
	first := in.useAs("app", nil)
	in.useAs("app", map[string]string{"a": "1"})
	in.useAs("late", nil)
	app := appCall()
	batch := []Operation{&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}, &EncryptRequest{Namespace: "hr", Key: "k", Plaintext: []byte("x")},
		&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("y"), Binding: Binding{Context: map[string]string{"a": "1"}}}}
	must[[]Result](t)(in.Batch(t.Context(), app, batch))
	diff := func(q DiffRequest) PolicyDiff {
		t.Helper()
		return must[PolicyDiff](t)(in.DiffPolicies(t.Context(), admin(), q))
	}
	stop := PolicyChange{Namespace: "pay", Name: "stop", Text: `forbid (principal == Token::"app", action == Action::"Encrypt", resource in Namespace::"pay");`}
	got := diff(DiffRequest{Changes: []PolicyChange{stop}})
	want := []ChangedDecision{{Principal: `Token::"app"`, Action: policy.Encrypt, Namespace: "pay", Key: "card", Before: policy.Allow, After: policy.Deny,
		Count: 4, Entry: first.Sequence, Reason: "forbidden by pay/stop"}}
	if !slices.Equal(got.Changed, want) || len(got.Undecidable) > 0 || got.Truncated {
		t.Errorf("got %+v, want %+v", got, want)
	}
	late := PolicyChange{Name: "late", Text: `permit (principal == Token::"late", action, resource);`}
	got = diff(DiffRequest{Changes: []PolicyChange{late}})
	if len(got.Changed) != 1 || got.Changed[0].Before != policy.Deny || got.Changed[0].After != policy.Allow || got.Changed[0].Count != 1 || got.Entries < 5 {
		t.Errorf("of a permit: %+v", got)
	}
	byContext := PolicyChange{Name: "c", Text: `forbid (principal == Token::"app", action, resource) when { context.encryptionContext.hasTag("a") };`}
	got = diff(DiffRequest{Changes: []PolicyChange{byContext}})
	if len(got.Changed) != 1 || got.Changed[0].Count != 1 || len(got.Undecidable) != 1 {
		t.Errorf("of a forbid by context: %+v", got)
	}
	for reason, n := range got.Undecidable {
		if n != 2 || !strings.Contains(reason, "hash") { // the batch's count for pay/card has one context of two items
			t.Errorf("undecidable: %d because %s", n, reason)
		}
	}
	if got := diff(DiffRequest{Changes: []PolicyChange{stop}, Until: time.Now().Add(-time.Hour)}); len(got.Changed) > 0 || got.Entries != 0 {
		t.Errorf("of another time: %+v", got)
	}
	in.advance(48 * time.Hour)
	if got := diff(DiffRequest{Changes: []PolicyChange{stop}}); len(got.Changed) > 0 {
		t.Errorf("of the last day: %+v", got)
	}
	if got := diff(DiffRequest{Changes: []PolicyChange{stop}, Since: time.Now().Add(-time.Hour)}); len(got.Changed) != 1 {
		t.Errorf("of two days ago: %+v", got)
	}
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "hr", Key: "k"}))
	byLabel := PolicyChange{Name: "l", Text: `forbid (principal == Token::"app", action, resource in Namespace::"hr") when { resource.hasTag("x") };`}
	if got := diff(DiffRequest{Changes: []PolicyChange{byLabel}, Since: time.Now().Add(-time.Hour)}); len(got.Undecidable) != 1 {
		t.Errorf("of a key that is gone: %+v", got)
	}
	_, err := in.DiffPolicies(t.Context(), admin(), DiffRequest{})
	wantCode(t, err, InvalidArgument, "changes")
}
