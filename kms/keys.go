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

// CreateKey makes a key with a first, primary version.
func (s *Service) CreateKey(ctx context.Context, call Call, q CreateKeyRequest) (Key, error) {
	algorithm, check := s.checkCreate(q)
	id := newID()
	c := change{action: policy.CreateKey, namespace: q.Namespace, key: q.Key, idempotency: q.Idempotency, check: check,
		request: q.request(),
		lock:    func() *sync.Mutex { return s.creationLock(q.Namespace, id) }}
	c.resource = func(ctx context.Context) (*policy.Resource, error) {
		_, err := s.findNamespace(ctx, q.Namespace)
		if err == nil {
			err = s.usable(q.Namespace)
		}
		return &policy.Resource{Namespace: q.Namespace, Key: q.Key, Labels: q.Labels,
			Purpose: string(algorithm.Purpose()), Algorithm: algorithm.Name(), Protection: string(q.protection()), Exportable: q.Exportable}, err
	}
	if q.protection() == HSMLevel {
		c.prepare = func(ctx context.Context, t *trace) (func(), error) { return s.prepareKey(ctx, t, id, algorithm, q) }
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		ns, err := s.findNamespace(ctx, q.Namespace)
		if err != nil {
			return Key{}, err
		}
		if err := s.refusal(ns); err != nil {
			return Key{}, err
		}
		return s.planKey(ctx, t, tx, ns, id, algorithm, q)
	})
}

// request leaves out what is of one framing only for the other.
func (q CreateKeyRequest) request() any {
	return struct {
		N, K, P, A, L, O, R, E any
		T                      *TransitOptions `json:",omitempty"`
	}{q.Namespace, q.Key, q.Purpose, q.Algorithm, q.Protection, q.Labels, q.Rotation, q.Exportable, q.Transit}
}

func (q CreateKeyRequest) protection() Protection {
	if q.Protection == "" {
		return Software
	}
	return q.Protection
}

// prepareKey makes the first version's key on the token, unless it is clear already
// that the key cannot be created.
func (s *Service) prepareKey(ctx context.Context, t *trace, id ID, a *keyring.Algorithm, q CreateKeyRequest) (done func(), err error) {
	ns, err := s.findNamespace(ctx, q.Namespace)
	if err == nil {
		err = s.refusal(ns)
	}
	if err == nil {
		err = s.checkPlace(ctx, ns, &transaction{}, q)
	}
	if err != nil {
		return func() {}, err
	}
	return s.makeObject(ctx, t, ns, objectRecord{Key: id, Version: 1, Algorithm: a.Name()})
}

// checkPlace refuses a key that its namespace has no place for.
func (s *Service) checkPlace(ctx context.Context, ns *namespace, tx *transaction, q CreateKeyRequest) error {
	if q.Transit != nil {
		if err := checkPlaintext(ns, q.Exportable, q.Transit.PlaintextBackup); err != nil {
			return err
		}
	}
	if err := s.checkFree(ctx, ns, q.Key); err != nil {
		return err
	}
	return s.checkKeyQuota(ctx, ns, tx)
}

func (s *Service) checkCreate(q CreateKeyRequest) (*keyring.Algorithm, error) {
	if q.Transit != nil {
		return s.checkCreateTransit(q)
	}
	algorithm, err := s.resolveFor(q.Namespace, q.Protection, q.Purpose, q.Algorithm)
	if err != nil {
		return nil, errors.Join(checkNamespaceName(q.Namespace), checkName("key", q.Key), err)
	}
	return algorithm, errors.Join(checkNamespaceName(q.Namespace), checkName("key", q.Key), checkLabels(q.Labels),
		checkProtection(q.Protection), checkExportable(q.Protection, q.Exportable), s.checkRotation(algorithm, q.Rotation))
}

func checkProtection(p Protection) error {
	switch p {
	case "", Software, HSMLevel:
		return nil
	}
	return invalid("protection_level", "%q is unknown; use SOFTWARE or HSM", p)
}

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

func (s *Service) planKey(ctx context.Context, t *trace, tx *transaction, ns *namespace, id ID, a *keyring.Algorithm, q CreateKeyRequest) (Key, error) {
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return Key{}, err
	}
	if err := s.checkPlace(ctx, ns, tx, q); err != nil {
		return Key{}, err
	}
	now := s.now().UTC()
	record := keyRecord{Framing: FramingNative, PrimaryCreated: now, Key: Key{Namespace: ns.Name, Name: q.Key, ID: id,
		Purpose: a.Purpose(), Algorithm: a.Name(), Protection: q.protection(), PrimaryVersion: 1, LatestVersion: 1,
		Labels: q.Labels, Rotation: q.Rotation, Exportable: q.Exportable, Imported: t.importedTime(), Created: now, Updated: now, State: KeyActive}}
	if q.Transit != nil {
		record.Framing, record.Transit = FramingVault, q.Transit.key(t.imported)
		tx.detail("framing", string(FramingVault))
		tx.detail("type", record.Transit.Type)
	}
	if err := checkRotatable(record.Key); err != nil && q.Rotation != (Rotation{}) {
		return Key{}, err
	}
	s.scheduleRotation(tx, &record)
	if err := s.putVersion(t, tx, d, ns.ID, record.Key, a, 1); err != nil {
		return Key{}, err
	}
	tx.put(s.system, pathKeyID(id), 0, keyIndex{Namespace: ns.ID, NamespaceName: ns.Name})
	tx.put(d, pathKeyName(ns.ID, q.Key), 0, keyNameRecord{ID: id})
	tx.put(d, pathKey(ns.ID, id), 0, record)
	tx.detail("key_id", id.String())
	tx.detail("algorithm", a.Name())
	return record.Key, nil
}

func (s *Service) checkFree(ctx context.Context, ns *namespace, name string) error {
	switch _, err := s.idOf(ctx, ns, name); {
	case err == nil:
		return &Error{Code: AlreadyExists, Reason: "KEY_EXISTS", Field: "key", Message: fmt.Sprintf("key %s/%s already exists; choose another name, or rotate it", ns.Name, name)}
	case CodeOf(err) == NotFound:
		return nil
	default:
		return err
	}
}

// putVersion writes a new version: with fresh or imported material, sealed under the
// namespace's domain, or with the key that was made for it on the token.
func (s *Service) putVersion(t *trace, tx *transaction, d *domain.Domain, ns ID, k Key, a *keyring.Algorithm, number uint32) error {
	if k.Protection == HSMLevel {
		return s.putOwned(t, tx, d, ns, k.ID, a, number)
	}
	return s.putMaterial(t, tx, d, ns, k, a, number)
}

func (s *Service) putMaterial(t *trace, tx *transaction, d *domain.Domain, ns ID, k Key, a *keyring.Algorithm, number uint32) error {
	material, err := s.newMaterial(t, k, a)
	if errors.Is(err, keyring.ErrNotFIPS) {
		return invalid("algorithm", "%s is not allowed while FIPS 140-3 mode is enforced; ListAlgorithms says which are", a.Name())
	}
	if err != nil {
		return err
	}
	defer material.Wipe()
	sealed, err := d.Seal(materialPlace(ns, k.ID, number, a.Name()), material.Bytes())
	if err != nil {
		return sealError(err)
	}
	tx.put(d, pathVersion(ns, k.ID, number), 0, versionRecord{Version: number, State: Enabled, Created: s.now().UTC(), Imported: t.importedTime(), Material: sealed})
	tx.put(d, pathUsage(ns, k.ID, number), 0, usageRecord{})
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
