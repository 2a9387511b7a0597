package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/token"
)

// tokenSigner signs tokens; its key is sealed in the system namespace.
type tokenSigner struct{ key ed25519.PrivateKey }

// LogValue and String keep the key out of logs.
func (tokenSigner) String() string   { return "[redacted]" }
func (tokenSigner) GoString() string { return "[redacted]" }

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
	s.tokenSigner = tokenSigner{ed25519.NewKeyFromSeed(seed)}
	s.tokens = &token.Verifier{Installation: s.installation.ID,
		Keys: map[uint32]ed25519.PublicKey{s.installation.TokenEpoch: s.tokenSigner.key.Public().(ed25519.PublicKey)}}
	return nil
}

// CreateToken signs a token. One that is asked for with a token ends no later
// than that one.
func (s *Service) CreateToken(ctx context.Context, call Call, q CreateTokenRequest) (NewToken, error) {
	return perform(ctx, s, call, policy.CreateToken, q, (*Service).createToken)
}

func (s *Service) createToken(_ context.Context, t *trace, q CreateTokenRequest) (NewToken, error) {
	if err := s.authorize(t, policy.CreateToken, &policy.Resource{}, nil); err != nil {
		return NewToken{}, err
	}
	if err := checkToken(q); err != nil {
		return NewToken{}, err
	}
	statement := s.tokenStatement(t, q)
	text, err := token.Sign(statement, s.tokenSigner.key)
	if err != nil {
		return NewToken{}, err
	}
	id := hex.EncodeToString(statement.ID[:])
	t.durable = true
	t.entry.Details = map[string]string{"principal": q.Principal, "token_id": id, "expires": statement.Expires.Format(time.RFC3339)}
	return NewToken{Text: text, ID: id, Expires: statement.Expires}, nil
}

func (s *Service) tokenStatement(t *trace, q CreateTokenRequest) token.Statement {
	ttl := q.TTL
	if ttl == 0 {
		ttl = DefaultTokenTTL
	}
	now := t.start.UTC().Truncate(time.Second)
	statement := token.Statement{Installation: s.installation.ID, Epoch: s.installation.TokenEpoch,
		Principal: q.Principal, Groups: q.Groups, Issued: now, Expires: now.Add(ttl)}
	rand.Read(statement.ID[:])
	if parent, err := hex.DecodeString(t.call.Caller.TokenID); err == nil && len(parent) == len(statement.Parent) {
		statement.Parent = [16]byte(parent)
		if end := t.call.Caller.Expires; !end.IsZero() && end.Before(statement.Expires) {
			statement.Expires = end
		}
	}
	return statement
}

func checkToken(q CreateTokenRequest) error {
	if err := checkName("principal", q.Principal); err != nil {
		return err
	}
	if q.TTL != 0 && (q.TTL < MinTokenTTL || q.TTL > MaxTokenTTL) {
		return invalid("ttl", "is %s; use %s to %s, or leave it out for %s", q.TTL, MinTokenTTL, MaxTokenTTL, DefaultTokenTTL)
	}
	if len(q.Groups) > token.MaxGroups {
		return invalid("groups", "has %d entries, the limit is %d", len(q.Groups), token.MaxGroups)
	}
	for _, group := range q.Groups {
		if err := checkName("groups", group); err != nil {
			return err
		}
	}
	return nil
}

// VerifyToken returns who bears a token. A transport may keep the Caller for the
// same text until it Expires; every operation checks that again.
func (s *Service) VerifyToken(text string) (*policy.Caller, error) {
	statement, err := s.tokens.Verify(text, s.now())
	if err != nil {
		if errors.Is(err, token.ErrExpired) {
			return nil, &Error{Code: Unauthenticated, Reason: "TOKEN_EXPIRED", Message: "the token has expired; get a new one", Cause: err}
		}
		return nil, &Error{Code: Unauthenticated, Reason: "INVALID_TOKEN", Message: "the token is not valid here; get a new one", Cause: err}
	}
	return &policy.Caller{Type: policy.Token, ID: statement.Principal, Groups: statement.Groups, Method: "token",
		TokenID: hex.EncodeToString(statement.ID[:]), Expires: statement.Expires}, nil
}
