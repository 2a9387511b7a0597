package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

func (s *Service) shortestRotation() time.Duration {
	if s.installation.DevMode {
		return time.Second
	}
	return MinRotationPeriod
}

func (s *Service) checkRotation(a *keyring.Algorithm, r Rotation) error {
	shortest := s.shortestRotation()
	switch {
	case r == Rotation{}:
		return nil
	case a.Deterministic():
		return invalid("rotation", "is not possible with %s: what was encrypted before could no longer be found by its ciphertext; leave it out", a.Name())
	case r.Period != 0 && (r.Period < shortest || r.Period > MaxRotationPeriod):
		return invalid("rotation.period", "is %s; use %s to %s, or leave it out", r.Period, shortest, MaxRotationPeriod)
	case r.MaxUses != 0 && !counts(a):
		return invalid("rotation.max_uses", "counts uses that encrypt, sign or MAC; %s has none, use rotation.period", a.Name())
	case r.MaxUses != 0 && r.MaxUses < MinRotationUses:
		return invalid("rotation.max_uses", "is %d; use %d or more, or leave it out", r.MaxUses, MinRotationUses)
	}
	return nil
}

// scheduleRotation replaces the key's place in the queue of due rotations.
func (s *Service) scheduleRotation(tx *transaction, k *keyRecord) {
	job := due{Kind: dueRotate, Namespace: k.Namespace, Key: k.ID, OnToken: k.Protection == HSMLevel}
	if !k.NextRotation.IsZero() {
		tx.discard(pathDue(k.NextRotation, job))
	}
	k.NextRotation = time.Time{}
	if k.Rotation.Period > 0 && k.State == KeyActive {
		k.NextRotation = k.PrimaryCreated.Add(k.Rotation.Period).UTC()
		s.putDue(tx, k.NextRotation, job)
	}
}

// keyChange is the change of an existing key: its resource, lock and cleaning up.
func (s *Service) keyChange(action policy.Action, namespace, name, idempotency string, request any) (change, *target) {
	at := &target{}
	return change{action: action, namespace: namespace, key: name, idempotency: idempotency, request: request,
		resource: func(ctx context.Context) (resource *policy.Resource, err error) {
			if resource, at.key, err = s.keyResource(ctx, namespace, name); err == nil {
				err = s.usable(namespace)
			}
			return resource, err
		},
		lock:   func() *sync.Mutex { return s.lock(at.key.ID) },
		forget: func() { s.cache.dropKey(at.key) }}, at
}

// target is the key that a change is about, once it was found.
type target struct{ key *key }

// keyResource is what is known of a key for a decision: only the names given
// when it does not exist.
func (s *Service) keyResource(ctx context.Context, namespace, name string) (*policy.Resource, *key, error) {
	ns, err := s.findNamespace(ctx, namespace)
	if err != nil {
		return &policy.Resource{Namespace: namespace, Key: name}, nil, err
	}
	if ns.State == NamespaceDeleted {
		return &policy.Resource{Namespace: namespace, Key: name}, nil, s.refusal(ns)
	}
	k, err := s.findKey(ctx, ns, name)
	if err != nil {
		return &policy.Resource{Namespace: namespace, Key: name}, nil, err
	}
	return &k.resource, k, nil
}

// current reads a key's record as it is now, under the key's lock.
func (s *Service) current(ctx context.Context, at *target) (stored[keyRecord], *domain.Domain, error) {
	d, err := s.domainOf(ctx, at.key.ns)
	if err != nil {
		return stored[keyRecord]{}, nil, err
	}
	path := pathKey(at.key.ns.ID, at.key.ID)
	record, err := read[keyRecord](ctx, s, d, path)
	if errors.Is(err, store.ErrNotFound) {
		err = dataLoss(path, err)
	}
	return record, d, err
}

// currentActive is current for a key that is not deleted, by itself or with its
// namespace.
func (s *Service) currentActive(ctx context.Context, at *target) (stored[keyRecord], *domain.Domain, error) {
	if err := s.refusal(at.key.ns); err != nil {
		return stored[keyRecord]{}, nil, err
	}
	k, d, err := s.current(ctx, at)
	if err == nil && k.value.State != KeyActive {
		err = errKeyDeleted(k.value.Key)
	}
	return k, d, err
}

func errKeyDeleted(k Key) *Error {
	if k.State == KeyDeleted {
		return precondition("KEY_DELETED", "key %s (id %s) was deleted and its material removed", k.Name, k.ID)
	}
	return precondition(reasonKeyScheduled, "key %s (id %s) is deleted; it can be restored until %s", k.Name, k.ID, k.DestroyTime.Format(time.RFC3339))
}

// putKey writes a key's changed record and forgets the old snapshot.
func (s *Service) putKey(tx *transaction, d *domain.Domain, at *target, k stored[keyRecord]) {
	k.value.Updated = s.now().UTC()
	tx.put(d, pathKey(at.key.ns.ID, k.value.ID), k.revision, k.value)
	tx.then(func(store.Revision) { s.cache.dropKey(at.key) })
}

// UpdateKey replaces labels, rotation or both.
func (s *Service) UpdateKey(ctx context.Context, call Call, q UpdateKeyRequest) (Key, error) {
	c, at := s.keyChange(policy.UpdateKey, q.Namespace, q.Key, q.Idempotency, struct{ N, K, L, R any }{q.Namespace, q.Key, q.Labels, q.Rotation})
	if q.Labels != nil {
		c.check = checkLabels(*q.Labels)
	}
	c.forget = func() {
		s.cache.dropVersion(at.key.ID, at.key.PrimaryVersion) // with its block, as in planRotationPolicy
		s.cache.dropKey(at.key)
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (Key, error) {
		k, d, err := s.currentActive(ctx, at)
		if err != nil {
			return Key{}, err
		}
		if q.Labels != nil {
			k.value.Labels = *q.Labels
			tx.detail("labels", fmt.Sprint(len(*q.Labels)))
		}
		if q.Rotation != nil {
			if err := s.planRotationPolicy(tx, at, &k.value, *q.Rotation); err != nil {
				return Key{}, err
			}
		}
		if q.Labels != nil || q.Rotation != nil {
			s.putKey(tx, d, at, k)
		}
		return k.value.Key, nil
	})
}

func (s *Service) planRotationPolicy(tx *transaction, at *target, k *keyRecord, r Rotation) error {
	if err := s.checkRotation(at.key.algorithm, r); err != nil {
		return err
	}
	if err := checkRotatable(k.Key); err != nil && r != (Rotation{}) {
		return err
	}
	k.Rotation = r
	s.scheduleRotation(tx, k)
	tx.detail("rotation_period", r.Period.String())
	tx.detail("rotation_max_uses", fmt.Sprint(r.MaxUses))
	// What is left of a block reserved under the old bound is given up.
	tx.then(func(store.Revision) { s.cache.dropVersion(k.ID, k.PrimaryVersion) })
	return nil
}

// GetKey describes a key; "id:" and an id finds a deleted one too.
func (s *Service) GetKey(ctx context.Context, call Call, q KeyRef) (Key, error) {
	return perform(ctx, s, call, policy.GetKey, q, func(s *Service, ctx context.Context, t *trace, q KeyRef) (Key, error) {
		k, err := s.admit(ctx, t, policy.GetKey, q.Namespace, q.Key, nil)
		if err != nil {
			return Key{}, err
		}
		return s.describeKey(k.keyRecord), nil
	})
}

// describeKey adds since when a deleted key is erased.
func (s *Service) describeKey(k keyRecord) Key {
	k.ErasedTime = s.erasedTime(k.Namespace, k.DestroyedUnder, k.Protection)
	return k.Key
}

// admit finds a key and authorises an action on it. Who may not do it learns
// nothing about whether the key exists.
func (s *Service) admit(ctx context.Context, t *trace, action policy.Action, namespace, name string, encryptionContext map[string]string) (*key, error) {
	t.on(namespace, name)
	resource, k, missing := s.keyResource(ctx, namespace, name)
	if err := s.permit(t, action, resource, encryptionContext, missing); err != nil {
		return nil, err
	}
	t.about(k)
	return k, nil
}

// admitUse is admit for a use of a key, which a deleted key refuses, or one of a
// deleted namespace.
func (s *Service) admitUse(ctx context.Context, t *trace, action policy.Action, namespace, name string, encryptionContext map[string]string) (*key, error) {
	k, err := s.admit(ctx, t, action, namespace, name, encryptionContext)
	if err != nil {
		return nil, err
	}
	if err := s.usable(namespace); err != nil {
		return nil, s.alarm(t, err)
	}
	if k.State != KeyActive {
		return nil, s.alarm(t, errKeyDeleted(k.Key))
	}
	return k, nil
}

// about notes the key that was found.
func (t *trace) about(k *key) {
	t.entry.Key, t.entry.KeyID, t.algorithm = k.Name, uint64(k.ID), k.Algorithm
}

// ListKeys pages through a namespace's keys.
func (s *Service) ListKeys(ctx context.Context, call Call, q ListKeysRequest) ([]Key, string, error) {
	return performList(ctx, s, call, policy.ListKeys, q, (*Service).listKeys)
}

func (s *Service) listKeys(ctx context.Context, t *trace, q ListKeysRequest) (listing[Key], error) {
	t.on(q.Namespace, "")
	resource, ns, missing := s.namespaceResource(ctx, q.Namespace)
	if err := s.permit(t, policy.ListKeys, resource, nil, missing); err != nil {
		return listing[Key]{}, err
	}
	if ns.State == NamespaceDeleted {
		return listing[Key]{}, s.refusal(ns)
	}
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return listing[Key]{}, err
	}
	if q.ShowDeleted {
		return list(ctx, s, d, prefixKey+ns.ID.String()+"/", q.PageSize, q.PageToken, func(r stored[keyRecord]) (Key, bool, error) {
			return s.describeKey(r.value), hasLabels(r.value.Labels, q.Labels), nil
		})
	}
	return list(ctx, s, d, prefixKeyNames(ns.ID), q.PageSize, q.PageToken, func(r stored[keyNameRecord]) (Key, bool, error) {
		path := pathKey(ns.ID, r.value.ID)
		k, err := read[keyRecord](ctx, s, d, path)
		if errors.Is(err, store.ErrNotFound) {
			err = dataLoss(path, err)
		}
		return k.value.Key, k.value.State == KeyActive && hasLabels(k.value.Labels, q.Labels), err
	})
}

func hasLabels(labels, wanted map[string]string) bool {
	for name, value := range wanted {
		if have, ok := labels[name]; !ok || have != value {
			return false
		}
	}
	return true
}
