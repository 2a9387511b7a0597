package kms

import (
	"testing"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

func TestLease(t *testing.T) {
	in := newTokens(t)
	made := in.token(admin(), CreateTokenRequest{Principal: "app", TTL: time.Hour, RenewableFor: 3 * time.Hour})
	if got := made.RenewableUntil.Sub(made.Expires); got != 2*time.Hour {
		t.Fatalf("%+v", made)
	}
	renew := func(ttl time.Duration) (RenewedToken, error) {
		return in.RenewToken(t.Context(), in.bearer(made.Text), RenewTokenRequest{TTL: ttl})
	}
	in.advance(59 * time.Minute)
	renewed := must[RenewedToken](t)(renew(0))
	if got := renewed.Expires.Sub(in.now()); got > time.Hour || got < 59*time.Minute || !renewed.RenewableUntil.Equal(made.RenewableUntil) {
		t.Fatalf("%+v, in %s", renewed, got)
	}
	if again := must[RenewedToken](t)(renew(time.Minute)); again != renewed {
		t.Errorf("a shorter time took something away: %+v", again)
	}
	in.crash()
	in.open()
	in.advance(59 * time.Minute)
	if !valid(t, in.Service, made.Text) || !valid(t, in.second(), made.Text) {
		t.Fatal("not valid after a restart, or elsewhere")
	}
	// More than there is: what there is.
	if last := must[RenewedToken](t)(renew(2 * time.Hour)); !last.Expires.Equal(made.RenewableUntil) {
		t.Errorf("renewed to %s, the maximum is %s", last.Expires, made.RenewableUntil)
	}
	_, err := renew(0)
	wantCode(t, err, FailedPrecondition, made.RenewableUntil.Format(time.RFC3339))
	_, err = renew(MaxLeaseTTL + time.Hour)
	wantCode(t, err, InvalidArgument, "ttl")
	in.advance(63 * time.Minute)
	if valid(t, in.Service, made.Text) {
		t.Error("valid after its maximum")
	}
}

func TestLeaseEndsWithoutRenewal(t *testing.T) {
	in := newTokens(t)
	other := in.second()
	made := in.token(admin(), CreateTokenRequest{Principal: "maker", TTL: time.Minute, RenewableFor: 24 * time.Hour})
	call := in.bearer(made.Text)
	child := in.token(call, CreateTokenRequest{Principal: "app"})
	if !child.Expires.After(made.Expires) || !in.bearer(child.Text).Caller.Expires.Equal(made.Expires) {
		t.Errorf("the child ends at %s, as things stand at %s", child.Expires, in.bearer(child.Text).Caller.Expires)
	}
	in.advance(50 * time.Second)
	must[RenewedToken](t)(other.RenewToken(t.Context(), call, RenewTokenRequest{}))
	in.advance(20 * time.Second)
	if !valid(t, in.Service, made.Text) || !valid(t, in.Service, child.Text) {
		t.Fatal("this server does not see another's renewal")
	}
	in.advance(time.Minute)
	for _, s := range []*Service{in.Service, other} {
		if valid(t, s, made.Text) || valid(t, s, child.Text) {
			t.Error("valid after its end")
		}
	}
	_, err := in.RenewToken(t.Context(), call, RenewTokenRequest{})
	wantCode(t, err, Unauthenticated)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.advance(-90 * time.Second)
	if valid(t, in.Service, made.Text) {
		t.Error("what ended is valid again")
	}
}

func TestLeaseRefuses(t *testing.T) {
	in := newTokens(t)
	for name, q := range map[string]CreateTokenRequest{
		"longer than its maximum": {TTL: 2 * time.Hour, RenewableFor: time.Hour},
		"too long a ttl":          {TTL: MaxLeaseTTL + time.Second, RenewableFor: MaxLease},
		"too long a maximum":      {RenewableFor: MaxLease + time.Second},
		"too short":               {RenewableFor: time.Second},
		"negative":                {RenewableFor: -time.Hour},
	} {
		q.Principal = "app"
		if _, err := in.CreateToken(t.Context(), admin(), q); CodeOf(err) != InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := in.RenewToken(t.Context(), in.bearer(in.family("app")[0].Text), RenewTokenRequest{})
	wantCode(t, err, FailedPrecondition, "renewable")
	_, err = in.RenewToken(t.Context(), admin(), RenewTokenRequest{})
	wantCode(t, err, FailedPrecondition)
	_, err = in.RenewToken(t.Context(), Call{}, RenewTokenRequest{})
	wantCode(t, err, Unauthenticated)
}

func TestSelf(t *testing.T) {
	in := newTokens(t)
	made := in.token(admin(), CreateTokenRequest{Principal: "app", TTL: time.Minute, RenewableFor: time.Hour})
	call := in.bearer(made.Text)
	renewed := must[RenewedToken](t)(in.RenewToken(t.Context(), call, RenewTokenRequest{TTL: 30 * time.Minute}))
	if self := must[*policy.Caller](t)(in.Self(t.Context(), call)); !self.Expires.Equal(renewed.Expires) {
		t.Errorf("ends at %s, was renewed until %s", self.Expires, renewed.Expires)
	}
	if self := must[*policy.Caller](t)(in.Self(t.Context(), admin())); self.ID != "root" {
		t.Errorf("self %+v", self)
	}
}
