package identity

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
)

// maxTokens bounds the verified tokens remembered for all connections.
const maxTokens = 16_384

// Authenticator tells who makes a request.
type Authenticator struct {
	verify func(text string) (*policy.Caller, error)
	clock  func() time.Time

	mu       sync.Mutex
	verified map[string]*policy.Caller // by the token's text, without a source
}

// NewAuthenticator returns an Authenticator that checks tokens by verify, which
// need not remember anything, and expiry by clock.
func NewAuthenticator(verify func(string) (*policy.Caller, error), clock func() time.Time) *Authenticator {
	return &Authenticator{verify: verify, clock: clock, verified: map[string]*policy.Caller{}}
}

// Authenticate returns the caller of a request that came over c with this
// authorization ("" if it had none). A token takes precedence over a client
// certificate, so a bad token is refused whatever the certificate says. Expiry
// is checked each time. The error is a *kms.Error of code Unauthenticated.
func (a *Authenticator) Authenticate(c *Connection, authorization string) (*policy.Caller, error) {
	caller, err := a.caller(c, authorization)
	if err != nil {
		return nil, err
	}
	return caller, a.Current(caller)
}

// Current fails once the caller's credentials have ended.
func (a *Authenticator) Current(caller *policy.Caller) error {
	if caller.Expires.IsZero() || a.clock().Before(caller.Expires) {
		return nil
	}
	return Expired(caller)
}

// Expired is the error for credentials that have ended.
func Expired(caller *policy.Caller) error {
	if caller.TokenID != "" {
		return unauthenticated("TOKEN_EXPIRED", "the token has expired; create a new one")
	}
	return unauthenticated("CERTIFICATE_EXPIRED", "the client certificate has expired; renew it and connect again")
}

func (a *Authenticator) caller(c *Connection, authorization string) (*policy.Caller, error) {
	if authorization == "" {
		return certificateCaller(c)
	}
	text, err := bearer(authorization)
	if err != nil {
		return nil, err
	}
	if caller := c.token(text); caller != nil {
		return caller, nil
	}
	verified, err := a.token(text)
	if err != nil {
		return nil, err
	}
	caller := *verified
	caller.Source = c.Source
	c.remember(text, &caller)
	return &caller, nil
}

func certificateCaller(c *Connection) (*policy.Caller, error) {
	if c.certificate == nil {
		return nil, unauthenticated("NO_CREDENTIALS",
			"no credentials: send a token (authorization: Bearer kwt_...) or connect with a client certificate")
	}
	return c.certificate, nil
}

// bearer takes the token out of "Bearer <token>" (RFC 6750, 2.1); the scheme's
// name is case-insensitive (RFC 9110, 11.1).
func bearer(authorization string) (string, error) {
	scheme, text, found := strings.Cut(authorization, " ")
	if !found || text == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", unauthenticated("UNKNOWN_AUTHORIZATION", "authorization must be: Bearer kwt_...")
	}
	return text, nil
}

// token returns the caller of a token, from memory if it was verified before.
// Two goroutines may verify the same token at once; nobody waits for the other.
func (a *Authenticator) token(text string) (*policy.Caller, error) {
	a.mu.Lock()
	caller := a.verified[text]
	a.mu.Unlock()
	if caller != nil {
		return caller, nil
	}
	caller, err := a.verify(text)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.makeRoom()
	a.verified[strings.Clone(text)] = caller
	return caller, nil
}

// makeRoom forgets what has expired once the memory is full, and if that was
// not enough everything: those still in use are verified again.
func (a *Authenticator) makeRoom() {
	if len(a.verified) < maxTokens {
		return
	}
	now := a.clock()
	maps.DeleteFunc(a.verified, func(_ string, c *policy.Caller) bool {
		return !c.Expires.IsZero() && !now.Before(c.Expires)
	})
	if len(a.verified) > maxTokens/2 {
		clear(a.verified)
	}
}

func unauthenticated(reason, message string) *kms.Error {
	return &kms.Error{Code: kms.Unauthenticated, Reason: reason, Message: message}
}
