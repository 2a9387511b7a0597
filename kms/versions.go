package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// RotateKey makes a new ENABLED version and makes it primary, in one transaction
// of constant size.
func (s *Service) RotateKey(ctx context.Context, call Call, q KeyRef) (KeyVersion, error) {
	c, at := s.keyChange(policy.RotateKey, q.Namespace, q.Key, q.Idempotency, struct{ N, K any }{q.Namespace, q.Key})
	c.prepare = func(ctx context.Context, t *trace) (func(), error) {
		return s.prepareRotation(ctx, t, at, func(k keyRecord) error {
			if k.State != KeyActive {
				return errKeyDeleted(k.Key)
			}
			return firstOf(checkRotatable(k.Key), s.refusal(at.key.ns))
		})
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (KeyVersion, error) {
		t.about(at.key)
		k, d, err := s.currentActive(ctx, at)
		if err != nil {
			return KeyVersion{}, err
		}
		if err := checkRotatable(k.value.Key); err != nil {
			return KeyVersion{}, err
		}
		return s.planRotation(t, tx, d, at, k)
	})
}

// errNotDue says that there is nothing to rotate any more.
var errNotDue = errors.New("not due")

// prepareRotation makes the next version's key on the token, for a key of
// protection level HSM that wanted does not refuse to rotate.
func (s *Service) prepareRotation(ctx context.Context, t *trace, at *target, wanted func(keyRecord) error) (done func(), err error) {
	if at.key.Protection != HSMLevel {
		return func() {}, nil
	}
	turned, err := s.objects.turn(ctx, at.key.ID)
	if err != nil {
		return turned, err
	}
	k, _, err := s.current(ctx, at)
	if err == nil {
		err = wanted(k.value)
	}
	if err != nil {
		return turned, err
	}
	t.about(at.key)
	made, err := s.makeObject(ctx, t, at.key.ns, objectRecord{Key: at.key.ID, Version: k.value.LatestVersion + 1, Algorithm: at.key.Algorithm})
	return func() { made(); turned() }, err
}

func (s *Service) planRotation(t *trace, tx *transaction, d *domain.Domain, at *target, k stored[keyRecord]) (KeyVersion, error) {
	number := k.value.LatestVersion + 1
	if number == 0 {
		return KeyVersion{}, errTooManyVersions()
	}
	if err := s.putVersion(t, tx, d, at.key.ns.ID, k.value.Key, at.key.algorithm, number); err != nil {
		return KeyVersion{}, err
	}
	k.value.LatestVersion, k.value.PrimaryVersion, k.value.PrimaryCreated = number, number, s.now().UTC()
	s.scheduleRotation(tx, &k.value)
	s.putKey(tx, d, at, k)
	t.entry.Version = number
	made := versionRecord{Version: number, State: Enabled, Created: k.value.PrimaryCreated}
	return describeVersion(k.value, made, 0), nil
}

func errTooManyVersions() *Error {
	return precondition("TOO_MANY_VERSIONS", "the key has as many versions as can be numbered; make a new key")
}

func describeVersion(k keyRecord, v versionRecord, lastUsed int64) KeyVersion {
	d := KeyVersion{Namespace: k.Namespace, Key: k.Name, KeyID: k.ID, Version: v.Version, State: v.State,
		Primary: v.Version == k.PrimaryVersion, Algorithm: k.Algorithm, Created: v.Created, Imported: v.Imported, DestroyTime: v.DestroyTime,
		Protection: k.Protection}
	if lastUsed > 0 {
		d.LastUsed = time.Unix(lastUsed*3600, 0).UTC()
	}
	return d
}

// versionChange plans the change of one version: its key and it as they are now.
type versionChange func(tx *transaction, k *stored[keyRecord], v *versionRecord) error

// changeVersion runs a change of one version's record.
func (s *Service) changeVersion(ctx context.Context, call Call, action policy.Action, q VersionRef, request any, plan versionChange) (KeyVersion, error) {
	c, at := s.keyChange(action, q.Namespace, q.Key, q.Idempotency, request)
	if q.Version == 0 {
		c.check = invalid("version", "is missing; say which version, ListVersions names them")
	}
	c.forget = func() { s.cache.dropVersion(at.key.ID, q.Version) }
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (KeyVersion, error) {
		t.about(at.key)
		t.entry.Version = q.Version
		return s.planVersion(ctx, tx, at, q.Version, plan)
	})
}

func (s *Service) planVersion(ctx context.Context, tx *transaction, at *target, number uint32, plan versionChange) (KeyVersion, error) {
	k, d, err := s.currentActive(ctx, at)
	if err != nil {
		return KeyVersion{}, err
	}
	v, err := s.readVersion(ctx, at.key, number)
	if err != nil {
		return KeyVersion{}, err
	}
	before := v.value.State
	if err := plan(tx, &k, &v.value); err != nil {
		return KeyVersion{}, err
	}
	if v.value.State != before {
		if err := s.putChanged(tx, d, at, v); err != nil {
			return KeyVersion{}, err
		}
		tx.detail("state", fmt.Sprintf("%s -> %s", before, v.value.State))
		if before == DestroyScheduled && k.value.untrim(number) {
			tx.detail("min_available_version", fmt.Sprint(number))
			s.putKey(tx, d, at, k)
		} else { // the key's record, unchanged, orders this against a change of its primary version
			tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: pathKey(at.key.ns.ID, at.key.ID), Revision: k.revision})
		}
	}
	// A damaged record of uses must not keep anyone from disabling the version.
	lastUsed, err := s.lastUsed(ctx, at.key, number)
	if err != nil {
		s.log.Warn("time of last use cannot be read", "key", at.key.ID, "version", number, "error", err)
	}
	return describeVersion(k.value, v.value, lastUsed), nil
}

// putChanged writes a version's changed record and forgets the old snapshot.
func (s *Service) putChanged(tx *transaction, d *domain.Domain, at *target, v stored[versionRecord]) error {
	path := pathVersion(at.key.ns.ID, at.key.ID, v.value.Version)
	record, err := sealedAnew(d, materialPlace(at.key.ns.ID, at.key.ID, v.value.Version, at.key.Algorithm), v.value)
	if err != nil {
		return dataLoss(path, err)
	}
	tx.put(d, path, v.revision, record)
	tx.then(func(store.Revision) { s.cache.dropVersion(at.key.ID, v.value.Version) })
	return nil
}

// DisableVersion makes a version refuse use until it is enabled again.
func (s *Service) DisableVersion(ctx context.Context, call Call, q VersionRef) (KeyVersion, error) {
	return s.changeVersion(ctx, call, policy.DisableVersion, q, q.request(), func(_ *transaction, k *stored[keyRecord], v *versionRecord) error {
		if err := notPrimary(k.value, v.Version, "disabled"); err != nil {
			return err
		}
		return v.move(Disabled, Enabled, Disabled)
	})
}

// EnableVersion makes a disabled version usable again.
func (s *Service) EnableVersion(ctx context.Context, call Call, q VersionRef) (KeyVersion, error) {
	return s.changeVersion(ctx, call, policy.EnableVersion, q, q.request(), func(_ *transaction, _ *stored[keyRecord], v *versionRecord) error {
		return v.move(Enabled, Enabled, Disabled)
	})
}

// DestroyVersion schedules the removal of a version's material.
func (s *Service) DestroyVersion(ctx context.Context, call Call, q DestroyRequest) (KeyVersion, error) {
	ref := VersionRef{Namespace: q.Namespace, Key: q.Key, Version: q.Version, Idempotency: q.Idempotency}
	return s.changeVersion(ctx, call, policy.DestroyVersion, ref, q.request(), func(tx *transaction, k *stored[keyRecord], v *versionRecord) error {
		at, err := s.destroyTime(q.Delay)
		if err != nil {
			return err
		}
		if err := notPrimary(k.value, v.Version, "destroyed"); err != nil {
			return err
		}
		if err := v.move(DestroyScheduled, Enabled, Disabled); err != nil {
			return err
		}
		v.DestroyTime = at
		tx.detail("destroy_time", at.Format(time.RFC3339))
		s.putDue(tx, at, due{Kind: dueDestroyVersion, Namespace: k.value.Namespace, Key: k.value.ID, Version: v.Version})
		return nil
	})
}

// RestoreVersion takes a scheduled destruction back; the version is DISABLED then. Of a
// key of VAULT framing it takes a trim of the version back too.
func (s *Service) RestoreVersion(ctx context.Context, call Call, q VersionRef) (KeyVersion, error) {
	return s.changeVersion(ctx, call, policy.RestoreVersion, q, q.request(), func(tx *transaction, k *stored[keyRecord], v *versionRecord) error {
		if err := v.move(Disabled, DestroyScheduled); err != nil {
			return err
		}
		tx.discard(pathDue(v.DestroyTime, due{Kind: dueDestroyVersion, Namespace: k.value.Namespace, Key: k.value.ID, Version: v.Version}))
		v.DestroyTime = time.Time{}
		return nil
	})
}

func (q VersionRef) request() any { return struct{ N, K, V any }{q.Namespace, q.Key, q.Version} }
func (q DestroyRequest) request() any {
	return struct{ N, K, V, D any }{q.Namespace, q.Key, q.Version, q.Delay}
}

func notPrimary(k keyRecord, number uint32, verb string) error {
	if k.PrimaryVersion != number {
		return nil
	}
	return precondition("VERSION_IS_PRIMARY", "version %d is the primary version and cannot be %s; rotate the key or make another version primary first", number, verb)
}

// move changes the state if it may be reached from the present one.
func (v *versionRecord) move(to VersionState, from ...VersionState) error {
	for _, state := range from {
		if v.State == state {
			v.State = to
			return nil
		}
	}
	return errVersionState(v.Version, v.State)
}

// errVersionState says why a version cannot be used or changed in its state.
func errVersionState(number uint32, state VersionState) *Error {
	advice := map[VersionState]string{
		Enabled:          "it is in use; nothing is scheduled that could be taken back",
		Disabled:         "an operator can enable it again",
		DestroyScheduled: "an operator can restore it until its destroy time",
		Destroyed:        "its material is gone",
		Pending:          "it is still being made; try again shortly",
	}
	return precondition("VERSION_"+string(state), "version %d is %s; %s", number, state, advice[state])
}

// destroyTime checks a delay and returns when it is over.
func (s *Service) destroyTime(delay *time.Duration) (time.Time, error) {
	d, shortest := DefaultDestroyDelay, MinDestroyDelay
	if s.installation.DevMode {
		shortest = 0
	}
	if delay != nil {
		d = *delay
	}
	if d < shortest || d > MaxDestroyDelay {
		return time.Time{}, invalid("delay", "is %s; use %s to %s, or leave it out for %s", d, shortest, MaxDestroyDelay, DefaultDestroyDelay)
	}
	return s.now().Add(d).UTC(), nil
}

// SetPrimaryVersion makes an ENABLED version the primary one.
func (s *Service) SetPrimaryVersion(ctx context.Context, call Call, q VersionRef) (Key, error) {
	c, at := s.keyChange(policy.SetPrimaryVersion, q.Namespace, q.Key, q.Idempotency, q.request())
	if q.Version == 0 {
		c.check = invalid("version", "is missing; say which version, ListVersions names them")
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		t.entry.Version = q.Version
		k, d, err := s.currentActive(ctx, at)
		if err != nil || k.value.PrimaryVersion == q.Version {
			return k.value.Key, err
		}
		if err := at.key.framed(FramingNative); err != nil { // of VAULT framing the latest is the primary one, always
			return Key{}, err
		}
		v, err := s.readVersion(ctx, at.key, q.Version)
		if err != nil {
			return Key{}, err
		}
		if v.value.State != Enabled {
			return Key{}, errVersionState(q.Version, v.value.State)
		}
		tx.detail("primary", fmt.Sprintf("%d -> %d", k.value.PrimaryVersion, q.Version))
		k.value.PrimaryVersion, k.value.PrimaryCreated = q.Version, v.value.Created
		s.scheduleRotation(tx, &k.value)
		s.putKey(tx, d, at, k)
		return k.value.Key, nil
	})
}

// GetVersion describes a version; 0 is the primary one.
func (s *Service) GetVersion(ctx context.Context, call Call, q VersionRef) (KeyVersion, error) {
	return perform(ctx, s, call, policy.GetKey, q, func(s *Service, ctx context.Context, t *trace, q VersionRef) (KeyVersion, error) {
		k, err := s.admit(ctx, t, policy.GetKey, q.Namespace, q.Key, nil)
		if err != nil {
			return KeyVersion{}, err
		}
		if q.Version == 0 {
			q.Version = k.PrimaryVersion
		}
		t.entry.Version = q.Version
		v, err := s.readVersion(ctx, k, q.Version)
		if err != nil {
			return KeyVersion{}, err
		}
		lastUsed, err := s.lastUsed(ctx, k, q.Version)
		described := describeVersion(k.keyRecord, v.value, lastUsed)
		described.ErasedTime = s.erasedTime(k.ns.Name, v.value.DestroyedUnder, k.Protection)
		if err == nil {
			described.Token, err = s.describeObject(ctx, k, v.value)
		}
		return described, err
	})
}

// ListVersions pages through a key's versions, oldest first.
func (s *Service) ListVersions(ctx context.Context, call Call, q ListVersionsRequest) ([]KeyVersion, string, error) {
	return performList(ctx, s, call, policy.GetKey, q, func(s *Service, ctx context.Context, t *trace, q ListVersionsRequest) (listing[KeyVersion], error) {
		k, err := s.admit(ctx, t, policy.GetKey, q.Namespace, q.Key, nil)
		if err != nil {
			return listing[KeyVersion]{}, err
		}
		d, err := s.domainOf(ctx, k.ns)
		if err != nil {
			return listing[KeyVersion]{}, err
		}
		return list(ctx, s, d, prefixVersions(k.ns.ID, k.ID), q.PageSize, q.PageToken, func(r stored[versionRecord]) (KeyVersion, bool, error) {
			lastUsed, err := s.lastUsed(ctx, k, r.value.Version)
			described := describeVersion(k.keyRecord, r.value, lastUsed)
			described.ErasedTime = s.erasedTime(k.ns.Name, r.value.DestroyedUnder, k.Protection)
			return described, true, err
		})
	})
}

// lastUsed returns the hour of a version's last use, from memory or the store.
func (s *Service) lastUsed(ctx context.Context, k *key, number uint32) (int64, error) {
	var hour int64
	if v, ok := s.cache.versions.Load(versionID{k.ID, number}); ok {
		hour = v.usage.lastUsed.Load()
	}
	d, err := s.domainOf(ctx, k.ns)
	if err != nil {
		return hour, err
	}
	path := pathUsage(k.ns.ID, k.ID, number)
	record, err := read[usageRecord](ctx, s, d, path)
	if errors.Is(err, store.ErrNotFound) {
		err = dataLoss(path, err)
	}
	return max(hour, record.value.LastUsed), err
}
