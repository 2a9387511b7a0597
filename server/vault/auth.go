package vault

import (
	"context"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/vault/internal/wire"
)

// CertificateToken is what a login by certificate answers with. It is no secret and good
// for nothing: it stands for the client certificate of the connection that it is sent on.
const CertificateToken = "kwc_client_certificate"

// lookedUp is what the original tells of a token; of a certificate it tells what there is.
func (h *Handler) lookedUp(ctx context.Context, call kms.Call, text string) (map[string]any, error) {
	self, err := h.service.Self(ctx, call)
	if err != nil {
		return nil, err
	}
	now := h.clock()
	data := map[string]any{"id": text, "accessor": self.TokenID, "display_name": self.Principal(), "entity_id": self.Principal(),
		"path": "auth/token/create", "type": "service", "orphan": self.Parent == nil, "num_uses": 0, "renewable": self.Token.Renewable,
		"policies": []string{}, "meta": map[string]string{"principal": self.Principal(), "method": self.Method},
		"creation_time": self.Token.Issued.Unix(), "issue_time": self.Token.Issued, "explicit_max_ttl": 0,
		"ttl": int64(0), "creation_ttl": int64(0), "expire_time": nil}
	if self.TokenID == "" {
		data["path"], data["accessor"], data["creation_time"], data["issue_time"] = "auth/cert/login", "", 0, nil
	}
	if !self.Expires.IsZero() {
		data["ttl"], data["expire_time"] = seconds(self.Expires.Sub(now)), self.Expires
	}
	if !self.Expires.IsZero() && !self.Token.Issued.IsZero() {
		data["creation_ttl"] = seconds(self.Expires.Sub(self.Token.Issued))
	}
	if !self.Token.End.IsZero() && self.Token.Renewable {
		data["explicit_max_ttl"] = seconds(self.Token.End.Sub(self.Token.Issued))
	}
	if self.Token.Once {
		data["num_uses"] = 1
	}
	return data, nil
}

// token is the text that the caller presented.
func (q *systemQuery) token() string {
	if text := bearer(q.arrival.Authorization); text != "" {
		return text
	}
	return CertificateToken
}

func (h *Handler) lookupSelf(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	data, err := h.lookedUp(ctx, q.call, q.token())
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: data}, nil
}

// other authenticates the token that the request names: whoever holds one may ask about it.
func (h *Handler) other(q *systemQuery) (kms.Call, string, error) {
	r := wire.Reader{Fields: q.fields}
	text := wire.Get(&r, "token", r.Text)
	if r.Err != nil || text == "" || text == q.token() {
		return q.call, q.token(), r.Err
	}
	arrival := q.arrival
	arrival.Authorization = "Bearer " + text
	caller, err := h.gate.Authenticate(arrival)
	return kms.Call{Caller: caller, RequestID: q.call.RequestID}, text, err
}

func (h *Handler) lookup(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	call, text, err := h.other(q)
	if err != nil {
		return nil, err
	}
	data, err := h.lookedUp(ctx, call, text)
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Data: data}, nil
}

// auth is what the original answers where a token was made or renewed.
func auth(text string, caller *policy.Caller, ttl time.Duration, renewable bool) map[string]any {
	return map[string]any{"client_token": text, "accessor": caller.TokenID, "policies": []string{}, "token_policies": []string{}, "identity_policies": nil,
		"metadata": map[string]string{"principal": caller.Principal()}, "orphan": caller.Parent == nil, "entity_id": "", "lease_duration": seconds(ttl),
		"renewable": renewable, "mfa_requirement": nil, "num_uses": 0, "token_type": "service"}
}

func (h *Handler) renewSelf(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	return h.renewed(ctx, q, q.call, q.token())
}

func (h *Handler) renew(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	call, text, err := h.other(q)
	if err != nil {
		return nil, err
	}
	return h.renewed(ctx, q, call, text)
}

// renewed renews a token by the increment asked for, or to what it was made with. A
// certificate, or a token that is not renewable, is told how long it lasts: so a client
// that renews whatever it has goes on, and sees what it got.
func (h *Handler) renewed(ctx context.Context, q *systemQuery, call kms.Call, text string) (*wire.Answer, error) {
	r := wire.Reader{Fields: q.fields}
	increment := wire.Get(&r, "increment", r.Duration)
	if r.Err != nil {
		return nil, r.Err
	}
	if !call.Caller.Token.Renewable {
		if call.Caller.TokenID != "" {
			return nil, wire.Invalid("", "lease is not renewable")
		}
		self, err := h.service.Self(ctx, call)
		if err != nil {
			return nil, err
		}
		return &wire.Answer{Auth: auth(text, self, left(self.Expires, h.clock()), false)}, nil
	}
	if increment != 0 {
		increment = min(max(increment, kms.MinTokenTTL), kms.MaxLeaseTTL)
	}
	renewed, err := h.service.RenewToken(ctx, call, kms.RenewTokenRequest{TTL: increment})
	if err != nil {
		return nil, err
	}
	return &wire.Answer{Auth: auth(text, call.Caller, left(renewed.Expires, h.clock()), true)}, nil
}

func left(until, now time.Time) time.Duration {
	if until.IsZero() {
		return 0
	}
	return until.Sub(now)
}

func (h *Handler) revokeSelf(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	return h.revoked(ctx, q.call, q.call.Caller.TokenID)
}

func (h *Handler) revoke(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	call, _, err := h.other(q)
	if err != nil {
		return nil, err
	}
	// By its maker, or whoever may revoke tokens: not by holding it, which revoke-self is for.
	return h.revoked(ctx, q.call, call.Caller.TokenID)
}

func (h *Handler) revoked(ctx context.Context, call kms.Call, id string) (*wire.Answer, error) {
	if id == "" { // a certificate cannot be revoked here
		return &wire.Answer{}, nil
	}
	_, err := h.service.RevokeTokens(ctx, call, kms.RevokeTokensRequest{ID: id})
	return &wire.Answer{}, err
}

// createToken makes a token of this server. Its principal is display_name, or the
// caller's own; what it may do is what policies say of that principal, not a list of
// policies in the request.
func (h *Handler) createToken(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	r := wire.Reader{Fields: q.fields}
	ttl, period := wire.Get(&r, "ttl", r.Duration), wire.Get(&r, "period", r.Duration)
	longest := wire.Get(&r, "explicit_max_ttl", r.Duration)
	create := kms.CreateTokenRequest{Principal: wire.Get(&r, "display_name", r.Text), TTL: ttl}
	renewable := !r.Has("renewable") || wire.Get(&r, "renewable", r.Bool)
	policies := wire.Get(&r, "policies", r.Texts)
	if r.Err != nil {
		return nil, r.Err
	}
	if create.Principal == "" {
		create.Principal = q.call.Caller.ID
	}
	if period > 0 {
		create.TTL, renewable = period, true
	}
	if renewable {
		create.RenewableFor = kms.MaxLease
		if longest > 0 {
			create.RenewableFor = longest
		}
		if create.TTL == 0 {
			create.TTL = kms.DefaultTokenTTL
		}
		create.RenewableFor = max(create.RenewableFor, create.TTL)
		if end := q.call.Caller.Token.End; !end.IsZero() { // what a token makes ends no later than it does
			most := end.Sub(h.clock()).Truncate(time.Second) - time.Second
			create.RenewableFor, create.TTL = min(create.RenewableFor, most), min(create.TTL, most)
		}
	}
	made, err := h.service.CreateToken(ctx, q.call, create)
	if err != nil {
		return nil, err
	}
	var warnings []string
	if len(policies) > 0 {
		warnings = []string{"policies is ignored: what a token may do is what this server's policies permit its principal, Token::\"" + create.Principal + "\""}
	}
	caller := &policy.Caller{Type: policy.Token, ID: create.Principal, TokenID: made.ID}
	if q.call.Caller.TokenID != "" {
		caller.Parent = q.call.Caller
	}
	return &wire.Answer{Warnings: warnings, Auth: auth(made.Text, caller, left(made.Expires, h.clock()), !made.RenewableUntil.IsZero())}, nil
}

// certificateLogin answers with CertificateToken, which stands for the client certificate
// of the connection: each request over mTLS is authenticated by its own connection's.
func (h *Handler) certificateLogin(ctx context.Context, q *systemQuery) (*wire.Answer, error) {
	if q.call.Caller.TokenID != "" || q.call.Caller.Method != "mtls" {
		return nil, wire.Invalid("", "client certificate must be supplied, and no token")
	}
	return &wire.Answer{Auth: auth(CertificateToken, q.call.Caller, left(q.call.Caller.Expires, h.clock()), false)}, nil
}
