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

// Tokens verifies tokens; kms.Service does. VerifyToken need not remember
// anything: what it returns is kept until TokenGeneration, which must be cheap,
// changes or the Caller expires.
type Tokens interface {
	VerifyToken(text string) (*policy.Caller, error)
	TokenGeneration() uint64
}

// Authenticator tells who makes a request.
type Authenticator struct {
	tokens   Tokens
	clock    func() time.Time
	failures *failures

	mu       sync.Mutex
	verified map[string]verified // by the token's text, without a source
}

// verified is a token's caller, as of a generation.
type verified struct {
	caller     *policy.Caller
	generation uint64
}

// NewAuthenticator returns an Authenticator that checks expiry by clock. Once
// credentials from one source were refused maxFailures times in a minute, more
// that are not known yet are refused unseen; 0 is no limit.
func NewAuthenticator(tokens Tokens, clock func() time.Time, maxFailures int) *Authenticator {
	return &Authenticator{tokens: tokens, clock: clock, failures: newFailures(maxFailures, clock), verified: map[string]verified{}}
}

// Authenticate returns the caller of a request that came over c with this
// authorization ("" if it had none). A token takes precedence over a client
// certificate or a peer's uid, so a bad token is refused whatever those say.
// Expiry and revocation are checked each time. The error is a *kms.Error, of code
// Unauthenticated where the credentials are at fault.
func (a *Authenticator) Authenticate(c *Connection, authorization string) (*policy.Caller, error) {
	if authorization == "" {
		caller, err := c.caller()
		if err == nil && a.expired(caller) {
			return nil, unauthenticated("CERTIFICATE_EXPIRED", "the client certificate has expired; renew it and connect again")
		}
		return caller, err
	}
	generation := a.tokens.TokenGeneration() // before verifying: a revocation meanwhile is not missed
	if latest := c.latest.Load(); latest != nil && latest.authorization == authorization && a.holds(latest.verified, generation) {
		return latest.caller, nil
	}
	text, err := bearer(authorization)
	if err != nil {
		return nil, err
	}
	known := c.token(text)
	if a.holds(known, generation) {
		return known.caller, nil
	}
	fresh, err := a.token(c, text, generation)
	if err != nil {
		return nil, err
	}
	fresh.caller = from(fresh.caller, c)
	c.remember(authorization, text, fresh)
	return fresh.caller, nil
}

func (a *Authenticator) expired(c *policy.Caller) bool {
	return !c.Expires.IsZero() && !a.clock().Before(c.Expires)
}

// holds tells whether what was verified need not be verified again: nothing was
// revoked since, and it has not ended. The end of a renewable token may have moved.
func (a *Authenticator) holds(v verified, generation uint64) bool {
	return v.caller != nil && v.generation == generation && !a.expired(v.caller)
}

// from returns a copy of a caller and its ancestors that come over a connection.
func from(caller *policy.Caller, c *Connection) *policy.Caller {
	if caller == nil {
		return nil
	}
	copied := *caller
	copied.Source, copied.Parent = c.Source, from(caller.Parent, c)
	return &copied
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
// A token that was good once is looked at again whoever else failed.
func (a *Authenticator) token(c *Connection, text string, generation uint64) (verified, error) {
	a.mu.Lock()
	known := a.verified[text]
	a.mu.Unlock()
	if a.holds(known, generation) {
		return known, nil
	}
	if known.caller == nil {
		if err := a.failures.refusal(c); err != nil {
			return verified{}, err
		}
	}
	caller, err := a.tokens.VerifyToken(text)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		delete(a.verified, text)
		return verified{}, err
	}
	a.makeRoom()
	fresh := verified{caller, generation}
	a.verified[strings.Clone(text)] = fresh
	return fresh, nil
}

// Failed is told of credentials from a connection that were refused, in
// handshakes too.
func (a *Authenticator) Failed(c *Connection) { a.failures.note(c) }

// makeRoom forgets what has expired once the memory is full, and if that was
// not enough everything: those still in use are verified again.
func (a *Authenticator) makeRoom() {
	if len(a.verified) < maxTokens {
		return
	}
	maps.DeleteFunc(a.verified, func(_ string, v verified) bool { return a.expired(v.caller) })
	if len(a.verified) > maxTokens/2 {
		clear(a.verified)
	}
}

func unauthenticated(reason, message string) *kms.Error {
	return &kms.Error{Code: kms.Unauthenticated, Reason: reason, Message: message}
}
