package identity

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/cputime"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
)

// verifier counts how often tokens are verified.
type verifier struct {
	calls      int
	expires    time.Time
	generation uint64
	revoked    string
}

func (v *verifier) VerifyToken(text string) (*policy.Caller, error) {
	v.calls++
	if text == "bad" || text == v.revoked {
		return nil, unauthenticated("INVALID_TOKEN", "")
	}
	return &policy.Caller{Type: policy.Token, ID: text, TokenID: "id", Method: "token", Expires: v.expires,
		Parent: &policy.Caller{Type: policy.Token, ID: "parent"}}, nil
}

func (v *verifier) TokenGeneration() uint64 { return v.generation }

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
	a := NewAuthenticator(v, func() time.Time { return now }, 0)
	one, two := &Connection{Source: netip.MustParseAddr("10.0.0.1")}, &Connection{Source: netip.MustParseAddr("10.0.0.2")}
	for range 3 {
		for _, c := range []*Connection{one, two} {
			caller, err := a.Authenticate(c, "Bearer good")
			if err != nil || caller.ID != "good" || caller.Source != c.Source || caller.Parent.Source != c.Source {
				t.Fatalf("caller %+v, %v", caller, err)
			}
		}
	}
	if v.calls != 1 {
		t.Errorf("verified %d times", v.calls)
	}
	// Once it has ended it is verified again: a renewed one has not.
	now = now.Add(time.Hour)
	v.expires = now.Add(time.Minute)
	for range 2 {
		if caller, err := a.Authenticate(one, "Bearer good"); err != nil || !caller.Expires.Equal(v.expires) {
			t.Errorf("after it was renewed: %+v, %v", caller, err)
		}
	}
	if v.calls != 2 {
		t.Errorf("verified %d times", v.calls)
	}
	for range 2 {
		if _, err := a.Authenticate(one, "Bearer bad"); reason(err) != "INVALID_TOKEN" {
			t.Errorf("a bad token: %v", err)
		}
	}
}

func TestAuthorizations(t *testing.T) {
	a := NewAuthenticator(&verifier{}, time.Now, 0)
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
	a := NewAuthenticator(&verifier{}, time.Now, 0)
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

func TestRevocationIsNoticed(t *testing.T) {
	v := &verifier{}
	a := NewAuthenticator(v, time.Now, 0)
	connections := []*Connection{{}, {}}
	ask := func(want string) {
		t.Helper()
		for _, c := range connections {
			if _, err := a.Authenticate(c, "Bearer good"); reason(err) != want {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	ask("")
	v.generation++
	ask("")
	if v.calls != 2 {
		t.Errorf("verified %d times", v.calls)
	}
	v.revoked = "good"
	v.generation++
	ask("INVALID_TOKEN")
	ask("INVALID_TOKEN")
}

// TestTooManyFailures: more from there is refused unseen, but for what was good
// before; others are served.
func TestTooManyFailures(t *testing.T) {
	now := time.Now()
	v := &verifier{}
	a := NewAuthenticator(v, func() time.Time { return now }, 3)
	from := func(address string) *Connection { return &Connection{Source: netip.MustParseAddr(address)} }
	ask := func(c *Connection, text string) string {
		_, err := a.Authenticate(c, "Bearer "+text)
		why := reason(err)
		if why == "INVALID_TOKEN" {
			a.Failed(c)
		}
		return why
	}
	for _, pair := range [][2]*Connection{
		{from("10.0.0.1"), from("10.0.0.2")},
		{from("2001:db8:0:1::1"), from("2001:db8:0:2::1")},
		{{local: true, uid: 7}, {local: true, uid: 8}},
		{{}, from("10.9.9.9")},
	} {
		bad, other := pair[0], pair[1]
		if got := ask(bad, "early"); got != "" {
			t.Fatalf("before any failure: %s", got)
		}
		for range 3 {
			if got := ask(bad, "bad"); got != "INVALID_TOKEN" {
				t.Fatalf("a bad token: %s", got)
			}
		}
		calls := v.calls
		for _, text := range []string{"bad", "new"} {
			if got := ask(bad, text); got != ReasonTooManyFailures {
				t.Errorf("%s after three failures: %q", text, got)
			}
		}
		if v.calls != calls {
			t.Error("credentials were looked at all the same")
		}
		v.generation++ // it is to be verified again, and was good before
		if got := ask(bad, "early"); got != "" {
			t.Errorf("a token that was good: %s", got)
		}
		if got := ask(&Connection{Source: bad.Source, local: bad.local, uid: bad.uid}, "early"); got != "" {
			t.Errorf("a token that was good, on another connection: %s", got)
		}
		if got := ask(other, "elsewhere"); got != "" {
			t.Errorf("from elsewhere: %s", got)
		}
		delete(a.verified, "elsewhere")
		now = now.Add(20 * time.Second)
		if got := ask(bad, "later"); got != "" {
			t.Errorf("a third of a minute later: %s", got)
		}
		delete(a.verified, "early")
		delete(a.verified, "later")
	}
	if one, two := originOf(from("2001:db8:0:1::1")), originOf(from("2001:db8:0:1:ffff::2")); one != two {
		t.Errorf("%v and %v are of one network", one, two)
	}
}

func TestSourcesAreBounded(t *testing.T) {
	now := time.Now()
	f := newFailures(1, func() time.Time { return now })
	for i := range 3 * maxSources {
		f.note(&Connection{local: true, uid: uint32(i)})
	}
	if n := len(f.empty); n > maxSources {
		t.Errorf("%d sources", n)
	}
	if f.refusal(&Connection{local: true, uid: 3*maxSources - 1}) == nil {
		t.Error("the last that failed is forgotten")
	}
	now = now.Add(2 * time.Minute)
	f.makeRoom(now)
	if n := len(f.empty); n > maxSources*3/4 {
		t.Errorf("%d sources long after", n)
	}
}

// BenchmarkAuthenticate is what a call pays whose token was verified before: the
// same as the last on its connection, or any other seen on it.
func BenchmarkAuthenticate(b *testing.B) {
	for name, tokens := range map[string]int{"same": 1, "other": 16} {
		b.Run(name, func(b *testing.B) {
			a, c := NewAuthenticator(&verifier{expires: time.Now().Add(time.Hour)}, time.Now, 100), &Connection{}
			authorizations := make([]string, tokens)
			for i := range authorizations {
				authorizations[i] = fmt.Sprintf("Bearer kwt_%0220d", i) // as long as a token is
			}
			b.ReportAllocs()
			spent := cputime.Used()
			for i := 0; b.Loop(); i++ {
				if _, err := a.Authenticate(c, authorizations[i%tokens]); err != nil {
					b.Fatal(err)
				}
			}
			cputime.Report(b, spent, b.N, "op")
		})
	}
}
