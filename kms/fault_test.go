package kms

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store/storetest"
)

// scene is an installation in which every mutation has something to change.
type scene struct {
	*testInstallation
	sealed map[string][]byte // by plaintext
	old    Key               // deleted, to be restored
	tokens []NewToken        // a lease, one that is revoked, one that is not
}

func newScene(t *testing.T) *scene {
	in := &scene{testInstallation: newInstallation(t), sealed: map[string][]byte{}}
	ctx := t.Context()
	in.namespace("pay")
	day := 24 * time.Hour
	for _, name := range []string{"card", "old", "period", "spent"} {
		create := CreateKeyRequest{Namespace: "pay", Key: name}
		if name == "period" {
			create.Rotation.Period = day
		}
		k := must[Key](t)(in.CreateKey(ctx, admin(), create))
		for range 2 {
			in.use(name)
			must[KeyVersion](t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: "pay", Key: name}))
		}
		in.use(name)
		if name == "old" {
			in.old = k
		}
	}
	must[KeyVersion](t)(in.DisableVersion(ctx, admin(), ref("card", 1)))
	must[KeyVersion](t)(in.DestroyVersion(ctx, admin(), DestroyRequest{Namespace: "pay", Key: "period", Version: 1, Delay: &day}))
	must[Key](t)(in.DeleteKey(ctx, admin(), DestroyRequest{Namespace: "pay", Key: "old", Delay: &day}))
	must[Key](t)(in.UpdateKey(ctx, admin(), UpdateKeyRequest{Namespace: "pay", Key: "spent", Rotation: &Rotation{MaxUses: MinRotationUses}}))
	for range MinRotationUses {
		in.encrypt("pay", "spent", "x")
	}
	in.newHSMKeys()
	in.newTransitKey()
	in.putImports()
	in.namespace("gone")
	must[Namespace](t)(in.DeleteNamespace(ctx, admin(), DeleteNamespaceRequest{Namespace: "gone"}))
	in.namespace("spare")
	in.beginRekey("spare")
	in.endRekeying("spare")
	put := PutPolicyRequest{Name: "guest", Text: `permit (principal == User::"guest", action, resource);`}
	must[Policy](t)(in.PutPolicy(ctx, admin(), put))
	in.tokens = []NewToken{in.token(admin(), CreateTokenRequest{Principal: "lessee", RenewableFor: 2 * time.Hour}),
		in.token(admin(), CreateTokenRequest{Principal: "app"}), in.token(admin(), CreateTokenRequest{Principal: "app"})}
	in.revoke(admin(), RevokeTokensRequest{ID: in.tokens[1].ID})
	return in
}

// newHSMKeys makes a key on the token to be rotated, and one with a version that is
// to be destroyed and a period.
func (in *scene) newHSMKeys() {
	in.hsmKey("token", "AES_256_GCM", Rotation{})
	in.hsmKey("token-period", "AES_256_GCM", Rotation{Period: 24 * time.Hour})
	in.use("token-period")
	must[KeyVersion](in.t)(in.RotateKey(in.t.Context(), admin(), KeyRef{Namespace: "pay", Key: "token-period"}))
	day := 24 * time.Hour
	must[KeyVersion](in.t)(in.DestroyVersion(in.t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "token-period", Version: 1, Delay: &day}))
	in.use("token")
}

// viewTokens is which tokens are valid, what is revoked, and which leases there are.
func (in *scene) viewTokens(b *strings.Builder) {
	in.t.Helper()
	for i, made := range in.tokens {
		caller, err := in.VerifyToken(made.Text)
		fmt.Fprintf(b, "token %d: %s\n", i, CodeOf(err))
		if err == nil {
			fmt.Fprintf(b, "  until %s\n", must[*policy.Caller](in.t)(in.Self(in.t.Context(), Call{Caller: caller})).Expires)
		}
	}
	revocations, _, err := in.ListRevocations(in.t.Context(), admin(), ListRequest{})
	if err = errors.Join(err, in.eachLease(in.t.Context(), func(l leaseRecord) { fmt.Fprintf(b, "lease %+v\n", l) })); err != nil {
		in.t.Fatal(err)
	}
	fmt.Fprintf(b, "%+v\n", revocations)
}

func (in *scene) use(name string) {
	text := fmt.Sprintf("%s %d", name, len(in.sealed))
	in.sealed[text] = in.encrypt("pay", name, text)
}

// view is all that callers can see: what is described and what every ciphertext
// opens to.
func (in *scene) view() string {
	in.t.Helper()
	var b strings.Builder
	ctx := in.t.Context()
	namespaces, _, err := in.ListNamespaces(ctx, admin(), ListRequest{})
	policies, _, err2 := in.ListPolicies(ctx, admin(), ListRequest{})
	_, guest := in.GetNamespace(ctx, as(policy.User, "guest"), "pay")
	_, visitor := in.GetNamespace(ctx, as(policy.User, "visitor"), "pay")
	fmt.Fprintf(&b, "%v\n%v\nguest %s visitor %s\n", namespaces, policies, CodeOf(guest), CodeOf(visitor))
	in.viewTokens(&b)
	for _, r := range in.roots() {
		if r.State == RootActive { // what is made and then taken back is nobody's to see
			fmt.Fprintf(&b, "root %d %s\n", r.Version, r.ID)
		}
	}
	for _, ns := range namespaces {
		named := must[*namespace](in.t)(in.findNamespace(ctx, ns.Name))
		fmt.Fprintf(&b, "cached %+v\n", named.Namespace)
		keys, _, err := in.ListKeys(ctx, admin(), ListKeysRequest{Namespace: ns.Name, ShowDeleted: true})
		if err != nil {
			in.t.Fatal(err)
		}
		for _, k := range keys {
			in.viewKey(&b, k)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(in.sealed)) {
		got, err := in.Decrypt(ctx, admin(), &DecryptRequest{Namespace: "pay", Ciphertext: in.sealed[text]})
		if err == nil && string(got.Plaintext) != text {
			in.t.Fatalf("Decrypt = %q, want %q", got.Plaintext, text)
		}
		fmt.Fprintf(&b, "%s: %s %v\n", text, CodeOf(err), err)
	}
	if err := errors.Join(err, err2); err != nil {
		in.t.Fatal(err)
	}
	return b.String()
}

func (in *scene) viewKey(b *strings.Builder, k Key) {
	ctx, id := in.t.Context(), idPrefix+k.ID.String()
	cached := must[Key](in.t)(in.GetKey(ctx, admin(), KeyRef{Namespace: k.Namespace, Key: id}))
	if in.text(cached) != in.text(k) {
		in.t.Errorf("memory has %+v, the store %+v", cached, k)
	}
	fmt.Fprintln(b, in.text(cached))
	versions, _, err := in.ListVersions(ctx, admin(), ListVersionsRequest{Namespace: k.Namespace, Key: id})
	if err != nil || len(versions) != int(k.LatestVersion) {
		in.t.Errorf("key %s has %d versions, its latest is %d, %v", k.Name, len(versions), k.LatestVersion, err)
	}
	for _, v := range versions {
		v.LastUsed = time.Time{}
		fmt.Fprintf(b, "  %+v\n", v)
	}
	counted := k.Name == "spent" || k.Protection == HSMLevel || k.Transit != nil // it may have to reserve uses
	if k.State == KeyActive && !counted {
		got, err := in.Encrypt(ctx, admin(), &EncryptRequest{Namespace: k.Namespace, Key: k.Name, Plaintext: []byte("x")})
		if got.Version != k.PrimaryVersion {
			in.t.Errorf("key %s encrypts with version %d, its primary is %d, %v", k.Name, got.Version, k.PrimaryVersion, err)
		}
	}
}

// mutation is a change, sent with an idempotency key.
type mutation struct {
	name string
	// silent changes are made by jobs: nobody is told of their failure.
	silent bool
	// commit is which of its commits makes the change, the first if 0.
	commit int
	do     func(in *scene, idempotency string) error
}

func second[A any](_ A, err error) error { return err }

var mutations = slices.Concat(transitMutations, []mutation{
	{name: "create namespace", do: func(in *scene, i string) error {
		return second(in.CreateNamespace(in.t.Context(), admin(), CreateNamespaceRequest{Namespace: "new", Idempotency: i}))
	}},
	{name: "update namespace", do: func(in *scene, i string) error {
		q := UpdateNamespaceRequest{Namespace: "pay", Labels: &map[string]string{"a": "b"}, Quotas: &Quotas{MaxKeys: 9}, Idempotency: i}
		return second(in.UpdateNamespace(in.t.Context(), admin(), q))
	}},
	{name: "delete namespace", do: func(in *scene, i string) error {
		return second(in.DeleteNamespace(in.t.Context(), admin(), DeleteNamespaceRequest{Namespace: "spare", Idempotency: i}))
	}},
	{name: "restore namespace", do: func(in *scene, i string) error {
		return second(in.RestoreNamespace(in.t.Context(), admin(), NamespaceRef{Namespace: "gone", Idempotency: i}))
	}},
	{name: "rekey", do: func(in *scene, i string) error {
		return second(in.RekeyNamespace(in.t.Context(), admin(), NamespaceRef{Namespace: "pay", Idempotency: i}))
	}},
	{name: "confirm erasure", do: func(in *scene, i string) error {
		q := ConfirmErasureRequest{Namespace: "spare", Generation: 1, Idempotency: i}
		return second(in.ConfirmErasure(in.t.Context(), admin(), q))
	}},
	{name: "create key", do: func(in *scene, i string) error {
		return second(in.CreateKey(in.t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "new", Idempotency: i}))
	}},
	{name: "update key", do: func(in *scene, i string) error {
		q := UpdateKeyRequest{Namespace: "pay", Key: "card", Labels: &map[string]string{"a": "b"}, Rotation: &Rotation{Period: time.Hour}, Idempotency: i}
		return second(in.UpdateKey(in.t.Context(), admin(), q))
	}},
	{name: "rotate", do: func(in *scene, i string) error {
		return second(in.RotateKey(in.t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card", Idempotency: i}))
	}},
	{name: "set primary", do: func(in *scene, i string) error {
		return second(in.SetPrimaryVersion(in.t.Context(), admin(), VersionRef{"pay", "card", 2, i}))
	}},
	{name: "disable", do: func(in *scene, i string) error {
		return second(in.DisableVersion(in.t.Context(), admin(), VersionRef{"pay", "card", 2, i}))
	}},
	{name: "enable", do: func(in *scene, i string) error {
		return second(in.EnableVersion(in.t.Context(), admin(), VersionRef{"pay", "card", 1, i}))
	}},
	{name: "destroy", do: func(in *scene, i string) error {
		return second(in.DestroyVersion(in.t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 2, Idempotency: i}))
	}},
	{name: "restore", do: func(in *scene, i string) error {
		return second(in.RestoreVersion(in.t.Context(), admin(), VersionRef{"pay", "period", 1, i}))
	}},
	{name: "delete key", do: func(in *scene, i string) error {
		return second(in.DeleteKey(in.t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Idempotency: i}))
	}},
	{name: "restore key", do: func(in *scene, i string) error {
		return second(in.RestoreKey(in.t.Context(), admin(), RestoreKeyRequest{Namespace: "pay", ID: in.old.ID, Idempotency: i}))
	}},
	{name: "put policy", do: func(in *scene, i string) error {
		q := PutPolicyRequest{Name: "visitor", Text: `permit (principal == User::"visitor", action, resource);`, Idempotency: i}
		return second(in.PutPolicy(in.t.Context(), admin(), q))
	}},
	{name: "delete policy", do: func(in *scene, i string) error {
		return in.DeletePolicy(in.t.Context(), admin(), PolicyRef{Name: "guest", Idempotency: i})
	}},
	{name: "create lease", do: func(in *scene, i string) error {
		q := CreateTokenRequest{Principal: "new", RenewableFor: 3 * time.Hour, Idempotency: i}
		return second(in.CreateToken(in.t.Context(), admin(), q))
	}},
	{name: "renew token", do: func(in *scene, _ string) error {
		lease := Call{Caller: must[*policy.Caller](in.t)(in.VerifyToken(in.tokens[0].Text))}
		_, err := in.RenewToken(in.t.Context(), lease, RenewTokenRequest{TTL: 3 * time.Hour})
		if reasonOf(err) == "TOKEN_AT_MAXIMUM" {
			err = nil // sent again, it finds that it has been renewed
		}
		return err
	}},
	{name: "revoke token", do: func(in *scene, i string) error {
		return second(in.RevokeTokens(in.t.Context(), admin(), RevokeTokensRequest{ID: in.tokens[2].ID, Idempotency: i}))
	}},
	{name: "revoke tokens of a principal", do: func(in *scene, i string) error {
		return second(in.RevokeTokens(in.t.Context(), admin(), RevokeTokensRequest{Principal: `Token::"lessee"`, Idempotency: i}))
	}},
	{name: "rotation by use", do: func(in *scene, _ string) error {
		got, err := in.Encrypt(in.t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "spent", Plaintext: []byte("x")})
		if err == nil && got.Version != 4 {
			in.t.Errorf("encrypted with version %d, want 4", got.Version)
		}
		return err
	}},
	{name: "rotate root", silent: true, do: func(in *scene, i string) error {
		return second(in.RotateRoot(in.t.Context(), admin(), RotateRootRequest{Idempotency: i}))
	}},
	{name: "jobs", silent: true, do: func(in *scene, _ string) error {
		in.clock.Store(int64(25 * time.Hour))
		return in.runDue(in.t.Context())
	}},
	{name: "create key on the token", commit: 2, do: func(in *scene, i string) error {
		return second(in.CreateKey(in.t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "new", Protection: HSMLevel, Idempotency: i}))
	}},
	{name: "rotate key on the token", commit: 2, do: func(in *scene, i string) error {
		return second(in.RotateKey(in.t.Context(), admin(), KeyRef{Namespace: "pay", Key: "token", Idempotency: i}))
	}},
	{name: "import version", do: func(in *scene, i string) error {
		q := in.toImport("XAES_256_GCM")
		return second(in.ImportVersion(in.t.Context(), admin(), ImportVersionRequest{Namespace: "pay", Key: "card", Job: q.Job, Wrapped: q.Wrapped, MakePrimary: true, Idempotency: i}))
	}},
	{name: "import key to the token", commit: 2, do: func(in *scene, i string) error {
		q := in.toImport("AES_256_GCM")
		return second(in.ImportKey(in.t.Context(), admin(), ImportKeyRequest{Namespace: "pay", Key: "new", Job: q.Job, Wrapped: q.Wrapped, Idempotency: i}))
	}},
	{name: "jobs on the token", silent: true, do: func(in *scene, _ string) error {
		in.clock.Store(int64(25 * time.Hour))
		return errors.Join(in.runDue(in.t.Context()), in.runTokenDue(in.t.Context()), in.removeOrphans(in.t.Context()))
	}},
})

// Whatever becomes of a commit, the caller is told what is known of it, memory
// agrees with the store, nothing half is left, and sending the change again
// makes it exactly once.
func TestFailedCommits(t *testing.T) {
	faults := map[storetest.Fault]string{storetest.Failed: "STORE_UNAVAILABLE", storetest.Persisted: "OUTCOME_UNKNOWN", storetest.Lost: "OUTCOME_UNKNOWN"}
	for _, m := range mutations {
		for fault, reason := range faults {
			t.Run(fmt.Sprintf("%s/%d", m.name, fault), func(t *testing.T) {
				t.Parallel()
				testFailedCommit(t, m, fault, reason)
			})
		}
	}
}

func testFailedCommit(t *testing.T, m mutation, fault storetest.Fault, reason string) {
	in := newScene(t)
	before := in.view()
	in.store.FailNth(max(m.commit, 1), fault)
	err := m.do(in, "once")
	var e *Error
	if !m.silent && (!errors.As(err, &e) || e.Code != Unavailable || e.Reason != reason) {
		t.Fatalf("error %v, want reason %s", err, reason)
	}
	in.store.Heal()
	live := in.view()
	if happened := live != before; happened != (fault == storetest.Persisted) && !m.silent {
		t.Errorf("a change that happened: %v\n%s", happened, diff(before, live))
	}
	in.close()
	in.open()
	if reopened := in.view(); reopened != live {
		t.Errorf("memory did not agree with the store:\n%s", diff(live, reopened))
	}
	if err := m.do(in, "once"); err != nil {
		t.Fatalf("sent again: %v", err)
	}
	after := in.view()
	if after == before {
		t.Error("sent again, it still did not happen")
	}
	if fault == storetest.Persisted && !m.silent && after != live {
		t.Errorf("sent again, it happened twice:\n%s", diff(live, after))
	}
	if err := m.do(in, "once"); err != nil || in.view() != after {
		t.Errorf("sent a third time: %v\n%s", err, diff(after, in.view()))
	}
	in.wantBracketed()
	in.wantObjects()
}

func diff(a, b string) string {
	var out strings.Builder
	before, after := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, line := range before {
		if !slices.Contains(after, line) {
			out.WriteString("- " + line + "\n")
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			out.WriteString("+ " + line + "\n")
		}
	}
	return out.String()
}

// wantBracketed checks that each outcome in the log follows its intent and has
// only one.
func (in *testInstallation) wantBracketed() {
	in.t.Helper()
	open := map[uint64]string{}
	for _, e := range in.entries(audit.Filter{}) {
		switch e.Phase {
		case audit.PhaseIntent:
			open[e.Sequence] = e.Action
		case audit.PhaseOutcome:
			if open[e.Intent] != e.Action {
				in.t.Errorf("line %d is the outcome of line %d, which is no open intent of %s", e.Sequence, e.Intent, e.Action)
			}
			if e.Reason != reasonOutcomeUnknown { // the next start finds that out
				delete(open, e.Intent)
			}
		}
	}
	if len(open) > 0 {
		in.t.Errorf("intents without outcome: %v", open)
	}
}

// TestStoreDies lets every commit from the n-th on fail, for each n: what was
// acknowledged before is there after a restart, and nothing else.
func TestStoreDies(t *testing.T) {
	t.Parallel()
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.Lost} {
		n := 1
		for ; n <= 2*len(mutations); n++ {
			if refused := testStoreDies(t, n, fault); refused == 0 {
				break
			}
		}
		if n < 10 || n > 2*len(mutations) {
			t.Errorf("the changes made %d commits", n-1)
		}
	}
}

func testStoreDies(t *testing.T, n int, fault storetest.Fault) (refused int) {
	in := newScene(t)
	in.store.FailFrom(n, fault)
	for _, m := range mutations {
		if !m.silent && CodeOf(m.do(in, m.name)) == Unavailable {
			refused++
		}
	}
	live := in.view()
	in.store.Heal()
	in.crash()
	in.open()
	if after := in.view(); after != live {
		t.Errorf("after the death of the store at commit %d:\n%s", n, diff(live, after))
	}
	in.close()
	return refused
}
