package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/token"
)

// CreateTokenRequest asks for a token of the principal Token::"<Principal>". TTL
// is MinTokenTTL to MaxTokenTTL, 0 means DefaultTokenTTL. RenewableFor, if not 0,
// makes it a lease that can be renewed until then, at most MaxLease from now; its
// TTL may be up to MaxLeaseTTL. Actions and Resources narrow it, as
// policy.CheckNarrowing describes; each has at most 16 entries.
type CreateTokenRequest struct {
	Principal          string
	Groups             []string
	TTL                time.Duration
	RenewableFor       time.Duration
	Actions, Resources []string
	Idempotency        string
}

// NewToken is a token just made. Text is the secret, shown once. RenewableUntil
// is zero for a token that cannot be renewed.
type NewToken struct {
	Text           string
	ID             string
	Expires        time.Time
	RenewableUntil time.Time
}

// tokenSigner signs tokens; its key is sealed in the system namespace.
type tokenSigner struct {
	lock sync.RWMutex
	key  ed25519.PrivateKey // nil while the server is sealed
}

// String and GoString keep the key out of texts.
func (*tokenSigner) String() string   { return "[redacted]" }
func (*tokenSigner) GoString() string { return "[redacted]" }

func (t *tokenSigner) sign(statement token.Statement) (string, error) {
	t.lock.RLock()
	defer t.lock.RUnlock()
	if t.key == nil {
		return "", errSealed(time.Time{})
	}
	return token.Sign(statement, t.key)
}

func (t *tokenSigner) keep(key ed25519.PrivateKey) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.key = key
}

// drop zeroes the key.
func (t *tokenSigner) drop() {
	t.lock.Lock()
	defer t.lock.Unlock()
	clear(t.key)
	t.key = nil
}

func (s *Service) loadTokenSigner(ctx context.Context) error {
	seed, err := s.SystemSecret(ctx, secretTokenSigner)
	if CodeOf(err) == NotFound {
		err = dataLoss(prefixSecret+secretTokenSigner, err)
	}
	if err != nil {
		return err
	}
	defer clear(seed)
	if len(seed) != ed25519.SeedSize {
		return dataLoss(prefixSecret+secretTokenSigner, errors.New("wrong length"))
	}
	key := ed25519.NewKeyFromSeed(seed)
	s.tokenSigner.keep(key)
	if s.tokens == nil { // it outlives sealing
		s.tokens = &token.Verifier{Installation: s.installation.ID,
			Keys: map[uint32]ed25519.PublicKey{s.installation.TokenEpoch: key.Public().(ed25519.PublicKey)}}
	}
	return nil
}

// madeToken is what is remembered of a token under an idempotency key: nothing
// secret, and all that is needed to sign the same token again.
type madeToken struct {
	Statement token.Statement `json:"statement"`
	Expires   time.Time       `json:"expires"` // of a lease, unless it is renewed
}

// CreateToken signs a token. One that is asked for with a token is its child: it
// ends no later, has no more rights, and is revoked with it. A certificate's
// tokens have no parent, so that who may not use keys can make tokens for those
// who may.
func (s *Service) CreateToken(ctx context.Context, call Call, q CreateTokenRequest) (NewToken, error) {
	maker := "" // what bounds the token: the same request of another token of the principal asks for another
	if call.Caller != nil {
		maker = call.Caller.TokenID
	}
	c := change{action: policy.CreateToken, idempotency: q.Idempotency, always: true,
		request: struct{ P, G, T, R, A, N, M any }{q.Principal, q.Groups, q.TTL, q.RenewableFor, q.Actions, q.Resources, maker},
		check:   errors.Join(checkToken(q), checkParent(call.Caller, q, s.now())), resource: installationResource}
	made, err := mutate(ctx, s, call, c, func(_ context.Context, t *trace, tx *transaction) (madeToken, error) {
		return s.planToken(t, tx, q)
	})
	if err != nil {
		return NewToken{}, err
	}
	text, err := s.tokenSigner.sign(made.Statement)
	if err != nil {
		return NewToken{}, err
	}
	out := NewToken{Text: text, ID: hex.EncodeToString(made.Statement.ID[:]), Expires: made.Expires}
	if made.Statement.Renewable {
		out.RenewableUntil = made.Statement.Expires
	}
	return out, nil
}

func installationResource(context.Context) (*policy.Resource, error) { return &policy.Resource{}, nil }

func (s *Service) planToken(t *trace, tx *transaction, q CreateTokenRequest) (madeToken, error) {
	made, err := s.newStatement(t, q)
	if err != nil {
		return madeToken{}, err
	}
	statement := made.Statement
	if _, err := s.tokenSigner.sign(statement); CodeOf(err) == Unavailable {
		return madeToken{}, err
	} else if err != nil { // before anything is written
		return madeToken{}, &Error{Code: InvalidArgument, Reason: "TOKEN_TOO_LONG", Cause: err,
			Message: "the token would be too long with all that its ancestors say; give fewer groups, actions and resources"}
	}
	t.durable = true
	tx.detail("principal", q.Principal)
	tx.detail("token_id", hex.EncodeToString(statement.ID[:]))
	tx.detail("expires", made.Expires.Format(time.RFC3339))
	if len(statement.Ancestors) > 0 {
		tx.detail("parent", t.call.Caller.TokenID)
	}
	if statement.Renewable {
		tx.detail("renewable_until", statement.Expires.Format(time.RFC3339))
		s.putLease(tx, made)
	}
	return made, nil
}

func (s *Service) newStatement(t *trace, q CreateTokenRequest) (madeToken, error) {
	now := t.start.UTC().Truncate(time.Second)
	parent := parentOf(t.call.Caller)
	statement := token.Statement{Installation: s.installation.ID, Epoch: s.installation.TokenEpoch,
		Bearer:    token.Bearer{Principal: q.Principal, Groups: q.Groups, Actions: q.Actions, Resources: q.Resources},
		Renewable: q.RenewableFor != 0, Origin: originOf(t.call.Caller), Ancestors: links(parent)}
	rand.Read(statement.ID[:])
	statement.Issued = s.revocations.current.Load().notBefore(statement, now)
	end := statement.Issued.Add(ttlOf(q))
	statement.Expires = end
	if q.RenewableFor != 0 {
		statement.Expires = now.Add(q.RenewableFor)
	}
	if parent != nil {
		statement.Expires, end = earlier(statement.Expires, parent.Token.End), earlier(end, parent.Token.End)
	}
	end = earlier(end, statement.Expires)
	if !end.After(statement.Issued) {
		return madeToken{}, precondition("PARENT_ENDS", "the token that this one is made with ends now; use another")
	}
	return madeToken{Statement: statement, Expires: end}, nil
}

func ttlOf(q CreateTokenRequest) time.Duration {
	if q.TTL == 0 {
		return DefaultTokenTTL
	}
	return q.TTL
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// parentOf returns the caller if it has a token: then that is the parent of what
// it makes.
func parentOf(c *policy.Caller) *policy.Caller {
	if c == nil || c.TokenID == "" {
		return nil
	}
	return c
}

func originOf(c *policy.Caller) [16]byte {
	if c.TokenID != "" {
		return c.Token.Origin
	}
	return token.OriginOf(c.Principal())
}

// links describes a caller and its ancestors, nearest first.
func links(c *policy.Caller) (chain []token.Link) {
	for ; c != nil; c = c.Parent {
		link := token.Link{Issued: c.Token.Issued, Renewable: c.Token.Renewable,
			Bearer: token.Bearer{Principal: c.ID, Groups: c.Groups, Actions: c.Actions, Resources: c.Resources}}
		hex.Decode(link.ID[:], []byte(c.TokenID)) //nolint:errcheck // an id is hexadecimal: callerOf wrote it
		chain = append(chain, link)
	}
	return chain
}

// VerifyToken returns who bears a token, from what the store says alone. A
// transport may keep the Caller for the same text until it Expires, or
// TokenGeneration changes; the Expires of a renewable token may have moved by then.
func (s *Service) VerifyToken(text string) (*policy.Caller, error) {
	statement, err := s.tokens.Verify(text, s.now())
	if errors.Is(err, token.ErrExpired) {
		return nil, errTokenExpired(err)
	}
	if err != nil {
		return nil, &Error{Code: Unauthenticated, Reason: "INVALID_TOKEN", Message: "the token is not valid here; get a new one", Cause: err}
	}
	if s.revocations.current.Load().voids(statement) {
		return nil, errTokenRevoked()
	}
	expires, err := s.expiryOf(statement)
	if err != nil {
		return nil, err
	}
	caller := callerOf(statement.Link())
	caller.Expires, caller.Token.End = expires, statement.Expires
	caller.Token.Origin, caller.Token.Once = statement.Origin, statement.Once
	child := caller
	for _, link := range statement.Ancestors {
		child.Parent = callerOf(link)
		child = child.Parent
	}
	return caller, nil
}

func callerOf(link token.Link) *policy.Caller {
	return &policy.Caller{Type: policy.Token, ID: link.Principal, Groups: link.Groups, Method: "token",
		TokenID: hex.EncodeToString(link.ID[:]), Actions: link.Actions, Resources: link.Resources,
		Token: policy.TokenFacts{Issued: link.Issued, Renewable: link.Renewable}}
}

func errTokenExpired(cause error) error {
	return &Error{Code: Unauthenticated, Reason: "TOKEN_EXPIRED", Message: "the token has expired; get a new one", Cause: cause}
}

func errTokenRevoked() error {
	return &Error{Code: Unauthenticated, Reason: "TOKEN_REVOKED", Message: "the token, or one that it descends from, was revoked or used up; get a new one"}
}
