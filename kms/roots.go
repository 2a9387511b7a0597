package kms

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// RootState is the state of a version of the root key.
type RootState string

// The states of a root version. One is in force on each token; what it replaces is
// kept until it wraps nothing any more, and then until somebody destroys it.
const (
	RootPending          RootState = "PENDING"  // its id is written down; it may be on the token or not
	RootActive           RootState = "ACTIVE"   // wraps what is new on its token
	RootRetiring         RootState = "RETIRING" // replaced; domain secrets are still wrapped by it
	RootRetired          RootState = "RETIRED"  // nothing in the store needs it any more
	RootDestroyScheduled RootState = "DESTROY_SCHEDULED"
	RootDestroying       RootState = "DESTROYING" // being removed from the token; nothing brings it back
	RootDestroyed        RootState = "DESTROYED"  // gone from the token
	RootAbandoned        RootState = "ABANDONED"  // was PENDING and will not be in force; being removed
)

// maxRoots is how many versions an installation remembers. The oldest that are
// destroyed are forgotten to make room.
const maxRoots = 64

// RootVersion describes a version of the root key; zero times mean "none".
type RootVersion struct {
	Version     uint32    `json:"version"`
	ID          ObjectID  `json:"id"` // CKA_ID on the token
	Token       string    `json:"token"`
	State       RootState `json:"state"`
	Created     time.Time `json:"created,omitzero"`
	Replaced    time.Time `json:"replaced,omitzero"`
	Retired     time.Time `json:"retired,omitzero"`
	DestroyTime time.Time `json:"destroy_time,omitzero"`
	Domains     uint64    `json:"domains,omitempty"` // domain secrets that it wraps
}

func (r rootRef) describe(domains uint64) RootVersion {
	return RootVersion{Version: r.Version, ID: r.ID, Token: tokenName(r.Token), State: r.state(), Created: r.Created,
		Replaced: r.Replaced, Retired: r.Retired, DestroyTime: r.DestroyTime, Domains: domains}
}

func (r rootRef) state() RootState {
	if r.State == "" {
		return RootActive
	}
	return r.State
}

// replaced tells that what a version still wraps is to be wrapped by another.
func (r rootRef) replaced() bool { return r.State == RootRetiring || r.State == RootDestroyScheduled }

// roots returns all versions, oldest first.
func (in installationRecord) roots() []rootRef {
	all := append([]rootRef{in.Root}, in.Roots...)
	slices.SortFunc(all, func(a, b rootRef) int { return int(a.Version) - int(b.Version) })
	return all
}

// withRoots returns the record with these versions.
func (in installationRecord) withRoots(all []rootRef) installationRecord {
	in.Format, in.Roots = formatManyRoots, nil
	for _, r := range all {
		if r.Token == "" && r.state() == RootActive {
			in.Root = r
		} else {
			in.Roots = append(in.Roots, r)
		}
	}
	return in
}

// rootVersion is a version of the root key with its token. It implements
// domain.Root.
type rootVersion struct {
	rootRef
	device *device // nil: not in this server's configuration
	found  *atomic.Bool
}

// ready makes sure that the token holds the key: it uses none that was not found.
func (r *rootVersion) ready(ctx context.Context) error {
	switch {
	case r.state() == RootDestroying || r.state() == RootDestroyed:
		return precondition("ROOT_DESTROYED", "version %d of the root key, which wraps it, was destroyed; nothing brings it back", r.Version)
	case r.device == nil:
		return errTokenNotConfigured(r.Token)
	case r.found.Load():
		return nil
	}
	err := r.device.hsm.FindRoot(ctx, r.ID, r.CheckValue)
	if err == nil {
		r.found.Store(true)
	}
	return r.at(err)
}

func (r *rootVersion) at(err error) error {
	if err == nil {
		return nil
	}
	return &awayError{tokenName(r.Token), err}
}

// Wrap implements domain.Root.
func (r *rootVersion) Wrap(ctx context.Context, secret, aad []byte) ([]byte, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	blob, err := r.device.hsm.Wrap(ctx, r.ID, r.Version, secret, aad)
	return blob, r.at(err)
}

// Unwrap implements domain.Root; the blob names its root key itself.
func (r *rootVersion) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	if err := r.ready(ctx); err != nil {
		return nil, err
	}
	secret, err := r.device.hsm.Unwrap(ctx, blob, aad)
	return secret, r.at(err)
}

// rootSet is all versions; it is immutable.
type rootSet struct {
	byVersion map[uint32]*rootVersion
	active    map[string]*rootVersion // by name of the token
}

// keepRoots puts the versions of a record in force.
func (s *Service) keepRoots(record installationRecord) *rootSet {
	old := s.roots.Load()
	set := &rootSet{map[uint32]*rootVersion{}, map[string]*rootVersion{}}
	for _, ref := range record.roots() {
		r := &rootVersion{rootRef: ref, device: s.devices[tokenName(ref.Token)], found: new(atomic.Bool)}
		if old != nil && old.byVersion[ref.Version] != nil && old.byVersion[ref.Version].ID == ref.ID {
			r.found = old.byVersion[ref.Version].found
		}
		set.byVersion[ref.Version] = r
		if ref.state() == RootActive {
			set.active[tokenName(ref.Token)] = r
		}
	}
	s.roots.Store(set)
	return set
}

// loadRoots puts in force what the head covers.
func (s *Service) loadRoots(_ headRecord, all covered) error {
	return eachCovered(all, pathInstallation, func(_ string, in stored[installationRecord]) error {
		s.keepRoots(in.value)
		return nil
	})
}

// sorted returns the versions, oldest first.
func (set *rootSet) sorted() (all []*rootVersion) {
	for _, version := range slices.Sorted(maps.Keys(set.byVersion)) {
		all = append(all, set.byVersion[version])
	}
	return all
}

// rootOf returns the version that wraps something. One that memory does not know
// is an errDomainReplaced: another server may have made it.
func (s *Service) rootOf(version uint32) (*rootVersion, error) {
	if r := s.roots.Load().byVersion[version]; r != nil && r.state() != RootPending && r.state() != RootAbandoned {
		return r, nil
	}
	return nil, errors.Join(dataLoss(pathInstallation, fmt.Errorf("it has no version %d of the root key", version)), errDomainReplaced)
}

// activeRoot returns the version in force on a token.
func (s *Service) activeRoot(token string) (*rootVersion, error) {
	if err := s.checkToken(token); err != nil {
		return nil, err
	}
	if r := s.roots.Load().active[tokenName(token)]; r != nil {
		return r, nil
	}
	return nil, precondition("TOKEN_WITHOUT_ROOT", "token %s has no root key yet; make one with RotateRoot: keywright root rotate --token %s", token, token)
}

// findRoots makes sure, at start, that each token holds the versions that are
// needed. The default one must be there; another may be away, but not be wrong.
func (s *Service) findRoots(ctx context.Context) error {
	for _, r := range s.roots.Load().sorted() {
		if state := r.state(); state != RootActive && state != RootRetiring {
			continue
		}
		if r.device == nil {
			if err := s.dispensable(ctx, r); err != nil {
				return err
			}
			continue
		}
		switch err := r.ready(ctx); {
		case err == nil:
		case r.Token == "":
			return fmt.Errorf("find root key %s on the token: %w", r.ID, err)
		case errors.Is(err, ErrWrongToken):
			return fmt.Errorf("find root key %s on token %s: %w", r.ID, r.Token, err)
		default:
			s.log.Error("a token is away; namespaces bound to it are refused until it is back", "token", r.Token, "error", err)
		}
	}
	return nil
}

// dispensable refuses to do without a token that wraps something.
func (s *Service) dispensable(ctx context.Context, r *rootVersion) error {
	wrapped, err := s.countWrapped(ctx)
	if err != nil {
		return err
	}
	if n := wrapped[r.Version]; n > 0 {
		return fmt.Errorf("token %s is not in the configuration (hsm.tokens), but its root key, version %d, wraps the secrets of %d namespaces: add it; to do without it, move them to another first", r.Token, r.Version, n)
	}
	return nil
}

// eachDomain calls fn for each domain record, with what it claims, unverified. A
// damaged one holds up no other; the first is reported in the end.
func (s *Service) eachDomain(ctx context.Context, fn func(store.Record, domainRecord) error) error {
	var damaged error
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefixDomain, after, store.MaxPageRecords)
		if err != nil {
			return storeError(err)
		}
		for _, record := range page.Records {
			claimed, err := peek[domainRecord](record)
			if err != nil {
				damaged = firstOf(damaged, err)
				continue
			}
			if err := fn(record, claimed); err != nil {
				return err
			}
		}
		after = page.Next
	}
	return damaged
}

// countWrapped counts the domain secrets that each version wraps.
func (s *Service) countWrapped(ctx context.Context) (map[uint32]uint64, error) {
	counts := map[uint32]uint64{}
	err := s.eachDomain(ctx, func(_ store.Record, claimed domainRecord) error {
		counts[claimed.RootVersion]++
		return nil
	})
	return counts, err
}

// ListRoots describes all versions of the root key, oldest first.
func (s *Service) ListRoots(ctx context.Context, call Call) ([]RootVersion, error) {
	return perform(ctx, s, call, policy.ListRoots, struct{}{}, func(s *Service, ctx context.Context, t *trace, _ struct{}) ([]RootVersion, error) {
		if err := s.authorize(t, policy.ListRoots, &policy.Resource{}, nil); err != nil {
			return nil, err
		}
		counts, err := s.countWrapped(ctx)
		if err != nil {
			return nil, err
		}
		var all []RootVersion
		for _, r := range s.roots.Load().sorted() {
			all = append(all, r.describe(counts[r.Version]))
		}
		return all, nil
	})
}

// namespacesWrapped names some of those whose domain secrets a version wraps, and
// tells whether `system` is among them.
func (s *Service) namespacesWrapped(ctx context.Context, version uint32) (names []string, n int, system bool, err error) {
	known := map[ID]string{}
	for name, ns := range s.namespaces.All() {
		known[ns.ID] = name
	}
	err = s.eachDomain(ctx, func(_ store.Record, claimed domainRecord) error {
		if claimed.RootVersion != version {
			return nil
		}
		system = system || claimed.Namespace == 0
		if name := known[claimed.Namespace]; name != "" && !slices.Contains(names, name) && len(names) < 10 {
			names = append(names, name)
		}
		n++
		return nil
	})
	return names, n, system, err
}

func newObjectID() (id ObjectID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// firstNames names the first few of n.
func firstNames(names []string, n int) string {
	text := strings.Join(names, ", ")
	if n > len(names) {
		text += " and others"
	}
	return text
}
