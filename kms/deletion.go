package kms

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
)

// DeleteKey frees a key's name at once and schedules the removal of all its
// material. Until then RestoreKey takes it back.
func (s *Service) DeleteKey(ctx context.Context, call Call, q DestroyRequest) (Key, error) {
	c, at := s.keyChange(policy.DeleteKey, q.Namespace, q.Key, q.Idempotency, q.request())
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		k, d, err := s.currentActive(ctx, at)
		if err != nil {
			return Key{}, err
		}
		if err := checkDeletable(k.value.Key); err != nil {
			return Key{}, err
		}
		when, err := s.destroyTime(q.Delay)
		if err != nil {
			return Key{}, err
		}
		k.value.State, k.value.DestroyTime = KeyDeleteScheduled, when
		s.scheduleRotation(tx, &k.value)
		s.putDue(tx, when, due{Kind: dueDeleteKey, Namespace: k.value.Namespace, Key: k.value.ID})
		tx.discard(pathKeyName(at.key.ns.ID, k.value.Name))
		s.keysChanged(tx, at.key.ns.ID)
		tx.detail("destroy_time", when.Format(time.RFC3339))
		s.putKey(tx, d, at, k)
		return k.value.Key, nil
	})
}

// RestoreKey takes a scheduled deletion back, under the key's old name.
func (s *Service) RestoreKey(ctx context.Context, call Call, q RestoreKeyRequest) (Key, error) {
	name := idPrefix + q.ID.String()
	c, at := s.keyChange(policy.RestoreKey, q.Namespace, name, q.Idempotency, struct{ N, I any }{q.Namespace, q.ID})
	c.lock = func() *sync.Mutex { return s.lock(q.ID) }
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		k, d, err := s.current(ctx, at)
		if err != nil {
			return Key{}, err
		}
		return s.planRestore(ctx, tx, d, at, k)
	})
}

func (s *Service) planRestore(ctx context.Context, tx *transaction, d *domain.Domain, at *target, k stored[keyRecord]) (Key, error) {
	switch k.value.State {
	case KeyActive:
		return Key{}, precondition("KEY_ACTIVE", "key %s is not deleted; nothing is to be restored", k.value.Name)
	case KeyDeleted:
		return Key{}, errKeyDeleted(k.value.Key)
	}
	if err := s.checkFree(ctx, at.key.ns, k.value.Name); err != nil {
		return Key{}, err
	}
	tx.discard(pathDue(k.value.DestroyTime, due{Kind: dueDeleteKey, Namespace: k.value.Namespace, Key: k.value.ID}))
	k.value.State, k.value.DestroyTime = KeyActive, time.Time{}
	s.scheduleRotation(tx, &k.value)
	tx.put(d, pathKeyName(at.key.ns.ID, k.value.Name), 0, keyNameRecord{ID: k.value.ID})
	s.keysChanged(tx, at.key.ns.ID)
	s.putKey(tx, d, at, k)
	return k.value.Key, nil
}

// destroyVersion removes a version's material once its time has come. What else
// is known of the version stays, so that its number and past uses can be shown.
func (s *Service) destroyVersion(ctx context.Context, at *target, job due, t *trace, tx *transaction) error {
	v, err := s.readVersion(ctx, at.key, job.Version)
	if err != nil {
		return err
	}
	if v.value.State != DestroyScheduled || v.value.DestroyTime.After(s.now()) {
		return nil // restored, or scheduled anew
	}
	t.entry.Version = job.Version
	d, err := s.domainOf(ctx, at.key.ns)
	if err != nil {
		return err
	}
	return s.putDestroyed(tx, d, at, v)
}

// putDestroyed removes a version's material. It may have been sealed under d's
// generation, never under a later one: none is begun while d is in force, and
// that it is the transaction makes sure of.
func (s *Service) putDestroyed(tx *transaction, d *domain.Domain, at *target, v stored[versionRecord]) error {
	v.value.State, v.value.Material, v.value.DestroyedUnder = Destroyed, nil, d.Generation()
	s.putOrphaned(tx, at, &v.value)
	if v.value.DestroyTime.IsZero() {
		v.value.DestroyTime = s.now().UTC()
	}
	return s.putChanged(tx, d, at, v)
}

// How many versions one transaction of a key's deletion removes. For each of those
// on the token it changes three records.
const (
	deletePage    = 50
	deleteOnToken = 30
)

// deleteKey removes the material of a deleted key's versions, a page at a time;
// the key is DELETED with the last. A crash between pages loses nothing: the job
// stays due until then.
func (s *Service) deleteKey(ctx context.Context, at *target, _ due, _ *trace, tx *transaction) error {
	k, d, err := s.current(ctx, at)
	if err != nil {
		return err
	}
	if k.value.State != KeyDeleteScheduled || k.value.DestroyTime.After(s.now()) {
		return nil
	}
	n, left, err := s.destroyPage(ctx, tx, d, at)
	if err != nil {
		return err
	}
	tx.detail("versions", fmt.Sprint(n))
	if tx.more = left; !left {
		k.value.State, k.value.DestroyedUnder = KeyDeleted, d.Generation()
		s.putKey(tx, d, at, k)
	}
	return nil
}

// destroyPage puts up to deletePage destroyed versions into tx and tells how many,
// and whether more are left.
func (s *Service) destroyPage(ctx context.Context, tx *transaction, d *domain.Domain, at *target) (n int, left bool, err error) {
	prefix, after := prefixVersions(at.key.ns.ID, at.key.ID), ""
	most := deletePage
	if at.key.Protection == HSMLevel {
		most = deleteOnToken
	}
	for {
		page, err := s.store.List(ctx, prefix, after, 0)
		if err != nil {
			return n, false, storeError(err)
		}
		for _, record := range page.Records {
			v, err := decodeNow[versionRecord](ctx, s, d, record)
			if err != nil {
				return n, false, err
			}
			if v.value.State == Destroyed {
				continue
			}
			if n == most {
				return n, true, nil
			}
			if err := s.putDestroyed(tx, d, at, v); err != nil {
				return n, false, err
			}
			n++
		}
		if after = page.Next; after == "" {
			return n, false, nil
		}
	}
}
