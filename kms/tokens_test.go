package kms

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store/storetest"
)

const tokenPolicies = `
	permit (principal == Token::"maker", action == Action::"CreateToken", resource);
	permit (principal in Group::"makers", action == Action::"CreateToken", resource);
	permit (principal == Token::"maker", action in Action::"encrypter", resource == Key::"pay/card");
	permit (principal == Token::"revoker", action == Action::"RevokeToken", resource);
`

// newTokens is an installation with the keys pay/card and pay/other.
func newTokens(t testing.TB) *testInstallation {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.key("pay", "other", "")
	must[Policy](t)(in.PutPolicy(t.Context(), admin(), PutPolicyRequest{Name: "tokens", Text: tokenPolicies}))
	return in
}

// second is another server on the same store.
func (in *testInstallation) second() *Service {
	in.t.Helper()
	other := in.secondServer()
	in.t.Cleanup(func() { other.Close(context.Background()) })
	return other
}

func (in *testInstallation) token(by Call, q CreateTokenRequest) NewToken {
	in.t.Helper()
	return must[NewToken](in.t)(in.CreateToken(in.t.Context(), by, q))
}

// bearer is a call with a token.
func (in *testInstallation) bearer(text string) Call {
	in.t.Helper()
	return Call{Caller: must[*policy.Caller](in.t)(in.VerifyToken(text)), RequestID: "bearer"}
}

func (in *testInstallation) use(call Call, key string) error {
	_, err := in.Encrypt(in.t.Context(), call, &EncryptRequest{Namespace: "pay", Key: key, Plaintext: []byte("x")})
	return err
}

func TestChildHasNoMoreRightsThanItsParent(t *testing.T) {
	in := newTokens(t)
	maker := in.bearer(in.token(admin(), CreateTokenRequest{Principal: "maker"}).Text)
	free := in.bearer(in.token(admin(), CreateTokenRequest{Principal: "app"}).Text)
	child := in.bearer(in.token(maker, CreateTokenRequest{Principal: "app"}).Text)
	if child.Caller.Parent == nil || child.Caller.Parent.TokenID != maker.Caller.TokenID || free.Caller.Parent != nil {
		t.Fatalf("child %+v, free %+v", child.Caller, free.Caller)
	}
	for _, key := range []string{"card", "other"} {
		if err := in.use(free, key); err != nil {
			t.Errorf("made by a certificate: %v", err)
		}
	}
	if err := in.use(child, "card"); err != nil {
		t.Errorf("what both may: %v", err)
	}
	wantCode(t, in.use(child, "other"), PermissionDenied)

	narrow := in.bearer(in.token(admin(), CreateTokenRequest{Principal: "app", Actions: []string{"encrypter"}, Resources: []string{"pay/card"}}).Text)
	if err := in.use(narrow, "card"); err != nil {
		t.Errorf("within the narrowing: %v", err)
	}
	wantCode(t, in.use(narrow, "other"), PermissionDenied)
	_, err := in.Decrypt(t.Context(), narrow, &DecryptRequest{Namespace: "pay", Ciphertext: in.encrypt("pay", "card", "x")})
	wantCode(t, err, PermissionDenied)
}

func TestChildAsksForNoMoreThanItsParent(t *testing.T) {
	in := newTokens(t)
	made := in.token(admin(), CreateTokenRequest{Principal: "maker", TTL: 30 * time.Minute,
		Actions: []string{"CreateToken", "encrypter"}, Resources: []string{"pay", "system"}})
	maker := in.bearer(made.Text)
	for name, c := range map[string]struct {
		q     CreateTokenRequest
		field string
		parts []string
	}{
		"ttl":       {CreateTokenRequest{TTL: time.Hour}, "ttl", []string{made.Expires.Format(time.RFC3339)}},
		"lease":     {CreateTokenRequest{RenewableFor: time.Hour}, "renewable_for", []string{made.Expires.Format(time.RFC3339)}},
		"action":    {CreateTokenRequest{Actions: []string{"Decrypt"}}, "actions", []string{"Decrypt"}},
		"role":      {CreateTokenRequest{Actions: []string{"admin"}}, "actions", []string{"admin"}},
		"namespace": {CreateTokenRequest{Resources: []string{"other"}}, "resources", []string{"other"}},
	} {
		c.q.Principal = "app"
		_, err := in.CreateToken(t.Context(), maker, c.q)
		wantCode(t, err, InvalidArgument, append(c.parts, c.field)...)
		if e, ok := err.(*Error); !ok || e.Field != c.field {
			t.Errorf("%s: field of %v", name, err)
		}
	}
	child := in.token(maker, CreateTokenRequest{Principal: "maker", Groups: []string{"makers"}, Actions: []string{"Encrypt", "CreateToken"}, Resources: []string{"pay/card", "system"}})
	if !child.Expires.Equal(made.Expires) {
		t.Errorf("without a ttl it ends at %s, its parent at %s", child.Expires, made.Expires)
	}
	// An unnarrowed child does not free its own children.
	_, err := in.CreateToken(t.Context(), in.bearer(in.token(maker, CreateTokenRequest{Principal: "maker"}).Text), CreateTokenRequest{Principal: "app", Actions: []string{"Decrypt"}})
	wantCode(t, err, InvalidArgument, "Decrypt")
}

func TestTokensAreOfLimitedDepth(t *testing.T) {
	in := newTokens(t)
	call, ids := admin(), []string{}
	for range 5 {
		made := in.token(call, CreateTokenRequest{Principal: "maker"})
		call, ids = in.bearer(made.Text), append([]string{made.ID}, ids...)
	}
	var chain []string
	for c := call.Caller; c != nil; c = c.Parent {
		chain = append(chain, c.TokenID)
	}
	if !slices.Equal(chain, ids) {
		t.Errorf("chain %v, want %v", chain, ids)
	}
	_, err := in.CreateToken(t.Context(), call, CreateTokenRequest{Principal: "app"})
	wantCode(t, err, FailedPrecondition, "4")
}

// A repeated request is answered with the same token; the store never holds it.
func TestCreateTokenIsIdempotent(t *testing.T) {
	in := newTokens(t)
	for _, q := range []CreateTokenRequest{
		{Principal: "app", Idempotency: "plain"},
		{Principal: "app", Idempotency: "lease", RenewableFor: 24 * time.Hour},
	} {
		first := in.token(admin(), q)
		in.advance(2 * time.Second)
		if again := in.token(admin(), q); again != first {
			t.Errorf("%s: %+v, then %+v", q.Idempotency, first, again)
		}
		q.Principal = "other"
		_, err := in.CreateToken(t.Context(), admin(), q)
		wantCode(t, err, AlreadyExists)
		page, err := in.store.List(t.Context(), "", "", 1000)
		if err != nil || len(page.Records) == 0 {
			t.Fatal(err)
		}
		for _, record := range page.Records {
			if strings.Contains(string(record.Value), first.Text[:40]) {
				t.Errorf("%s holds the token", record.Key)
			}
		}
	}
}

// Two tokens of one principal do not get each other's children by the same key.
func TestIdempotencyIsOfOneToken(t *testing.T) {
	in := newTokens(t)
	wide := in.bearer(in.token(admin(), CreateTokenRequest{Principal: "maker"}).Text)
	narrow := in.bearer(in.token(admin(), CreateTokenRequest{Principal: "maker", Resources: []string{"system"}}).Text)
	q := CreateTokenRequest{Principal: "app", Idempotency: "once"}
	in.token(wide, q)
	_, err := in.CreateToken(t.Context(), narrow, q)
	wantCode(t, err, AlreadyExists, "idempotency_key")
}

func TestBootstrapTokenWorksOnce(t *testing.T) {
	var text string
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{BootstrapToken: func(made string) error { text = made; return nil }})
	in.open()
	t.Cleanup(in.close)
	call := in.bearer(text)
	if call.Caller.Principal() != `Token::"bootstrap"` {
		t.Fatalf("caller %+v", call.Caller)
	}
	// What is refused does not use it up: no right, a bad field, no children.
	_, err := in.Encrypt(t.Context(), call, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, PermissionDenied)
	_, err = in.PutPolicy(t.Context(), call, PutPolicyRequest{Name: "a/b", Text: "permit (principal, action, resource);"})
	wantCode(t, err, InvalidArgument)
	_, err = in.CreateToken(t.Context(), call, CreateTokenRequest{Principal: "heir"})
	wantCode(t, err, FailedPrecondition, "once")
	put := func(s *Service, name string) error {
		_, err := s.PutPolicy(t.Context(), call, PutPolicyRequest{Name: name, Text: `permit (principal == User::"root", action in Action::"admin", resource);`})
		return err
	}
	if err := put(in.Service, "first"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, put(in.Service, "second"), Unauthenticated, "used up")
	_, err = in.VerifyToken(text)
	wantCode(t, err, Unauthenticated)
	in.crash()
	in.open()
	_, err = in.VerifyToken(text)
	wantCode(t, err, Unauthenticated)
	wantCode(t, put(in.Service, "third"), Unauthenticated)
	_, err = in.CreateToken(t.Context(), admin(), CreateTokenRequest{Principal: "bootstrap"})
	wantCode(t, err, InvalidArgument, "reserved")
	spent := in.entries(audit.Filter{Action: "SpendToken"})
	if len(spent) < 2 || spent[0].Phase != audit.PhaseIntent || spent[1].Outcome != "OK" || spent[1].TokenID == "" {
		t.Errorf("lines %+v", spent)
	}
}

// Of two servers that are asked at once, one serves.
func TestBootstrapTokenWorksOnceForAllServers(t *testing.T) {
	var text string
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{BootstrapToken: func(made string) error { text = made; return nil }})
	in.open()
	t.Cleanup(in.close)
	servers := []*Service{in.Service, in.second()}
	call := in.bearer(text)
	var wait sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wait.Go(func() {
			_, errs[i] = servers[i%2].PutPolicy(t.Context(), call, PutPolicyRequest{Name: fmt.Sprint("p", i), Text: `permit (principal == User::"root", action, resource);`})
		})
	}
	wait.Wait()
	served := 0
	for _, err := range errs {
		if err == nil {
			served++
		} else {
			wantCode(t, err, Unauthenticated)
		}
	}
	if served != 1 {
		t.Errorf("%d calls were served", served)
	}
}

// A use that could not be written down is no use, and does nothing; one of which
// nobody knows whether it was is the only one, and does nothing either.
func TestBootstrapTokenWhenTheStoreFails(t *testing.T) {
	for fault, usable := range map[storetest.Fault]bool{storetest.Failed: true, storetest.Lost: true, storetest.Persisted: false} {
		var text string
		in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
		in.initialize(InitOptions{BootstrapToken: func(made string) error { text = made; return nil }})
		in.open()
		t.Cleanup(in.close)
		put := func() error {
			caller, err := in.VerifyToken(text)
			if err != nil {
				return err
			}
			_, err = in.PutPolicy(t.Context(), Call{Caller: caller, RequestID: "put"}, PutPolicyRequest{Name: "mine", Text: `permit (principal == User::"root", action, resource);`})
			return err
		}
		in.store.FailNth(1, fault)
		wantCode(t, put(), Unavailable)
		in.store.Heal()
		_, err := in.GetPolicy(t.Context(), admin(), PolicyRef{Name: "mine"})
		wantCode(t, err, PermissionDenied)
		if err := put(); (err == nil) != usable {
			t.Errorf("fault %d: used again: %v", fault, err)
		}
	}
}

func TestBootstrapTokenIsKeptBeforeTheInstallationIsMade(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	_, err := Initialize(t.Context(), in.parts(), InitOptions{BootstrapToken: func(string) error { return fmt.Errorf("disk full") }})
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("error %v", err)
	}
	in.closeParts()
	if _, err := Open(t.Context(), in.parts()); err == nil {
		t.Fatal("there is an installation without its token")
	}
	in.closeParts()
}
