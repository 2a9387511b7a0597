package kms

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

func (in *testInstallation) explain(call Call, q ExplainRequest) ExplainedDecision {
	in.t.Helper()
	return must[ExplainedDecision](in.t)(in.ExplainDecision(in.t.Context(), call, q))
}

func suppose(principal, action, namespace, key string) *SupposedRequest {
	return &SupposedRequest{Principal: principal, Action: action, Namespace: namespace, Key: key}
}

// last returns the newest entry of an action that is not an intent.
func (in *testInstallation) last(action string) audit.Entry {
	in.t.Helper()
	entries := in.entries(audit.Filter{Action: action})
	if len(entries) == 0 {
		in.t.Fatalf("no entry of %s", action)
	}
	return entries[len(entries)-1]
}

func TestExplainSupposed(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "card", Labels: map[string]string{"env": "prod"}}))
	in.put("", "prod", `permit (principal == Workload::"corp:spiffe://a", action == Action::"Sign", resource)
		when { resource.hasTag("env") && resource.getTag("env") == "prod" && principal.trustDomain == "corp" && context.method == "mtls" };`)
	in.put("", "ops", `permit (principal in Group::"ops", action == Action::"GetKey", resource) when { context has source && context.source.isLoopback() };`)
	in.put("", "tenant", `permit (principal == Token::"t", action == Action::"Decrypt", resource) when {
		context.encryptionContext.hasTag("tenant") && context.time < datetime("2020-01-01") && context.method == "unix" };`)
	in.putGroup("ops", `User::"corp:alice"`)
	for _, test := range []struct {
		name string
		q    SupposedRequest
		want policy.Verdict
		text string
	}{
		{"a token", *suppose(`Token::"app"`, "Encrypt", "pay", "card"), policy.Allow, "permitted by all"},
		{"a token, otherwise", *suppose(`Token::"app"`, "Sign", "pay", "card"), policy.Deny, "no policy permits this"},
		{"labels of the store", *suppose(`Workload::"corp:spiffe://a"`, "Sign", "pay", "card"), policy.Allow, "permitted by prod"},
		{"a key that does not exist has no labels", *suppose(`Workload::"corp:spiffe://a"`, "Sign", "pay", "none"), policy.Deny, "no policy"},
		{"a namespace that does not exist", *suppose(`User::"root"`, "Sign", "none", "none"), policy.Allow, "permitted by all"},
		{"a stored group", SupposedRequest{Principal: `User::"corp:alice"`, Action: "GetKey", Namespace: "pay", Key: "card", Source: "127.0.0.1"}, policy.Allow, "ops"},
		{"from elsewhere", SupposedRequest{Principal: `User::"corp:alice"`, Action: "GetKey", Namespace: "pay", Key: "card", Source: "192.0.2.1"}, policy.Deny, ""},
		{"a claimed group", SupposedRequest{Principal: `Token::"x"`, Groups: []string{"ops"}, Action: "GetKey", Namespace: "pay", Key: "card", Source: "::1"}, policy.Allow, "ops"},
		{"context, time and method", SupposedRequest{Principal: `Token::"t"`, Action: "Decrypt", Namespace: "pay", Key: "card", Method: "unix",
			EncryptionContext: map[string]string{"tenant": "a"}, Time: time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC)}, policy.Allow, "tenant"},
		{"the installation", *suppose(`User::"root"`, "GetStatus", "", ""), policy.Allow, "all"},
	} {
		got := in.explain(admin(), ExplainRequest{Supposed: &test.q})
		if got.Explanation.Verdict != test.want || !strings.Contains(got.Explanation.Reason, test.text) || got.Now != nil || len(got.Caveats) > 0 {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
	for field, q := range map[string]SupposedRequest{
		"principal":          *suppose("app", "Encrypt", "pay", "card"),
		"action":             *suppose(`Token::"app"`, "encrypt", "pay", "card"),
		"namespace":          *suppose(`Token::"app"`, "Encrypt", "", "card"),
		"key":                *suppose(`Token::"app"`, "Encrypt", "pay", "a/b"),
		"source":             {Principal: `Token::"app"`, Action: "Encrypt", Source: "here"},
		"method":             {Principal: `Token::"app"`, Action: "Encrypt", Method: "magic"},
		"groups":             {Principal: `Token::"app"`, Action: "Encrypt", Groups: []string{""}},
		"encryption_context": {Principal: `Token::"app"`, Action: "Encrypt", EncryptionContext: map[string]string{"": strings.Repeat("x", 9000)}},
	} {
		_, err := in.ExplainDecision(t.Context(), admin(), ExplainRequest{Supposed: &q})
		wantCode(t, err, InvalidArgument)
		if e, ok := err.(*Error); !ok || e.Field != field {
			t.Errorf("%s: %v is about field %q", field, err, e.Field)
		}
	}
	_, err := in.ExplainDecision(t.Context(), admin(), ExplainRequest{})
	wantCode(t, err, InvalidArgument, "subject")
}

func TestExplainProposedChanges(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	before := in.policies.set.Load()
	sign := suppose(`Token::"app"`, "Sign", "pay", "card")
	explained := must[[]policy.Explanation](t)(in.TestPolicies(t.Context(), admin(), TestRequest{
		Requests: []SupposedRequest{*sign, *suppose(`Token::"app"`, "Encrypt", "pay", "card"), *suppose(`User::"root"`, "GetStatus", "", "")},
		Changes: []PolicyChange{{Name: "all"}, {Namespace: "pay", Name: "sign",
			Text: `permit (principal == Token::"app", action in Action::"signer", resource in Namespace::"pay");`}}}))
	var got []string
	for _, e := range explained {
		got = append(got, e.Verdict.String()+" "+e.Reason)
	}
	if want := []string{"allow permitted by pay/sign", "deny no policy permits this", "deny no policy permits this"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if in.policies.set.Load() != before || len(in.policies.source.policies) != 1 {
		t.Error("a dry run changed what is in force")
	}
	for _, test := range []struct {
		change PolicyChange
		code   Code
		text   string
	}{
		{PolicyChange{Name: "none"}, NotFound, "ListPolicies"},
		{PolicyChange{Name: "bad", Text: "permit"}, InvalidArgument, "bad"},
		{PolicyChange{Name: "a/b", Text: "permit (principal, action, resource);"}, InvalidArgument, "name"},
		{PolicyChange{Namespace: "pay", Name: "far", Text: "permit (principal, action, resource);"}, InvalidArgument, "owned by namespace"},
	} {
		_, err := in.ExplainDecision(t.Context(), admin(), ExplainRequest{Supposed: sign, Changes: []PolicyChange{test.change}})
		wantCode(t, err, test.code, test.text)
	}
	_, err := in.TestPolicies(t.Context(), admin(), TestRequest{Requests: make([]SupposedRequest, MaxSupposed+1)})
	wantCode(t, err, InvalidArgument, "1000")
	_, err = in.TestPolicies(t.Context(), admin(), TestRequest{})
	wantCode(t, err, InvalidArgument, "1000")
	_, err = in.TestPolicies(t.Context(), admin(), TestRequest{Requests: []SupposedRequest{*sign}, Changes: make([]PolicyChange, MaxPolicyChanges+1)})
	wantCode(t, err, InvalidArgument, "100")
}

// TestWhoMayExplain: auditors may, of a namespace about that namespace; others
// get the same refusal whatever they ask about.
func TestWhoMayExplain(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.namespace("hr")
	in.key("pay", "card", "")
	in.key("hr", "k", "")
	in.put("pay", "auditor", `permit (principal == User::"auditor", action in Action::"auditor", resource in Namespace::"pay");`)
	in.encrypt("pay", "card", "x")
	payEntry := in.last("Encrypt").Sequence
	in.encrypt("hr", "k", "x")
	hrEntry := in.last("Encrypt").Sequence
	missing := in.audit.Next() + 1000
	auditor, pay, hr := as(policy.User, "auditor"), suppose(`Token::"app"`, "Encrypt", "pay", "card"), suppose(`Token::"app"`, "Encrypt", "hr", "k")
	own, foreign := PolicyChange{Namespace: "pay", Name: "auditor"}, PolicyChange{Name: "all"}
	for name, test := range map[string]struct {
		ask  func(Call) error
		want Code // of the namespace's auditor; everybody else is denied
	}{
		"explain": {func(c Call) error { return second(in.ExplainDecision(t.Context(), c, ExplainRequest{Supposed: pay})) }, OK},
		"explain another namespace": {func(c Call) error {
			return second(in.ExplainDecision(t.Context(), c, ExplainRequest{Supposed: hr}))
		}, PermissionDenied},
		"explain the installation": {func(c Call) error {
			return second(in.ExplainDecision(t.Context(), c, ExplainRequest{Supposed: suppose(`Token::"app"`, "GetStatus", "", "")}))
		}, PermissionDenied},
		"explain an entry": {func(c Call) error {
			return second(in.ExplainDecision(t.Context(), c, ExplainRequest{Entry: &payEntry}))
		}, OK},
		"explain another namespace's entry": {func(c Call) error {
			return second(in.ExplainDecision(t.Context(), c, ExplainRequest{Entry: &hrEntry}))
		}, PermissionDenied},
		"explain no entry": {func(c Call) error {
			return second(in.ExplainDecision(t.Context(), c, ExplainRequest{Entry: &missing}))
		}, PermissionDenied},
		"test": {func(c Call) error {
			return second(in.TestPolicies(t.Context(), c, TestRequest{Requests: []SupposedRequest{*pay}, Changes: []PolicyChange{own}}))
		}, OK},
		"test two namespaces": {func(c Call) error {
			return second(in.TestPolicies(t.Context(), c, TestRequest{Requests: []SupposedRequest{*pay, *hr}}))
		}, PermissionDenied},
		"test the installation's policies": {func(c Call) error {
			return second(in.TestPolicies(t.Context(), c, TestRequest{Requests: []SupposedRequest{*pay}, Changes: []PolicyChange{foreign}}))
		}, PermissionDenied},
		"compare": {func(c Call) error {
			return second(in.DiffPolicies(t.Context(), c, DiffRequest{Changes: []PolicyChange{own}}))
		}, OK},
		"compare the installation's policies": {func(c Call) error {
			return second(in.DiffPolicies(t.Context(), c, DiffRequest{Changes: []PolicyChange{own, foreign}}))
		}, PermissionDenied},
		"who": {func(c Call) error {
			return second(in.ListPermitted(t.Context(), c, PermittedRequest{Action: "Encrypt", Namespace: "pay", Key: "card"}))
		}, OK},
		"who, of another namespace": {func(c Call) error {
			return second(in.ListPermitted(t.Context(), c, PermittedRequest{Action: "Encrypt", Namespace: "hr", Key: "k"}))
		}, PermissionDenied},
	} {
		if err := test.ask(auditor); CodeOf(err) != test.want {
			t.Errorf("%s: the namespace's auditor gets %v, want %s", name, err, test.want)
		}
		for _, other := range []Call{nobody(), appCall(), as(policy.User, "operator")} {
			if err := test.ask(other); CodeOf(err) != PermissionDenied {
				t.Errorf("%s: %s gets %v", name, other.Caller.Principal(), err)
			}
		}
		if err := test.ask(admin()); CodeOf(err) == PermissionDenied {
			t.Errorf("%s: the administrator gets %v", name, err)
		}
	}
	if e := in.last("ExplainPolicy"); e.Outcome == "" || e.Decision == "" {
		t.Errorf("an explanation is logged as %+v", e)
	}
}

func TestListPermitted(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.put("", "ops", `permit (principal in Group::"ops", action in Action::"encrypter", resource) when { resource is Key && resource.purpose == "ENCRYPT_DECRYPT" && context has source };`)
	in.put("", "stop", `forbid (principal == Token::"app", action, resource) when { context.method == "unix" };`)
	in.putGroup("ops", `User::"alice"`)
	got := must[PermittedList](t)(in.ListPermitted(t.Context(), admin(), PermittedRequest{Action: "Encrypt", Namespace: "pay", Key: "card"}))
	var who []string
	for _, g := range got.Grants {
		who = append(who, strings.Join(append(append([]string{g.Who}, g.Members...), g.Conditions...), " "))
	}
	want := []string{`User::"root"`, `Token::"app"`, `Token::"one"`, `Group::"ops" User::"alice" when { resource is Key && resource.purpose == "ENCRYPT_DECRYPT" && context has source }`}
	if !slices.Equal(who, want) {
		t.Errorf("got %q, want %q", who, want)
	}
	if len(got.Exceptions) != 1 || got.Exceptions[0].Detail != `Token::"app" when { context.method == "unix" }` {
		t.Errorf("exceptions %+v", got.Exceptions)
	}
	for _, bad := range []PermittedRequest{{Action: "encrypt"}, {Action: "Encrypt"}, {Action: "Encrypt", Namespace: "pay"}, {Action: "Encrypt", Namespace: "a/b"}} {
		_, err := in.ListPermitted(t.Context(), admin(), bad)
		wantCode(t, err, InvalidArgument)
	}
}
