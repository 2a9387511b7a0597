package kms

import (
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// valid tells whether a server takes a token.
func valid(t testing.TB, s *Service, text string) bool {
	t.Helper()
	_, err := s.VerifyToken(text)
	if err != nil {
		wantCode(t, err, Unauthenticated)
	}
	return err == nil
}

func (in *testInstallation) revoke(by Call, q RevokeTokensRequest) Revocation {
	in.t.Helper()
	return must[Revocation](in.t)(in.RevokeTokens(in.t.Context(), by, q))
}

// family is a token with a child, and that with one of its own.
func (in *testInstallation) family(names ...string) (made []NewToken) {
	call := admin()
	for _, name := range names {
		made = append(made, in.token(call, CreateTokenRequest{Principal: name, Groups: []string{"makers"}}))
		call = in.bearer(made[len(made)-1].Text)
	}
	return made
}

func TestRevocationCascades(t *testing.T) {
	in := newTokens(t)
	made := in.family("maker", "child", "grandchild")
	other := in.family("maker")
	generation := in.TokenGeneration()
	revocation := in.revoke(admin(), RevokeTokensRequest{ID: made[1].ID})
	if in.TokenGeneration() == generation {
		t.Error("nothing says that what was verified is out of date")
	}
	for i, want := range []bool{true, false, false} {
		if got := valid(t, in.Service, made[i].Text); got != want {
			t.Errorf("token %d: valid %v", i, got)
		}
	}
	if !valid(t, in.Service, other[0].Text) {
		t.Error("another token was revoked too")
	}
	if again := in.revoke(admin(), RevokeTokensRequest{ID: made[1].ID}); again != revocation {
		t.Errorf("again: %+v, want %+v", again, revocation)
	}
	in.crash()
	in.open()
	if valid(t, in.Service, made[2].Text) || !valid(t, in.Service, made[0].Text) {
		t.Error("a restart changes what is revoked")
	}
	listed, next, err := in.ListRevocations(t.Context(), admin(), ListRequest{})
	if err != nil || next != "" || len(listed) != 1 || listed[0] != revocation {
		t.Errorf("listed %+v, %q, %v", listed, next, err)
	}
	_, _, err = in.ListRevocations(t.Context(), nobody(), ListRequest{})
	wantCode(t, err, PermissionDenied)
	lines := in.entries(audit.Filter{Action: string(policy.RevokeToken)})
	if len(lines) == 0 || lines[0].Phase != audit.PhaseIntent || lines[0].Details["token_id"] != made[1].ID {
		t.Errorf("lines %+v", lines)
	}
}

func TestTokensBeforeATimeAreVoid(t *testing.T) {
	in := newTokens(t)
	early := in.family("maker", "app")
	in.advance(5 * time.Second)
	cut := in.now()
	in.advance(5 * time.Second)
	late := in.family("maker", "app")
	in.revoke(admin(), RevokeTokensRequest{Principal: `Token::"maker"`, Before: cut})
	for i, want := range []bool{false, false, true, true} {
		if got := valid(t, in.Service, append(early, late...)[i].Text); got != want {
			t.Errorf("token %d: valid %v", i, got)
		}
	}
	// Up to now: all there are, none that is made from now on, in the same second too.
	in.revoke(admin(), RevokeTokensRequest{Principal: `Token::"maker"`})
	fresh := in.family("maker", "app")
	for i, want := range []bool{false, false, true, true} {
		if got := valid(t, in.Service, append(late, fresh...)[i].Text); got != want {
			t.Errorf("token %d: valid %v", i+4, got)
		}
	}
	// An earlier time does not take back a later one.
	in.revoke(admin(), RevokeTokensRequest{Principal: `Token::"maker"`, Before: cut})
	if valid(t, in.Service, late[0].Text) {
		t.Error("valid again")
	}
}

// What a certificate made can be revoked by its principal.
func TestTokensOfTheirMakerAreVoid(t *testing.T) {
	in := newTokens(t)
	by := as(policy.User, "leaver")
	must[Policy](t)(in.PutPolicy(t.Context(), admin(), PutPolicyRequest{Name: "leaver", Text: `permit (principal == User::"leaver", action == Action::"CreateToken", resource);`}))
	first := in.token(by, CreateTokenRequest{Principal: "maker"})
	child := in.token(in.bearer(first.Text), CreateTokenRequest{Principal: "app"})
	others := in.family("maker", "app")
	in.revoke(admin(), RevokeTokensRequest{Principal: `User::"leaver"`})
	for text, want := range map[string]bool{first.Text: false, child.Text: false, others[0].Text: true, others[1].Text: true,
		in.token(by, CreateTokenRequest{Principal: "app"}).Text: true} {
		if got := valid(t, in.Service, text); got != want {
			t.Errorf("valid %v, want %v", got, want)
		}
	}
}

// TestRevocationReachesOtherServers: used after a revocation that another server made.
func TestRevocationReachesOtherServers(t *testing.T) {
	in := newTokens(t)
	other := in.second()
	made := in.family("maker", "app")
	if !valid(t, other, made[1].Text) {
		t.Fatal("the other server does not take the token")
	}
	generation := other.TokenGeneration()
	in.revoke(admin(), RevokeTokensRequest{ID: made[0].ID})
	for start := time.Now(); valid(t, other, made[1].Text); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 20*time.Second { // a fraction of a second, on a machine with nothing else to do
			t.Fatal("the other server takes a revoked token for ever")
		}
	}
	if other.TokenGeneration() == generation {
		t.Error("the other server's transports are not told")
	}
}

func TestTokenRevokesItself(t *testing.T) {
	in := newTokens(t)
	made, other := in.family("app"), in.family("app")
	call := in.bearer(made[0].Text)
	_, err := in.RevokeTokens(t.Context(), call, RevokeTokensRequest{ID: other[0].ID})
	wantCode(t, err, PermissionDenied)
	_, err = in.RevokeTokens(t.Context(), call, RevokeTokensRequest{Principal: `Token::"app"`})
	wantCode(t, err, PermissionDenied)
	in.revoke(call, RevokeTokensRequest{ID: made[0].ID})
	if valid(t, in.Service, made[0].Text) || !valid(t, in.Service, other[0].Text) {
		t.Error("not the one that it was")
	}
	_, err = in.RevokeTokens(t.Context(), Call{}, RevokeTokensRequest{ID: made[0].ID})
	wantCode(t, err, Unauthenticated)
}

func TestRevocationRefuses(t *testing.T) {
	in := newTokens(t)
	id := strings.Repeat("a", 32)
	for name, q := range map[string]RevokeTokensRequest{
		"nothing":          {},
		"both":             {ID: id, Principal: `Token::"app"`},
		"short id":         {ID: id[1:]},
		"upper case":       {ID: strings.ToUpper(id)},
		"id with a time":   {ID: id, Before: in.now()},
		"future":           {Principal: `Token::"app"`, Before: in.now().Add(time.Minute)},
		"bare name":        {Principal: "app"},
		"unknown type":     {Principal: `Robot::"app"`},
		"very long":        {Principal: `User::"` + strings.Repeat("a", 5000) + `"`},
		"not a whole text": {Principal: `Token::"app" x`},
	} {
		if _, err := in.RevokeTokens(t.Context(), admin(), q); CodeOf(err) != InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Revocations are forgotten when nothing that they concern can be valid any more.
func TestRevocationsAreForgotten(t *testing.T) {
	in := newTokens(t)
	short := in.family("maker")[0]
	lease := in.token(admin(), CreateTokenRequest{Principal: "lessee", TTL: MaxLeaseTTL, RenewableFor: MaxLeaseTTL})
	in.revoke(admin(), RevokeTokensRequest{ID: short.ID})
	in.revoke(admin(), RevokeTokensRequest{ID: lease.ID})
	in.revoke(admin(), RevokeTokensRequest{Principal: `Token::"lessee"`})
	count := func() int {
		t.Helper()
		listed, _, err := in.ListRevocations(t.Context(), admin(), ListRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(listed)
	}
	run := func(after time.Duration, want int) {
		t.Helper()
		in.advance(after)
		if err := in.runDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := count(); got != want {
			t.Fatalf("%d revocations are left, want %d", got, want)
		}
	}
	run(23*time.Hour, 3)
	run(2*time.Hour, 2)
	if valid(t, in.Service, lease.Text) {
		t.Fatal("the lease is valid again")
	}
	in.crash()
	in.open()
	run(0, 2)
	run(MaxLeaseTTL, 0)
	if valid(t, in.Service, short.Text) || valid(t, in.Service, lease.Text) {
		t.Error("valid again")
	}
	if page, err := in.store.List(t.Context(), prefixLease, "", 0); err != nil || len(page.Records) != 0 {
		t.Errorf("%d leases are left, %v", len(page.Records), err)
	}
}

// A lease that another server made while its principal was revoked, unseen by
// that, keeps the revocation until it has ended.
func TestRevocationOutlivesLeases(t *testing.T) {
	in := newTokens(t)
	in.revoke(admin(), RevokeTokensRequest{Principal: `Token::"lessee"`})
	in.clock.Add(-int64(10 * time.Second)) // as a server does that has not heard of it, and whose clock is behind
	in.Service.revocations.current.Store(&revokedTokens{})
	lease := in.token(admin(), CreateTokenRequest{Principal: "lessee", TTL: MaxLeaseTTL, RenewableFor: MaxLeaseTTL})
	in.clock.Add(int64(10 * time.Second))
	in.crash()
	in.open()
	in.advance(25 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if valid(t, in.Service, lease.Text) {
		t.Fatal("the revocation was forgotten too early")
	}
	listed, _, err := in.ListRevocations(t.Context(), admin(), ListRequest{})
	if err != nil || len(listed) != 1 || !listed[0].Expires.Equal(lease.RenewableUntil) {
		t.Errorf("%+v, %v; the lease ends at %s", listed, err, lease.RenewableUntil)
	}
}

// A clock that was set forward does not make revoked tokens valid again.
func TestClockJumpKeepsRevocations(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{Policies: testPolicies})
	in.open()
	t.Cleanup(in.close)
	made := in.token(admin(), CreateTokenRequest{Principal: "app"})
	in.revoke(admin(), RevokeTokensRequest{ID: made.ID})
	in.advance(30 * 24 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.advance(-30 * 24 * time.Hour)
	if valid(t, in.Service, made.Text) {
		t.Error("valid again")
	}
}
