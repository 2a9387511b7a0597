package kms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/token"
)

// A revocation is a record that the head covers: it cannot be taken away, and it
// is in force on every server as soon as that learns of the new head. It is
// forgotten once all that it concerns has ended by itself.

// RevokeTokensRequest revokes the token with an ID and all its descendants, or
// the tokens of a principal that were made before a time, with theirs. Of a
// principal that is no token's, such as User::"corp:CN=alice", it is those that it
// made. Before zero means now.
type RevokeTokensRequest struct {
	ID          string
	Principal   string
	Before      time.Time
	Idempotency string
}

// Revocation describes a revocation, as it is stored: of a token (ID) or of a
// principal's tokens made before a time, to the second.
type Revocation struct {
	ID        string    `json:"id,omitempty"`
	Principal string    `json:"principal,omitempty"`
	Before    time.Time `json:"before,omitzero"`
	Created   time.Time `json:"created"`
	// Expires is when all that it concerns has ended by itself; it is forgotten
	// then, unless leases were found to last longer.
	Expires time.Time `json:"expires"`
}

func (r Revocation) path() string {
	if r.ID != "" {
		return prefixRevocation + "token/" + r.ID
	}
	return fmt.Sprintf("%sprincipal/%x", prefixRevocation, sha256.Sum256([]byte(r.Principal)))
}

// revocationsInForce is what is revoked, and what it was read from.
type revocationsInForce struct {
	current    atomic.Pointer[revokedTokens]
	generation atomic.Uint64
	stored     map[string]stored[Revocation] // by path; guarded by the head's lock
}

// revokedTokens never changes.
type revokedTokens struct {
	ids    map[[16]byte]struct{}
	before map[[16]byte]time.Time // by token.OriginOf the principal
}

// enforce puts revocations in force. The caller holds the head's lock, or is alone.
func (r *revocationsInForce) enforce(all map[string]stored[Revocation]) {
	revoked := &revokedTokens{ids: map[[16]byte]struct{}{}, before: map[[16]byte]time.Time{}}
	for _, record := range all {
		if id, err := parseTokenID(record.value.ID); err == nil {
			revoked.ids[id] = struct{}{}
		} else {
			revoked.before[token.OriginOf(record.value.Principal)] = record.value.Before
		}
	}
	r.stored = all
	r.current.Store(revoked)
	r.generation.Add(1)
}

// with enforces one more, or a later one; without forgets one.
func (r *revocationsInForce) with(one Revocation, revision store.Revision) {
	all := maps.Clone(r.stored)
	all[one.path()] = stored[Revocation]{one, revision}
	r.enforce(all)
}

func (r *revocationsInForce) without(path string) {
	all := maps.Clone(r.stored)
	delete(all, path)
	r.enforce(all)
}

// voids tells whether a token, or one that it descends from, is revoked.
func (r *revokedTokens) voids(s token.Statement) bool {
	var first time.Time // when the chain's first token was made
	for link, ancestors := s.Link(), s.Ancestors; ; link, ancestors = ancestors[0], ancestors[1:] {
		if _, revoked := r.ids[link.ID]; revoked || link.Issued.Before(r.before[originOfToken(link.Principal)]) {
			return true
		}
		first = link.Issued
		if len(ancestors) == 0 {
			break
		}
	}
	return s.Origin != [16]byte{} && first.Before(r.before[s.Origin])
}

// notBefore returns the time that a token made now is issued at: not one that
// would void it. A revocation up to now is rounded up to the next second.
func (r *revokedTokens) notBefore(s token.Statement, now time.Time) time.Time {
	for _, origin := range [][16]byte{originOfToken(s.Principal), s.Origin} {
		if before := r.before[origin]; before.After(now) {
			now = before
		}
	}
	return now
}

func originOfToken(principal string) [16]byte {
	return token.OriginOf((&policy.Caller{Type: policy.Token, ID: principal}).Principal())
}

// loadRevocations puts the revocations that were read in force.
func (s *Service) loadRevocations(_ headRecord, all covered) error {
	read, same := map[string]stored[Revocation]{}, s.revocations.current.Load() != nil
	err := eachCovered(all, prefixRevocation, func(path string, r stored[Revocation]) error {
		read[path] = r
		same = same && s.revocations.stored[path].revision == r.revision
		return nil
	})
	if err == nil && (!same || len(read) != len(s.revocations.stored)) {
		s.revocations.enforce(read)
	}
	return err
}

// TokenGeneration changes with each revocation that comes into force here: what
// VerifyToken returned before is then to be asked for anew. It costs nothing.
func (s *Service) TokenGeneration() uint64 { return s.revocations.generation.Load() }

// RevokeTokens revokes tokens. It is in force on this server when it returns, and
// on others as soon as they learn of it. A token may revoke itself.
func (s *Service) RevokeTokens(ctx context.Context, call Call, q RevokeTokensRequest) (Revocation, error) {
	wanted, err := s.newRevocation(q)
	c := change{action: policy.RevokeToken, idempotency: q.Idempotency, request: struct{ I, P, B any }{q.ID, q.Principal, q.Before},
		check: err, resource: installationResource, own: call.Caller != nil && q.ID != "" && q.ID == call.Caller.TokenID,
		lock: func() *sync.Mutex { return &s.head.lock }, forget: s.reloadHead}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Revocation, error) {
		return s.planRevocation(ctx, tx, wanted)
	})
}

func (s *Service) newRevocation(q RevokeTokensRequest) (r Revocation, err error) {
	now := s.now().UTC()
	r = Revocation{ID: q.ID, Created: now}
	switch {
	case (q.ID == "") == (q.Principal == ""):
		return r, invalid("id", "and principal exclude each other, and one is needed; give a token's id, or a principal")
	case q.ID != "" && !q.Before.IsZero():
		return r, invalid("before", "goes with principal; leave it out, a revoked token is so at once")
	case q.ID != "":
		_, err = parseTokenID(q.ID)
		return r, err
	case q.Before.After(now):
		return r, invalid("before", "lies in the future; give a time that has passed, or leave it out to revoke all made until this moment")
	}
	kind, id, err := policy.ParsePrincipal(q.Principal)
	if err != nil || len(q.Principal) > maxPrincipal {
		return r, invalid("principal", `%q is no principal; write it as policies do, such as Token::"billing" or User::"corp:CN=alice"`, clip(q.Principal))
	}
	r.Principal, r.Before = (&policy.Caller{Type: kind, ID: id}).Principal(), q.Before.UTC()
	if q.Before.IsZero() {
		r.Before = now
	}
	r.Before = r.Before.Add(time.Second - time.Nanosecond).Truncate(time.Second)
	return r, nil
}

// maxPrincipal bounds the text of a principal, in bytes.
const maxPrincipal = 4096

// planRevocation changes nothing where the same is revoked already.
func (s *Service) planRevocation(ctx context.Context, tx *transaction, wanted Revocation) (Revocation, error) {
	path := wanted.path()
	old := s.revocations.stored[path]
	if old.revision != 0 && !wanted.Before.After(old.value.Before) {
		return old.value, nil
	}
	end, err := s.revocationEnd(ctx, wanted)
	if err != nil {
		return Revocation{}, err
	}
	wanted.Expires = end
	if old.revision != 0 {
		tx.discard(pathDue(old.value.Expires, due{Kind: dueRevocation, Path: path}))
	}
	s.putRevocation(tx, wanted, old.revision)
	return wanted, nil
}

func (s *Service) putRevocation(tx *transaction, r Revocation, base store.Revision) {
	path := r.path()
	if r.ID != "" {
		tx.detail("token_id", r.ID)
	} else {
		tx.detail("principal", r.Principal)
		tx.detail("before", r.Before.Format(time.RFC3339))
	}
	tx.detail("expires", r.Expires.Format(time.RFC3339))
	tx.put(s.system, path, base, r)
	s.putDue(tx, r.Expires, due{Kind: dueRevocation, Path: path})
	tx.then(func(revision store.Revision) { s.revocations.with(r, revision) })
}

// revocationEnd is when all that a revocation concerns has ended: tokens that are
// no leases within MaxTokenTTL from when they were made, leases at their maximum,
// and what descends from either with it.
func (s *Service) revocationEnd(ctx context.Context, r Revocation) (time.Time, error) {
	end := r.Created.Add(MaxTokenTTL + token.MaxSkew)
	if r.ID != "" {
		lease, err := s.readLease(ctx, r.ID)
		if errors.Is(err, store.ErrNotFound) {
			return end, nil
		}
		return later(end, lease.value.Max), err
	}
	origin := token.OriginOf(r.Principal)
	err := s.eachLease(ctx, func(lease leaseRecord) {
		if originOfToken(lease.Principal) == origin || lease.Origin == origin {
			end = later(end, lease.Max)
		}
	})
	return end, err
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// pruneRevocation forgets a revocation that concerns nothing any more.
func (s *Service) pruneRevocation(ctx context.Context, waiting store.Record, path string) error {
	s.head.lock.Lock()
	defer s.head.lock.Unlock()
	record, there := s.revocations.stored[path]
	tx := &transaction{}
	tx.delete(waiting.Key, waiting.Revision)
	if !there || pathDue(record.value.Expires, due{Kind: dueRevocation, Path: path}) != waiting.Key {
		return storeError(tx.commit(ctx, s)) // forgotten, or prolonged, meanwhile
	}
	end, err := s.revocationEnd(ctx, record.value)
	if err != nil {
		return err
	}
	t := s.begin(Call{}, policy.RevokeToken)
	t.entry.Principal = internalPrincipal
	if end.After(s.now()) { // a lease of another server, made while this was revoked
		prolonged := record.value
		prolonged.Expires = end
		s.putRevocation(tx, prolonged, record.revision)
		tx.detail("cause", "prolonged")
	} else {
		tx.delete(path, record.revision)
		tx.detail("cause", "ended")
		tx.detail("record", path)
		tx.then(func(store.Revision) { s.revocations.without(path) })
	}
	if err = s.auditIntent(t, tx); err == nil {
		err = storeError(tx.commit(ctx, s))
	}
	if errors.Is(err, store.ErrUnknown) {
		s.reloadHead()
	}
	return s.conclude(t, err)
}

// ListRevocations pages through the revocations in force.
func (s *Service) ListRevocations(ctx context.Context, call Call, q ListRequest) ([]Revocation, string, error) {
	return performList(ctx, s, call, policy.RevokeToken, q, func(s *Service, ctx context.Context, t *trace, q ListRequest) (listing[Revocation], error) {
		if err := s.authorize(t, policy.RevokeToken, &policy.Resource{}, nil); err != nil {
			return listing[Revocation]{}, err
		}
		return list(ctx, s, s.system, prefixRevocation, q.PageSize, q.PageToken, func(r stored[Revocation]) (Revocation, bool, error) { return r.value, true, nil })
	})
}

func parseTokenID(text string) (id [16]byte, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) || hex.EncodeToString(raw) != text {
		return id, invalid("id", "is no token's id, which has 32 lower-case hexadecimal digits; CreateToken, WhoAmI and the audit log show it")
	}
	return [16]byte(raw), nil
}
