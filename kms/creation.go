package kms

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
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
		return s.putOwned(t, tx, d, ns, k, a, number)
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
