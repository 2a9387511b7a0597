package kms

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/token"
)

// A renewable token is a lease: the token says when it ends for good, a stored
// record until when it is valid now. Any server verifies it from the store alone.

// What the audit log calls the renewal of a lease, which needs no policy, and its
// end.
const (
	actionRenewToken policy.Action = "RenewToken"
	actionEndLease   policy.Action = "EndLease"
)

const prefixLease = "lease/"

// leaseTimeout bounds how long verifying a token waits for the store.
const leaseTimeout = 5 * time.Second

// leaseRecord says until when a lease is valid. Until only ever grows, so what is
// remembered of it is never wrong, only out of date once it has passed.
type leaseRecord struct {
	Principal string        `json:"principal"` // the token's name
	Origin    [16]byte      `json:"origin"`
	TTL       time.Duration `json:"ttl"`
	Until     time.Time     `json:"until"`
	Max       time.Time     `json:"max"`
}

func pathLease(id string) string { return prefixLease + id }

// maxLeases bounds the leases remembered.
const maxLeases = 16_384

// leaseCache remembers until when leases are valid at least.
type leaseCache struct {
	lock  sync.Mutex
	until map[[16]byte]time.Time
}

func (c *leaseCache) get(id [16]byte) time.Time {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.until[id]
}

func (c *leaseCache) note(id [16]byte, until time.Time) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.until == nil || len(c.until) >= maxLeases {
		c.until = map[[16]byte]time.Time{}
	}
	c.until[id] = until
}

func (c *leaseCache) forget(id [16]byte) {
	c.lock.Lock()
	defer c.lock.Unlock()
	delete(c.until, id)
}

func (s *Service) readLease(ctx context.Context, id string) (stored[leaseRecord], error) {
	return read[leaseRecord](ctx, s, s.system, pathLease(id))
}

func (s *Service) eachLease(ctx context.Context, fn func(leaseRecord)) error {
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefixLease, after, store.MaxPageRecords)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			lease, err := decode[leaseRecord](s.system, record)
			if err != nil {
				return err
			}
			fn(lease.value)
		}
		after = page.Next
	}
	return nil
}

// putLease adds a new token's lease.
func (s *Service) putLease(tx *transaction, made madeToken) {
	id := made.Statement.ID
	path := pathLease(hex.EncodeToString(id[:]))
	lease := leaseRecord{Principal: made.Statement.Principal, Origin: made.Statement.Origin,
		TTL: made.Expires.Sub(made.Statement.Issued), Until: made.Expires, Max: made.Statement.Expires}
	tx.put(s.system, path, 0, lease)
	s.putDue(tx, lease.Until, due{Kind: dueLease, Path: path})
	tx.then(func(store.Revision) { s.leases.note(id, lease.Until) })
}

// expiryOf is when a token ends as things stand: at its own end, or when its
// lease, or one that it descends from, does.
func (s *Service) expiryOf(statement token.Statement) (time.Time, error) {
	expires := statement.Expires
	for link, ancestors := statement.Link(), statement.Ancestors; ; link, ancestors = ancestors[0], ancestors[1:] {
		if link.Renewable {
			until, err := s.leaseUntil(link.ID)
			if err != nil {
				return expires, err
			}
			expires = earlier(expires, until)
		}
		if len(ancestors) == 0 {
			return expires, nil
		}
	}
}

// leaseUntil is until when a lease is valid: TOKEN_EXPIRED if it has ended.
func (s *Service) leaseUntil(id [16]byte) (time.Time, error) {
	now := s.now()
	if until := s.leases.get(id); now.Before(until) {
		return until, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseTimeout)
	defer cancel()
	lease, err := s.readLease(ctx, hex.EncodeToString(id[:]))
	if errors.Is(err, store.ErrNotFound) || err == nil && !now.Before(lease.value.Until) {
		return time.Time{}, errTokenExpired(err)
	}
	if err == nil {
		s.leases.note(id, lease.value.Until)
	}
	return lease.value.Until, err
}

// RenewTokenRequest prolongs the caller's own token by TTL from now, 0: the TTL
// that it was made with.
type RenewTokenRequest struct{ TTL time.Duration }

// RenewedToken says until when a token is valid now, and can be renewed.
type RenewedToken struct {
	Expires        time.Time `json:"expires"`
	RenewableUntil time.Time `json:"renewable_until"`
}

// RenewToken prolongs the caller's own renewable token, never beyond its maximum,
// and never to less than it has. At the maximum it is refused. It needs no policy.
func (s *Service) RenewToken(ctx context.Context, call Call, q RenewTokenRequest) (RenewedToken, error) {
	c := change{action: actionRenewToken, request: q, own: true, check: checkRenewal(call.Caller, q), resource: installationResource}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (RenewedToken, error) {
		return s.planRenewal(ctx, t, tx, q.TTL)
	})
}

func checkRenewal(caller *policy.Caller, q RenewTokenRequest) error {
	if caller != nil && !caller.Token.Renewable {
		return precondition("NOT_RENEWABLE", "the caller has no renewable token; create one with renewable_for, or a new one each time")
	}
	if q.TTL != 0 && (q.TTL < MinTokenTTL || q.TTL > MaxLeaseTTL) {
		return invalid("ttl", "is %s; use %s to %s, or leave it out for what the token was made with", q.TTL, MinTokenTTL, MaxLeaseTTL)
	}
	return nil
}

func (s *Service) planRenewal(ctx context.Context, t *trace, tx *transaction, ttl time.Duration) (RenewedToken, error) {
	id := t.call.Caller.TokenID
	lease, err := s.readLease(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && !t.start.Before(lease.value.Until) {
		return RenewedToken{}, errTokenExpired(err)
	}
	if err != nil {
		return RenewedToken{}, err
	}
	next := lease.value
	if ttl == 0 {
		ttl = next.TTL
	}
	if !next.Until.Before(next.Max) {
		return RenewedToken{}, precondition("TOKEN_AT_MAXIMUM", "the token ends for good at %s and cannot be renewed beyond that; get a new one", next.Max.Format(time.RFC3339))
	}
	next.Until = later(next.Until, earlier(t.start.UTC().Truncate(time.Second).Add(ttl), next.Max))
	renewed := RenewedToken{Expires: next.Until, RenewableUntil: next.Max}
	if next.Until.Equal(lease.value.Until) {
		return renewed, nil
	}
	job := due{Kind: dueLease, Path: pathLease(id)}
	tx.discard(pathDue(lease.value.Until, job))
	s.putDue(tx, next.Until, job)
	tx.put(s.system, job.Path, lease.revision, next)
	tx.detail("token_id", id)
	tx.detail("expires", next.Until.Format(time.RFC3339))
	tx.then(func(store.Revision) {
		if raw, err := parseTokenID(id); err == nil {
			s.leases.note(raw, next.Until)
		}
	})
	return renewed, nil
}

// endLease forgets a lease that has ended.
func (s *Service) endLease(ctx context.Context, waiting store.Record, path string) error {
	tx := &transaction{}
	tx.delete(waiting.Key, waiting.Revision)
	lease, err := read[leaseRecord](ctx, s, s.system, path)
	if errors.Is(err, store.ErrNotFound) || err == nil && s.now().Before(lease.value.Until) {
		return storeError(tx.commit(ctx, s)) // ended, or prolonged, meanwhile
	}
	if err != nil {
		return err
	}
	id := strings.TrimPrefix(path, prefixLease)
	tx.delete(path, lease.revision)
	tx.detail("token_id", id)
	tx.then(func(store.Revision) {
		if raw, err := parseTokenID(id); err == nil {
			s.leases.forget(raw)
		}
	})
	t := s.begin(Call{}, actionEndLease)
	t.entry.Principal = internalPrincipal
	if err = s.auditIntent(t, tx); err == nil {
		err = storeError(tx.commit(ctx, s))
	}
	return s.conclude(t, err)
}

// Self returns what a caller is told about itself: the Caller, with the expiry
// that a renewable token has at present.
func (s *Service) Self(ctx context.Context, call Call) (*policy.Caller, error) {
	if err := authenticated(call.Caller, s.now()); err != nil || !call.Caller.Token.Renewable {
		return call.Caller, err
	}
	lease, err := s.readLease(ctx, call.Caller.TokenID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errTokenExpired(err)
	}
	self := *call.Caller
	self.Expires = later(self.Expires, lease.value.Until)
	return &self, err
}
