package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

// A root version that nothing in the store needs any more may still open backups of
// the store that were made before it was replaced. Destroying it on the token is
// what makes all such backups unreadable: so it is asked for explicitly, happens
// after a delay, and can be taken back until then.

// DestroyRootRequest schedules the destruction of a root version on its token. A nil
// Delay means DefaultDestroyDelay. ConfirmLoss repeats the version's id where
// secrets are still wrapped by it and are to be lost with all keys below them.
type DestroyRootRequest struct {
	Version     uint32
	Delay       *time.Duration
	ConfirmLoss string
	Idempotency string
}

// RootRef names a version of the root key in a mutation.
type RootRef struct {
	Version     uint32
	Idempotency string
}

func checkRootVersion(version uint32) error {
	if version == 0 {
		return invalid("version", "is missing; ListRoots shows the versions of the root key")
	}
	return nil
}

// DestroyRoot schedules the destruction of a version that was replaced. It is
// refused for one that is in force, and for one that still wraps a domain secret.
func (s *Service) DestroyRoot(ctx context.Context, call Call, q DestroyRootRequest) (RootVersion, error) {
	c := s.rootChange(policy.DestroyRoot, q.Idempotency, struct{ V, D, C any }{q.Version, q.Delay, q.ConfirmLoss})
	c.check = checkRootVersion(q.Version)
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (RootVersion, error) {
		at, err := s.destroyTime(q.Delay)
		if err != nil {
			return RootVersion{}, err
		}
		lost, err := s.checkRootDestroyable(ctx, q)
		if err != nil {
			return RootVersion{}, err
		}
		if lost > 0 {
			tx.detail("lost_domains", fmt.Sprint(lost))
		}
		tx.detail("destroy_time", at.Format(time.RFC3339))
		return s.changeRoot(ctx, tx, q.Version, func(r *rootRef) {
			r.State, r.DestroyTime, r.Forced = RootDestroyScheduled, at, lost > 0
		})
	})
}

// RestoreRoot takes the scheduled destruction of a version back.
func (s *Service) RestoreRoot(ctx context.Context, call Call, q RootRef) (RootVersion, error) {
	c := s.rootChange(policy.RestoreRoot, q.Idempotency, struct{ V any }{q.Version})
	c.check = checkRootVersion(q.Version)
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (RootVersion, error) {
		if r := s.roots.Load().byVersion[q.Version]; r != nil && r.state() != RootDestroyScheduled {
			return RootVersion{}, precondition("ROOT_"+string(r.state()), "version %d of the root key is %s; only a scheduled destruction can be taken back", q.Version, r.state())
		}
		return s.changeRoot(ctx, tx, q.Version, func(r *rootRef) {
			r.DestroyTime, r.Forced, r.State = time.Time{}, false, RootRetired
			if r.Retired.IsZero() {
				r.State = RootRetiring
			}
		})
	})
}

// changeRoot puts a version as change makes it.
func (s *Service) changeRoot(ctx context.Context, tx *transaction, version uint32, change func(*rootRef)) (RootVersion, error) {
	in, err := s.readInstallation(ctx)
	if err != nil {
		return RootVersion{}, err
	}
	all := in.value.roots()
	i := slices.IndexFunc(all, func(r rootRef) bool { return r.Version == version })
	if i < 0 {
		return RootVersion{}, errNoRoot(version)
	}
	change(&all[i])
	s.putRoots(tx, in, all)
	tx.detail("token", tokenName(all[i].Token))
	tx.detail("root", all[i].ID.String())
	tx.detail("root_version", fmt.Sprint(version))
	return all[i].describe(0), nil
}

func errNoRoot(version uint32) error {
	return notFound("ROOT_NOT_FOUND", "there is no version %d of the root key; ListRoots shows those there are", version)
}

// checkRootDestroyable refuses what must not be destroyed, and returns how many
// domain secrets will be lost, as was confirmed.
func (s *Service) checkRootDestroyable(ctx context.Context, q DestroyRootRequest) (lost int, err error) {
	r := s.roots.Load().byVersion[q.Version]
	if r == nil {
		return 0, errNoRoot(q.Version)
	}
	switch state := r.state(); state {
	case RootActive:
		return 0, precondition("ROOT_IN_FORCE", "version %d of the root key is in force on token %s; rotate the root key first", q.Version, tokenName(r.Token))
	case RootRetiring, RootRetired:
	default:
		return 0, precondition("ROOT_"+string(state), "version %d of the root key is %s", q.Version, state)
	}
	names, n, system, err := s.namespacesWrapped(ctx, q.Version)
	switch {
	case err != nil && q.ConfirmLoss != r.ID.String():
		return 0, err
	case n == 0:
		return 0, nil
	case system:
		return 0, precondition("ROOT_NEEDED", "version %d of the root key still wraps the secret of the installation itself; wait until that is wrapped anew, ListRoots tells", q.Version)
	case q.ConfirmLoss != r.ID.String():
		return 0, precondition("ROOT_NEEDED", "version %d of the root key still wraps %d domain secrets, of namespaces %s; wait until they are wrapped anew, ListRoots tells. To lose them for ever with all their keys, give the version's id, %s, as confirm_loss",
			q.Version, n, firstNames(names, n), r.ID)
	}
	return n, nil
}

// destroyRoots removes from their tokens the versions whose time has come. The state
// DESTROYING comes first, so that a crash in between is gone on with.
func (s *Service) destroyRoots(ctx context.Context) error {
	var errs []error
	for _, r := range s.roots.Load().sorted() {
		if s.mayBeDestroyed(r) {
			errs = append(errs, s.destroyRoot(ctx, r.Version))
		}
	}
	return errors.Join(errs...)
}

// mayBeDestroyed tells that the time has come, or that destruction was begun.
func (s *Service) mayBeDestroyed(r *rootVersion) bool {
	due := r.state() == RootDestroyScheduled && !r.DestroyTime.After(s.now()) && !s.clock.paused.Load()
	return due || r.state() == RootDestroying
}

func (s *Service) destroyRoot(ctx context.Context, version uint32) error {
	s.head.lock.Lock()
	defer s.head.lock.Unlock()
	r := s.roots.Load().byVersion[version]
	if r == nil || !s.mayBeDestroyed(r) {
		return nil // changed meanwhile
	}
	if r.device == nil {
		return r.at(errors.New("it is not in this server's configuration, so its root key cannot be destroyed"))
	}
	if r.state() == RootDestroyScheduled {
		if err := s.beginDestruction(ctx, r); err != nil {
			return err
		}
		if now := s.roots.Load().byVersion[r.Version]; now == nil || now.state() != RootDestroying {
			return nil // restored meanwhile
		}
	}
	if err := r.device.hsm.Destroy(ctx, r.ID); err != nil {
		return hsmError("root key", r.at(err))
	}
	// Gone is what the token no longer finds, not what it said that it removed.
	if err := r.device.hsm.FindRoot(ctx, r.ID, r.CheckValue); !errors.Is(err, ErrWrongToken) {
		return hsmError("root key", r.at(errors.Join(err, fmt.Errorf("version %d is not gone from it", r.Version))))
	}
	return s.moveRoot(ctx, policy.DestroyRoot, r.Version, RootDestroying, RootDestroyed)
}

// beginDestruction looks once more whether anything is wrapped by a version.
func (s *Service) beginDestruction(ctx context.Context, r *rootVersion) error {
	wrapped, err := s.countWrapped(ctx)
	if !r.Forced && (err != nil || wrapped[r.Version] > 0) {
		return errors.Join(err, fmt.Errorf("version %d of the root key wraps %d domain secrets again; it is not destroyed", r.Version, wrapped[r.Version]))
	}
	return s.moveRoot(ctx, policy.DestroyRoot, r.Version, RootDestroyScheduled, RootDestroying)
}

// eraseWithRoots tells of namespaces whose replaced generations cannot be recovered
// from any old file: the generation's secret is gone from the live store, and each
// root version that was there while it was in use, and so may wrap it in a backup,
// is destroyed.
func (s *Service) eraseWithRoots(ctx context.Context) error {
	oldest, epoch := s.roots.Load().oldestKept(), s.head.epoch.Load()
	if oldest <= 1 || s.erasuresSeen.Load() == epoch {
		return nil // no version is destroyed, or nothing has changed
	}
	var errs []error
	for name, ns := range s.namespaces.All() {
		if ns.replacedBefore(oldest) {
			errs = append(errs, s.namespaceJob(ctx, name, policy.ConfirmErasure, func(ctx context.Context, now *namespace, tx *transaction) error {
				if now == nil || now.ID != ns.ID || !now.replacedBefore(oldest) {
					return nil
				}
				if err := s.checkErasable(ctx, now, now.Rekey.From); err != nil {
					return err
				}
				tx.detail("generation", fmt.Sprint(now.Rekey.From))
				tx.detail("cause", "root key destroyed")
				s.putErasure(tx, now, Erasure{Through: now.Rekey.From, ByRoot: true})
				return nil
			}))
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		s.erasuresSeen.Store(epoch)
	}
	return err
}

// replacedBefore tells that the last rekeying ended before there was that root
// version, and that what it replaced is not told to be erased yet.
func (n Namespace) replacedBefore(version uint32) bool {
	return n.State == NamespaceActive && !n.Rekey.Ended.IsZero() && n.Rekey.RootVersions > 0 && n.Rekey.RootVersions < version && n.erasedThrough() < n.Rekey.From
}

// oldestKept is the first version that is not destroyed.
func (set *rootSet) oldestKept() uint32 {
	for _, r := range set.sorted() {
		if r.state() != RootDestroyed {
			return r.Version
		}
	}
	return 0
}

// latest is the number of the last version.
func (set *rootSet) latest() (last uint32) {
	for version := range set.byVersion {
		last = max(last, version)
	}
	return last
}
