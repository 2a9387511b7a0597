package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Rotating the root key makes a new version on the token and puts it in force;
// what the one before still wraps is wrapped anew in the background (rewrap.go).
// The new key's id is written down before the key is made, as PENDING, in a
// transaction of its own: so a crash leaves no key on the token that the store does
// not know, and none that is in force and not on the token. A PENDING version that
// nobody goes on with is removed, from the token first.

// ErrNoWrapMechanism is what HSM.GenerateRoot returns when the token cannot wrap.
var ErrNoWrapMechanism = errors.New("the token has no mechanism to wrap with that Keywright uses")

// RotateRootRequest asks for a new version of the root key on a token; the empty
// name is DefaultToken. On a token that has none it is the first one.
type RotateRootRequest struct {
	Token       string
	Idempotency string
}

// pendingAge is how long the jobs leave a version PENDING: a call that makes one
// has ended by then, on whatever server.
const pendingAge = 2 * time.Minute

// rootChange is a change of the installation's root versions.
func (s *Service) rootChange(action policy.Action, idempotency string, request any) change {
	return change{action: action, idempotency: idempotency, request: request, resource: installationResource,
		lock: func() *sync.Mutex { return &s.head.lock }, forget: s.reloadHead}
}

func (s *Service) readInstallation(ctx context.Context) (stored[installationRecord], error) {
	record, err := read[installationRecord](ctx, s, s.system, pathInstallation)
	if errors.Is(err, store.ErrNotFound) {
		err = dataLoss(pathInstallation, err)
	}
	return record, err
}

// putRoots writes the installation with these versions, and puts them in force
// once they are durable. The caller holds the head's lock.
func (s *Service) putRoots(tx *transaction, in stored[installationRecord], all []rootRef) {
	changed := in.value.withRoots(all)
	tx.put(s.system, pathInstallation, in.revision, changed)
	tx.then(func(store.Revision) { s.keepRoots(changed) })
}

// rootJob brackets a change of the root versions that the server itself makes.
// The caller holds the head's lock.
func (s *Service) rootJob(ctx context.Context, action policy.Action, plan func(in stored[installationRecord], all []rootRef, tx *transaction) error) error {
	t := s.jobTrace(action, "")
	_, err := commitChange(ctx, s, t, change{forget: s.reloadHead}, func(ctx context.Context, _ *trace, tx *transaction) (struct{}, error) {
		in, err := s.readInstallation(ctx)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, plan(in, in.value.roots(), tx)
	})
	return s.concludeJob(t, err)
}

// RotateRoot makes a new version of the root key on a token and puts it in force,
// by a few calls of the HSM. ListRoots tells how far wrapping anew has come.
func (s *Service) RotateRoot(ctx context.Context, call Call, q RotateRootRequest) (RootVersion, error) {
	c := s.rootChange(policy.RotateRoot, q.Idempotency, struct{ T any }{tokenName(q.Token)})
	c.check = s.checkToken(q.Token)
	var made *rootRef
	answer, err := mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (RootVersion, error) {
		if made == nil { // a plan that lost a race goes on with the key that is made
			fresh, err := s.makeRoot(ctx, tokenName(q.Token))
			if err != nil {
				return RootVersion{}, err
			}
			made = &fresh
		}
		in, err := s.readInstallation(ctx)
		if err != nil {
			return RootVersion{}, err
		}
		return s.planRoot(tx, in, *made)
	})
	if err != nil && made != nil {
		s.takeBack(ctx, *made)
	}
	return answer, err
}

// planRoot puts a version that was made in force.
func (s *Service) planRoot(tx *transaction, in stored[installationRecord], made rootRef) (RootVersion, error) {
	all := in.value.roots()
	at := slices.IndexFunc(all, func(r rootRef) bool { return r.ID == made.ID && r.State == RootPending })
	if at < 0 {
		return RootVersion{}, storeError(store.ErrConflict) // another server has taken it away
	}
	now, before := s.now().UTC(), uint32(0)
	for i, r := range all {
		if r.Token == made.Token && r.state() == RootActive {
			all[i].State, all[i].Replaced, before = RootRetiring, now, r.Version
		}
	}
	all[at] = made
	all[at].State, all[at].Created = RootActive, now
	if made.Token == "" {
		all[at].State = ""
	}
	s.putRoots(tx, in, all)
	tx.then(func(store.Revision) { s.roots.Load().byVersion[made.Version].found.Store(true) })
	tx.detail("token", tokenName(made.Token))
	tx.detail("root", made.ID.String())
	tx.detail("root_version", fmt.Sprintf("%d -> %d", before, made.Version))
	return all[at].describe(0), nil
}

// makeRoot writes a new version's id down, as PENDING, and makes the key. One that
// could not be made is taken back. The caller holds the head's lock.
func (s *Service) makeRoot(ctx context.Context, token string) (rootRef, error) {
	d := s.devices[token]
	if err := d.hsm.Probe(ctx); err != nil { // so that nothing is begun while it is away
		return rootRef{}, hsmError("root key", &awayError{token, err})
	}
	if err := s.dropPending(ctx, token, 0); err != nil { // of an earlier attempt
		return rootRef{}, err
	}
	made, err := s.reserveRoot(ctx, token)
	if err != nil {
		return rootRef{}, err
	}
	made.CheckValue, err = d.hsm.GenerateRoot(ctx, made.ID)
	if err == nil {
		return made, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	if err := s.dropPending(undo, token, 0); err != nil {
		s.log.Warn("a root key that could not be made may be on the token; it is removed later", "token", token, "id", made.ID, "error", err)
	}
	return rootRef{}, rootNotMade(token, err)
}

func rootNotMade(token string, err error) error {
	e := &Error{Code: Unavailable, Reason: "ROOT_NOT_MADE", Cause: err,
		Message: fmt.Sprintf("token %s could not make a root key, and nothing was changed: %v; see whether it is full or write-protected", token, err)}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return hsmError("root key", err)
	case errors.Is(err, ErrNoWrapMechanism):
		e.Code, e.Message = FailedPrecondition, fmt.Sprintf("token %s cannot hold a root key: %v; nothing was changed", token, err)
	}
	return e
}

// reserveRoot writes down the id under which a key will be made.
func (s *Service) reserveRoot(ctx context.Context, token string) (made rootRef, err error) {
	made = rootRef{ID: newObjectID(), Token: storedToken(token), State: RootPending, Created: s.now().UTC()}
	err = s.rootJob(ctx, policy.RotateRoot, func(in stored[installationRecord], all []rootRef, tx *transaction) error {
		if all, err = roomForRoot(all); err != nil {
			return err
		}
		made.Version = all[len(all)-1].Version + 1
		tx.detail("root", made.ID.String())
		tx.detail("token", token)
		tx.detail("state", string(RootPending))
		s.putRoots(tx, in, append(all, made))
		return nil
	})
	return made, err
}

// roomForRoot forgets versions that are destroyed, if there are too many.
func roomForRoot(all []rootRef) ([]rootRef, error) {
	for len(all) >= maxRoots {
		at := slices.IndexFunc(all, func(r rootRef) bool { return r.State == RootDestroyed })
		if at < 0 {
			return nil, precondition("TOO_MANY_ROOTS", "there are %d versions of the root key, as many as are remembered; destroy some that are RETIRED first, ListRoots shows them", len(all))
		}
		all = slices.Delete(all, at, at+1)
	}
	return all, nil
}

// dropPending removes what a rotation has left unfinished, of one token or, with an
// empty name, of all, if it is at least so old. First the store says that it is
// ABANDONED, and so will not be in force: another server may be about to make it so.
// The caller holds the head's lock.
func (s *Service) dropPending(ctx context.Context, token string, age time.Duration) error {
	for _, r := range s.roots.Load().sorted() {
		waiting := r.state() == RootPending && s.now().Sub(r.Created) >= age
		if !waiting && r.state() != RootAbandoned || token != "" && token != tokenName(r.Token) || r.device == nil {
			continue
		}
		if waiting {
			if err := s.moveRoot(ctx, policy.RotateRoot, r.Version, RootPending, RootAbandoned); err != nil {
				return err
			}
			if now := s.roots.Load().byVersion[r.Version]; now == nil || now.state() != RootAbandoned {
				continue // it is in force now
			}
		}
		if err := r.device.hsm.Destroy(ctx, r.ID); err != nil {
			return hsmError("root key", r.at(err))
		}
		if err := s.forgetRoot(ctx, r.rootRef); err != nil {
			return err
		}
	}
	return nil
}

// forgetRoot removes a version that was never in force.
func (s *Service) forgetRoot(ctx context.Context, r rootRef) error {
	return s.rootJob(ctx, policy.RotateRoot, func(in stored[installationRecord], all []rootRef, tx *transaction) error {
		left := slices.DeleteFunc(slices.Clone(all), func(o rootRef) bool { return o.ID == r.ID && o.State == RootAbandoned })
		if len(left) == len(all) {
			return nil
		}
		tx.detail("root", r.ID.String())
		tx.detail("token", tokenName(r.Token))
		tx.detail("state", "REMOVED")
		s.putRoots(tx, in, left)
		return nil
	})
}

// takeBack removes a key that was made and could not be put in force, because
// another server had abandoned it meanwhile.
func (s *Service) takeBack(ctx context.Context, made rootRef) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	in, err := s.readInstallation(ctx)
	if err == nil && !slices.ContainsFunc(in.value.roots(), func(r rootRef) bool { return r.ID == made.ID && r.State != RootAbandoned }) {
		err = s.devices[tokenName(made.Token)].hsm.Destroy(ctx, made.ID)
	}
	if err != nil {
		s.log.Warn("a root key that is not in force may be on the token; remove it there if ListRoots does not show it", "token", tokenName(made.Token), "id", made.ID, "error", err)
	}
}

// tendRoots goes on with what root versions have begun: being made, replaced,
// destroyed. Their record says so, hence a restart goes on too.
func (s *Service) tendRoots(ctx context.Context) {
	tick := time.NewTicker(s.config.JobInterval)
	defer tick.Stop()
	var failed time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if time.Since(failed) < tendPause && !failed.IsZero() || s.seals.Load().since(DefaultToken) != (time.Time{}) {
				continue
			}
			failed = time.Time{}
			if err := s.tendRootsOnce(ctx); err != nil && ctx.Err() == nil {
				failed = time.Now()
				s.log.Error("the work on root keys failed; it is tried again", "code", CodeOf(err), "error", err)
			}
		}
	}
}

func (s *Service) tendRootsOnce(ctx context.Context) error {
	return errors.Join(s.tendPending(ctx), s.rewrapDomains(ctx), s.destroyRoots(ctx), s.eraseWithRoots(ctx))
}

// some tells whether there is a version of which fn holds.
func (set *rootSet) some(fn func(*rootVersion) bool) bool {
	for _, r := range set.byVersion {
		if fn(r) {
			return true
		}
	}
	return false
}

func (s *Service) tendPending(ctx context.Context) error {
	if !s.roots.Load().some(func(r *rootVersion) bool { return r.State == RootPending || r.State == RootAbandoned }) {
		return nil
	}
	s.head.lock.Lock()
	defer s.head.lock.Unlock()
	return s.dropPending(ctx, "", pendingAge)
}
