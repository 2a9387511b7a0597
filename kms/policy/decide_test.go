package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// app is a caller that most tests grant something to.
func app() *Caller {
	return &Caller{Type: Token, ID: "app", Method: "token", TokenID: "t1"}
}

// card is a key that most tests ask for.
func card() *Resource {
	return &Resource{
		Namespace: "payments", Key: "card", Labels: map[string]string{"env": "prod"},
		Purpose: "ENCRYPT_DECRYPT", Algorithm: "XAES_256_GCM", Protection: "SOFTWARE", Revision: 7,
	}
}

func ask(action Action, edits ...func(*Request)) *Request {
	r := &Request{Caller: app(), Action: action, Resource: card(), Time: noon}
	for _, edit := range edits {
		edit(r)
	}
	return r
}

// newSet validates the texts as policies p0, p1, … of the installation and
// compiles them.
func newSet(t testing.TB, texts ...string) *Set {
	t.Helper()
	var policies []Policy
	for i, text := range texts {
		policies = append(policies, Policy{Name: fmt.Sprintf("p%d", i), Text: text})
	}
	return compile(t, policies...)
}

func compile(t testing.TB, policies ...Policy) *Set {
	t.Helper()
	for _, p := range policies {
		if err := Validate(p); err != nil {
			t.Fatalf("Validate: %v", err)
		}
	}
	set, err := NewSet(3, policies, nil)
	if err != nil {
		t.Fatalf("NewSet: %v", err)
	}
	return set
}

const (
	permitAll    = `permit (principal, action, resource);`
	overflow     = `9223372036854775807 + (if principal == User::"nobody" then 0 else 1) > 0`
	encrypterRow = `permit (principal == Token::"app", action in Action::"encrypter", resource in Namespace::"payments");`
)

func TestDecide(t *testing.T) {
	groups := func(names ...string) func(*Request) { return func(r *Request) { r.Caller.Groups = names } }
	labels := func(pairs map[string]string) func(*Request) { return func(r *Request) { r.Resource.Labels = pairs } }
	encryptionContext := func(pairs map[string]string) func(*Request) {
		return func(r *Request) { r.EncryptionContext = pairs }
	}
	source := func(addr string) func(*Request) {
		return func(r *Request) { r.Caller.Source = netip.MustParseAddr(addr) }
	}
	at := func(time time.Time) func(*Request) { return func(r *Request) { r.Time = time } }
	resource := func(namespace, key string) func(*Request) {
		return func(r *Request) { r.Resource = &Resource{Namespace: namespace, Key: key, Revision: 1} }
	}
	caller := func(kind PrincipalType, id string) func(*Request) {
		return func(r *Request) { r.Caller = &Caller{Type: kind, ID: id, Method: "mtls", TrustDomain: "prod"} }
	}
	const (
		byTag     = `permit (principal, action == Action::"Encrypt", resource) when { resource.hasTag("env") && resource.getTag("env") == "prod" };`
		byContext = `permit (principal, action, resource) when { context.encryptionContext.hasTag("tenant") && context.encryptionContext.getTag("tenant") == principal.name };`
		bySource  = `permit (principal, action, resource) when { context has source && context.source.isInRange(ip("10.0.0.0/8")) };`
		byTime    = `permit (principal, action, resource) when { context.time < datetime("2026-11-23T12:00:01Z") };`
		notTagged = `forbid (principal, action, resource) unless { resource.hasTag("env") };`
	)
	for _, test := range []struct {
		name     string
		policies []string
		request  *Request
		want     Verdict
		by       string // determining policies
		reason   string
	}{
		{"nothing", nil, ask(Encrypt), Deny, "", "no policy permits this"},
		{"one line", []string{encrypterRow}, ask(Encrypt), Allow, "p0", "permitted by p0"},
		{"role lacks action", []string{encrypterRow}, ask(Decrypt), Deny, "", "no policy permits this"},
		{"other principal", []string{encrypterRow}, ask(Encrypt, caller(Token, "other")), Deny, "", "no policy permits this"},
		{"other type, same id", []string{encrypterRow}, ask(Encrypt, caller(User, "app")), Deny, "", ""},
		{"other namespace", []string{encrypterRow}, ask(Encrypt, resource("hr", "card")), Deny, "", ""},
		{"namespace itself", []string{encrypterRow}, ask(GenerateRandom, resource("payments", "")), Allow, "p0", ""},
		{"one key", []string{`permit (principal, action, resource == Key::"payments/card");`}, ask(Encrypt), Allow, "p0", ""},
		{"one key, other", []string{`permit (principal, action, resource == Key::"payments/card");`}, ask(Encrypt, resource("payments", "card2")), Deny, "", ""},
		{"installation", []string{`permit (principal, action, resource in System::"keywright");`}, ask(GetStatus, resource("", "")), Allow, "p0", ""},
		{"installation holds keys", []string{`permit (principal, action, resource in System::"keywright");`}, ask(Encrypt), Allow, "p0", ""},
		{"installation only", []string{`permit (principal, action, resource == System::"keywright");`}, ask(Encrypt), Deny, "", ""},
		{"type of resource", []string{`permit (principal, action, resource is Namespace);`}, ask(Encrypt), Deny, "", ""},
		{"type in namespace", []string{`permit (principal, action, resource is Key in Namespace::"payments");`}, ask(Encrypt), Allow, "p0", ""},
		{"type of principal", []string{`permit (principal is Token, action, resource);`}, ask(Encrypt), Allow, "p0", ""},
		{"type of principal, other", []string{`permit (principal is User, action, resource);`}, ask(Encrypt), Deny, "", ""},
		{"some actions", []string{`permit (principal, action in [Action::"Sign", Action::"encrypter"], resource);`}, ask(Encrypt), Allow, "p0", ""},

		{"forbid wins", []string{permitAll, `forbid (principal, action == Action::"Encrypt", resource);`}, ask(Encrypt), Deny, "p1", "forbidden by p1"},
		{"forbid elsewhere", []string{permitAll, `forbid (principal, action == Action::"Decrypt", resource);`}, ask(Encrypt), Allow, "p0", ""},
		{"two permits", []string{permitAll, encrypterRow}, ask(Encrypt), Allow, "p0 p1", "permitted by p0, p1"},
		{"two statements", []string{permitAll + encrypterRow}, ask(Encrypt), Allow, "p0", ""},
		{"erring forbid denies", []string{permitAll, `forbid (principal, action, resource) when { ` + overflow + ` };`}, ask(Encrypt), Deny, "p1", "p1 could not be evaluated"},
		{"erring forbid out of scope", []string{permitAll, `forbid (principal, action == Action::"Sign", resource) when { ` + overflow + ` };`}, ask(Encrypt), Allow, "p0", ""},
		{"erring unless denies", []string{permitAll, `forbid (principal, action, resource) unless { ` + overflow + ` };`}, ask(Encrypt), Deny, "p1", ""},
		{"erring permit is absent", []string{`permit (principal, action, resource) when { ` + overflow + ` };`}, ask(Encrypt), Deny, "", "no policy permits this"},
		{"erring permit beside another", []string{permitAll, `permit (principal, action, resource) when { ` + overflow + ` };`}, ask(Encrypt), Allow, "p0", ""},

		{"tag", []string{byTag}, ask(Encrypt), Allow, "p0", ""},
		{"tag differs", []string{byTag}, ask(Encrypt, labels(map[string]string{"env": "dev"})), Deny, "", ""},
		{"tag missing", []string{byTag}, ask(Encrypt, labels(nil)), Deny, "", "no policy permits this"},
		{"forbid unless tagged", []string{permitAll, notTagged}, ask(Encrypt, labels(nil)), Deny, "p1", ""},
		{"forbid unless tagged, tagged", []string{permitAll, notTagged}, ask(Encrypt), Allow, "p0", ""},
		{"attribute", []string{`permit (principal, action, resource) when { resource is Key && resource.protection == "SOFTWARE" && resource.name like "c*d" };`}, ask(Encrypt), Allow, "p0", ""},
		{"attribute differs", []string{`permit (principal, action, resource) when { resource is Key && resource.purpose == "MAC" };`}, ask(Encrypt), Deny, "", ""},
		{"principal's name", []string{`permit (principal, action, resource) when { principal.name like "prod:spiffe://corp/pay/*" && principal.trustDomain == "prod" };`}, ask(Encrypt, caller(Workload, "prod:spiffe://corp/pay/api")), Allow, "p0", ""},
		{"principal's name differs", []string{`permit (principal, action, resource) when { principal.name like "prod:spiffe://corp/pay/*" };`}, ask(Encrypt, caller(Workload, "dev:spiffe://corp/pay/api")), Deny, "", ""},

		{"group", []string{`permit (principal in Group::"ops", action, resource);`}, ask(Encrypt, groups("dev", "ops")), Allow, "p0", ""},
		{"group, not in it", []string{`permit (principal in Group::"ops", action, resource);`}, ask(Encrypt, groups("dev")), Deny, "", ""},
		{"group and type", []string{`permit (principal is User in Group::"ops", action, resource);`}, ask(Encrypt, groups("ops")), Deny, "", ""},
		{"group in condition", []string{permitAll, `forbid (principal, action, resource) unless { principal in Group::"ops" };`}, ask(Encrypt, groups("ops")), Allow, "p0", ""},

		{"encryption context", []string{byContext}, ask(Encrypt, encryptionContext(map[string]string{"tenant": "app"})), Allow, "p0", ""},
		{"encryption context differs", []string{byContext}, ask(Encrypt, encryptionContext(map[string]string{"tenant": "b"})), Deny, "", ""},
		{"no encryption context", []string{byContext}, ask(Encrypt), Deny, "", "no policy permits this"},
		{"source", []string{bySource}, ask(Encrypt, source("10.1.2.3")), Allow, "p0", ""},
		{"source mapped to IPv6", []string{bySource}, ask(Encrypt, source("::ffff:10.1.2.3")), Allow, "p0", ""},
		{"source elsewhere", []string{bySource}, ask(Encrypt, source("192.0.2.1")), Deny, "", ""},
		{"no source", []string{bySource}, ask(Encrypt), Deny, "", "no policy permits this"},
		{"source with zone", []string{`permit (principal, action, resource) when { context has source && context.source == ip("fe80::1") };`}, ask(Encrypt, source("fe80::1%eth0")), Allow, "p0", ""},
		{"in time", []string{byTime}, ask(Encrypt), Allow, "p0", ""},
		{"too late", []string{byTime}, ask(Encrypt, at(noon.Add(time.Second))), Deny, "", ""},
		{"method", []string{`permit (principal, action, resource) when { context.method == "mtls" };`}, ask(Encrypt), Deny, "", ""},

		{"no caller", []string{permitAll}, ask(Encrypt, func(r *Request) { r.Caller = nil }), Deny, "", "names no caller"},
		{"caller without id", []string{permitAll}, ask(Encrypt, caller(Token, "")), Deny, "", "names no caller"},
		{"caller of unknown type", []string{permitAll}, ask(Encrypt, caller("Group", "ops")), Deny, "", "unknown type"},
		{"no resource", []string{permitAll}, ask(Encrypt, func(r *Request) { r.Resource = nil }), Deny, "", "names no resource"},
		{"no time", []string{permitAll}, ask(Encrypt, at(time.Time{})), Deny, "", "no time"},
		{"key without namespace", []string{permitAll}, ask(Encrypt, resource("", "card")), Deny, "", "does not apply"},
		{"action on the wrong kind", []string{permitAll}, ask(Encrypt, resource("payments", "")), Deny, "", "does not apply"},
		{"unknown action", []string{permitAll}, ask("Exfiltrate"), Deny, "", "unknown action"},
		{"expired", []string{permitAll}, ask(Encrypt, func(r *Request) { r.Caller.Expires = noon }), Deny, "", "expired"},
		{"not yet expired", []string{permitAll}, ask(Encrypt, func(r *Request) { r.Caller.Expires = noon.Add(1) }), Allow, "p0", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := newSet(t, test.policies...)
			for round := range 2 { // the second answer may be a remembered one
				got := set.Decide(test.request)
				if got.Verdict != test.want || strings.Join(got.Policies, " ") != test.by || !strings.Contains(got.Reason, test.reason) {
					t.Errorf("round %d: got %+v, want %v by %q, reason %q", round, got, test.want, test.by, test.reason)
				}
				if got.Reason == "" || got.Revision != 3 {
					t.Errorf("round %d: decision lacks reason or revision: %+v", round, got)
				}
			}
		})
	}
}

func TestDecideNilRequest(t *testing.T) {
	if got := newSet(t, permitAll).Decide(nil); got.Verdict != Deny {
		t.Errorf("Decide(nil) = %+v, want a denial", got)
	}
}

func TestDecideNamesPoliciesThatErred(t *testing.T) {
	erring := `when { ` + overflow + ` };`
	set := newSet(t, permitAll, `permit (principal, action, resource) `+erring, `forbid (principal, action, resource) `+erring,
		`forbid (principal, action == Action::"Sign", resource);`)
	got := set.Decide(ask(Encrypt))
	if !slices.Equal(got.Erred, []string{"p1", "p2"}) || !slices.Equal(got.Policies, []string{"p2"}) {
		t.Errorf("got %+v, want p1 and p2 as erred, p2 as determining", got)
	}
	if got := set.Decide(ask(Sign)); got.Reason != "forbidden by p3" || !slices.Equal(got.Erred, []string{"p1", "p2"}) {
		t.Errorf("got %+v, want the forbid that matched as the reason", got)
	}
}

func TestNamespacePolicyIsCitedWithItsNamespace(t *testing.T) {
	set := compile(t,
		Policy{Name: "all", Namespace: "payments", Text: `permit (principal, action, resource in Namespace::"payments");`},
		Policy{Name: "all", Namespace: "hr", Text: `permit (principal, action, resource in Namespace::"hr");`})
	if got := set.Decide(ask(Encrypt)); !slices.Equal(got.Policies, []string{"payments/all"}) {
		t.Errorf("got %+v, want payments/all alone", got)
	}
}

// TestRoles pins what each role includes; above all, that neither admin nor
// operator can use a key, or take its material out.
func TestRoles(t *testing.T) {
	use := []Action{Encrypt, Decrypt, GenerateDataKey, GenerateDataKeyPair, Sign, Verify, GenerateMac, VerifyMac,
		AsymmetricDecrypt, DeriveSharedSecret, GenerateRandom, ExportKey}
	reader := []Action{GetPublicKey, GetKey, ListKeys, GetNamespace, ListNamespaces, GetStatus, GetCheckpoint, ListRoots}
	operator := slices.Concat(reader, []Action{CreateKey, UpdateKey, RotateKey, SetPrimaryVersion, EnableVersion,
		DisableVersion, DestroyVersion, RestoreVersion, DeleteKey, RestoreKey, ImportKey})
	auditor := slices.Concat(reader, []Action{ReadAudit, GetPolicy, ListPolicies, ExplainPolicy, GetGroup, ListGroups})
	all := Actions()
	admin := slices.DeleteFunc(slices.Clone(all), func(a Action) bool { return slices.Contains(use, a) })
	for role, want := range map[string][]Action{
		"encrypter": {Encrypt, GenerateDataKey, GenerateDataKeyPair, GenerateRandom, GetPublicKey},
		"decrypter": {Decrypt, AsymmetricDecrypt, DeriveSharedSecret},
		"verifier":  {Verify, VerifyMac, GetPublicKey},
		"signer":    {Sign, GenerateMac, Verify, VerifyMac, GetPublicKey},
		"exporter":  {ExportKey},
		"reader":    reader,
		"operator":  operator,
		"auditor":   auditor,
		"admin":     admin,
	} {
		set := newSet(t, fmt.Sprintf("permit (principal, action in Action::%q, resource);", role))
		for _, action := range all {
			request := ask(action)
			request.Resource = resourceFor(action)
			if got, want := set.Decide(request).Verdict == Allow, slices.Contains(want, action); got != want {
				t.Errorf("%s may %s: %v, want %v", role, action, got, want)
			}
		}
	}
}

// resourceFor returns some resource of a kind that the action applies to.
func resourceFor(action Action) *Resource {
	switch on := theModel().actions[action].on; {
	case on&onKey != 0:
		return card()
	case on&onNamespace != 0:
		return &Resource{Namespace: "payments", Revision: 1}
	default:
		return &Resource{Revision: 1}
	}
}

func TestPrincipalIsCedarText(t *testing.T) {
	c := &Caller{Type: User, ID: `corp:CN="eve\",O=x`}
	text := fmt.Sprintf(`permit (principal == %s, action, resource);`, c.Principal())
	set := newSet(t, text)
	if got := set.Decide(ask(Encrypt, func(r *Request) { r.Caller = c })); got.Verdict != Allow {
		t.Errorf("%s does not match its own caller: %+v", text, got)
	}
	if got := app().Principal(); got != `Token::"app"` {
		t.Errorf("Principal() = %s", got)
	}
}

func TestParseAction(t *testing.T) {
	if len(Actions()) != 54 {
		t.Errorf("%d actions, want 54", len(Actions()))
	}
	for _, a := range Actions() {
		if got, err := ParseAction(string(a)); err != nil || got != a {
			t.Errorf("ParseAction(%q) = %q, %v", a, got, err)
		}
	}
	for _, bad := range []string{"", "encrypt", "admin", "Encrypt "} {
		if _, err := ParseAction(bad); err == nil {
			t.Errorf("ParseAction(%q) succeeded", bad)
		}
	}
}

func TestVerdictText(t *testing.T) {
	for verdict, want := range map[Verdict]string{Deny: "deny", Allow: "allow", NeedsApproval: "needs approval", 99: "deny"} {
		if verdict.String() != want {
			t.Errorf("Verdict(%d) = %q, want %q", verdict, verdict, want)
		}
	}
}
