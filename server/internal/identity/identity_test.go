package identity

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
)

// verifier counts how often tokens are verified.
type verifier struct {
	calls   int
	expires time.Time
}

func (v *verifier) verify(text string) (*policy.Caller, error) {
	v.calls++
	if text == "bad" {
		return nil, &kms.Error{Code: kms.Unauthenticated, Reason: "INVALID_TOKEN"}
	}
	return &policy.Caller{Type: policy.Token, ID: text, TokenID: "id", Method: "token", Expires: v.expires}, nil
}

func reason(err error) string {
	var e *kms.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func TestTokensAreVerifiedOnce(t *testing.T) {
	now := time.Now()
	v := &verifier{expires: now.Add(time.Minute)}
	a := NewAuthenticator(v.verify, func() time.Time { return now })
	one, two := &Connection{Source: netip.MustParseAddr("10.0.0.1")}, &Connection{Source: netip.MustParseAddr("10.0.0.2")}
	for range 3 {
		for _, c := range []*Connection{one, two} {
			caller, err := a.Authenticate(c, "Bearer good")
			if err != nil || caller.ID != "good" || caller.Source != c.Source {
				t.Fatalf("caller %+v, %v", caller, err)
			}
		}
	}
	if v.calls != 1 {
		t.Errorf("verified %d times", v.calls)
	}
	now = now.Add(time.Hour)
	if _, err := a.Authenticate(one, "Bearer good"); reason(err) != "TOKEN_EXPIRED" {
		t.Errorf("after its end: %v", err)
	}
	for range 2 {
		if _, err := a.Authenticate(one, "Bearer bad"); reason(err) != "INVALID_TOKEN" {
			t.Errorf("a bad token: %v", err)
		}
	}
}

func TestAuthorizations(t *testing.T) {
	a := NewAuthenticator((&verifier{}).verify, time.Now)
	for header, want := range map[string]string{
		"": "NO_CREDENTIALS", "Bearer": "UNKNOWN_AUTHORIZATION", "Bearer ": "UNKNOWN_AUTHORIZATION", "Basic dTpw": "UNKNOWN_AUTHORIZATION",
		"good": "UNKNOWN_AUTHORIZATION", "Bearer good": "", "bearer good": "", "BEARER good": "",
	} {
		if _, err := a.Authenticate(&Connection{}, header); reason(err) != want {
			t.Errorf("%q: %v, want %q", header, err, want)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	a := NewAuthenticator((&verifier{}).verify, time.Now)
	c := &Connection{}
	for i := range maxTokens + 10 {
		if _, err := a.Authenticate(c, fmt.Sprintf("Bearer t%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.verified); n > maxTokens {
		t.Errorf("%d tokens remembered", n)
	}
	if n := len(*c.tokens.Load()); n > maxConnectionTokens {
		t.Errorf("%d tokens remembered for a connection", n)
	}
}

func TestSources(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1", "[::1]:80": "::1", "[::ffff:10.1.2.3]:80": "10.1.2.3", "[fe80::1%eth0]:80": "fe80::1", "@": "invalid IP",
	} {
		if got := sourceOf(remote(address)).String(); got != want {
			t.Errorf("%s is from %s, want %s", address, got, want)
		}
	}
}

// remote is a connection from an address.
type remote string

func (r remote) RemoteAddr() net.Addr { return r }
func (remote) Network() string        { return "tcp" }
func (r remote) String() string       { return string(r) }
