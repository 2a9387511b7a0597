package kms

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// ImportKeyRequest makes a key from material that was wrapped to the public key of
// an import job, whose algorithm and protection level it gets.
type ImportKeyRequest struct {
	Namespace, Key string
	Job            string
	Wrapped        []byte // at most keywrap.MaxWrapped bytes
	Labels         map[string]string
	Rotation       Rotation
	Exportable     bool // Software only
	Idempotency    string
}

// ImportVersionRequest makes a version of a key from wrapped material, which
// becomes the primary one only with MakePrimary.
type ImportVersionRequest struct {
	Namespace, Key string
	Job            string
	Wrapped        []byte
	MakePrimary    bool
	Idempotency    string
}

// importing is an import under way.
type importing struct {
	namespace, key, job string
	wrapped             []byte
	algorithm           *keyring.Algorithm
}

// importedMaterial is what an import brought along, for the version that a change
// is about to write.
type importedMaterial struct {
	material keyring.Material // of protection level SOFTWARE
	time     time.Time
	// allowRotation lets a key of VAULT framing be rotated that is made of the material.
	allowRotation bool
}

// importedTime is when the version that a change writes was imported; zero if it is not.
func (t *trace) importedTime() time.Time {
	if t.imported == nil {
		return time.Time{}
	}
	return t.imported.time
}

// newMaterial is what the version that a change writes is made of: what was
// imported, or else fresh.
func (s *Service) newMaterial(t *trace, k Key, a *keyring.Algorithm) (keyring.Material, error) {
	if t.imported != nil {
		return keyring.NewMaterial(append([]byte(nil), t.imported.material.Bytes()...)), nil
	}
	if k.Transit != nil {
		return k.Transit.generate(&s.random)
	}
	return a.Generate(&s.random)
}

func checkWrapped(b []byte) error {
	switch {
	case len(b) == 0:
		return invalid("wrapped_key", "is missing; wrap the key to the public key of the import parameters")
	case len(b) > keywrap.MaxWrapped:
		return invalid("wrapped_key", "has %d bytes, the limit is %d; it is no wrapped key", len(b), keywrap.MaxWrapped)
	}
	return nil
}

// ImportKey makes a key whose first, primary version has imported material.
func (s *Service) ImportKey(ctx context.Context, call Call, q ImportKeyRequest) (Key, error) {
	id := newID()
	i := &importing{namespace: q.Namespace, key: q.Key, job: q.Job, wrapped: q.Wrapped}
	create := CreateKeyRequest{Namespace: q.Namespace, Key: q.Key, Labels: q.Labels, Rotation: q.Rotation, Exportable: q.Exportable}
	c := change{action: policy.ImportKey, namespace: q.Namespace, key: q.Key, idempotency: q.Idempotency,
		check:    errors.Join(checkNamespaceName(q.Namespace), checkName("key", q.Key), checkLabels(q.Labels), checkWrapped(q.Wrapped)),
		request:  struct{ P, N, K, J, W, L, R, E any }{"key", q.Namespace, q.Key, q.Job, sha256.Sum256(q.Wrapped), q.Labels, q.Rotation, q.Exportable},
		lock:     func() *sync.Mutex { return s.creationLock(q.Namespace, id) },
		resource: func(ctx context.Context) (*policy.Resource, error) { return s.importResource(ctx, q) },
		prepare:  func(ctx context.Context, t *trace) (func(), error) { return s.prepareImport(ctx, t, id, i, &create) }}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		ns, err := s.usableNamespace(ctx, q.Namespace)
		if err != nil {
			return Key{}, err
		}
		k, err := s.planKey(ctx, t, tx, ns, id, i.algorithm, create)
		if err != nil {
			return Key{}, err
		}
		return k, s.consumeImport(ctx, tx, ns, i)
	})
}

func (s *Service) usableNamespace(ctx context.Context, name string) (*namespace, error) {
	ns, err := s.findNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	return ns, s.refusal(ns)
}

// importResource is the key that is to be, as far as the import job says what it
// will be. What is wrong with the job is said later, to who may import.
func (s *Service) importResource(ctx context.Context, q ImportKeyRequest) (*policy.Resource, error) {
	resource := &policy.Resource{Namespace: q.Namespace, Key: q.Key, Labels: q.Labels, Exportable: q.Exportable}
	ns, err := s.findNamespace(ctx, q.Namespace)
	if err == nil {
		err = s.usable(q.Namespace)
	}
	if err != nil {
		return resource, err
	}
	if job, err := s.liveImport(ctx, ns, q.Job, q.Key); err == nil {
		a, _ := keyring.Lookup(job.value.Algorithm)
		resource.Purpose, resource.Algorithm, resource.Protection = string(a.Purpose()), a.Name(), string(job.value.Protection)
	}
	return resource, nil
}

// prepareImport unwraps the key and, where that is what it is for, puts it into
// the token, unless it is clear already that it cannot be created.
func (s *Service) prepareImport(ctx context.Context, t *trace, id ID, i *importing, create *CreateKeyRequest) (done func(), err error) {
	ns, job, err := s.importJob(ctx, i)
	if err != nil {
		return func() {}, err
	}
	create.Protection = job.value.Protection
	for _, check := range []func() error{
		func() error { return checkExportable(create.Protection, create.Exportable) },
		func() error { return s.checkRotation(i.algorithm, create.Rotation) },
		func() error { return s.checkFree(ctx, ns, create.Key) },
		func() error { return s.checkKeyQuota(ctx, ns, &transaction{}) },
	} {
		if err := check(); err != nil {
			return func() {}, err
		}
	}
	return s.takeIn(ctx, t, ns, job.value, i, objectRecord{Key: id, Version: 1, Algorithm: i.algorithm.Name()})
}

func (s *Service) importJob(ctx context.Context, i *importing) (*namespace, stored[importRecord], error) {
	ns, err := s.usableNamespace(ctx, i.namespace)
	if err != nil {
		return nil, stored[importRecord]{}, err
	}
	job, err := s.liveImport(ctx, ns, i.job, i.key)
	if err != nil {
		return nil, job, err
	}
	var ok bool
	if i.algorithm, ok = keyring.Lookup(job.value.Algorithm); !ok {
		return nil, job, precondition("UNKNOWN_KEY_KIND", "the import job was made by a newer release; use that release")
	}
	return ns, job, nil
}

// takeIn unwraps and validates the material, and keeps it for the plan, or puts it
// into the token. done must be called when the change is over; it is never nil.
func (s *Service) takeIn(ctx context.Context, t *trace, ns *namespace, job importRecord, i *importing, o objectRecord) (done func(), err error) {
	done = func() {}
	material, err := s.unwrapImport(ctx, job, i)
	if err != nil {
		return done, err
	}
	t.imported = &importedMaterial{material: material, time: s.now().UTC()}
	if job.Protection == Software {
		return material.Wipe, nil
	}
	defer material.Wipe()
	portable, err := i.algorithm.EncodePortable(material)
	if err != nil {
		return done, keyringError(err)
	}
	defer clear(portable)
	return s.makeObjectBy(ctx, t, ns, o, func(ctx context.Context, hsm HSM, id ObjectID) (HSMKey, error) {
		return hsm.ImportKey(ctx, id, o.Algorithm, portable)
	})
}

// unwrapImport has the token decrypt the ephemeral key, opens what is wrapped under
// it, and makes sure that it is a key of the algorithm.
func (s *Service) unwrapImport(ctx context.Context, job importRecord, i *importing) (keyring.Material, error) {
	portable, err := s.unwrap(ctx, job, i.wrapped)
	if err != nil {
		return keyring.Material{}, err
	}
	defer clear(portable)
	material, err := i.algorithm.DecodePortable(portable)
	if errors.Is(err, keyring.ErrInvalidMaterial) {
		return material, &Error{Code: InvalidArgument, Reason: "WRONG_KEY", Field: "wrapped_key",
			Message: fmt.Sprintf("wrapped_key holds no key that fits: %s; wrap a key of the import job's algorithm", err)}
	}
	return material, keyringError(err)
}

func (s *Service) unwrap(ctx context.Context, job importRecord, wrapped []byte) ([]byte, error) {
	encrypted, rest, err := keywrap.Split(wrapped, wrappingBits)
	if err != nil {
		return nil, errUnwrapImport()
	}
	hsm, err := s.tokenHSM(job.Token)
	if err != nil {
		return nil, err
	}
	held := &tokenKey{hsm: hsm, id: job.Job, algorithm: job.Wrapping, public: job.PublicKey, version: "import job " + job.Job.String()}
	ephemeral, err := held.Use(ctx, keyring.UseDecryptAsymmetric, encrypted, nil)
	defer clear(ephemeral)
	switch {
	case errors.Is(err, keyring.ErrDecrypt):
		return nil, errUnwrapImport()
	case err != nil:
		return nil, keyError(job.Wrapping, err)
	}
	portable, err := keywrap.Unwrap(ephemeral, rest)
	if err != nil {
		return nil, errUnwrapImport()
	}
	return portable, nil
}

// errUnwrapImport is all that is ever said of a wrapped key that does not open.
func errUnwrapImport() *Error {
	return &Error{Code: InvalidArgument, Reason: "UNWRAP_FAILED", Field: "wrapped_key",
		Message: "wrapped_key cannot be unwrapped; wrap the key to the public key of this import job, by the method that its parameters name"}
}

// consumeImport has the change depend on its job, which it ends if it is for a
// single use.
func (s *Service) consumeImport(ctx context.Context, tx *transaction, ns *namespace, i *importing) error {
	job, err := s.liveImport(ctx, ns, i.job, i.key)
	if err != nil {
		return err
	}
	tx.detail("import_job", job.value.Job.String())
	tx.detail("origin", "IMPORTED")
	if job.value.SingleUse {
		job.value.Used = true
		s.putImportEnd(tx, job)
		return nil
	}
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: pathImport(ns.ID, job.value.Job), Revision: job.revision})
	return nil
}

// ImportVersion makes a new ENABLED version of a key from imported material.
func (s *Service) ImportVersion(ctx context.Context, call Call, q ImportVersionRequest) (KeyVersion, error) {
	i := &importing{namespace: q.Namespace, key: q.Key, job: q.Job, wrapped: q.Wrapped}
	c, at := s.keyChange(policy.ImportKey, q.Namespace, q.Key, q.Idempotency,
		struct{ P, N, K, J, W, M any }{"version", q.Namespace, q.Key, q.Job, sha256.Sum256(q.Wrapped), q.MakePrimary})
	c.check = checkWrapped(q.Wrapped)
	c.prepare = func(ctx context.Context, t *trace) (func(), error) { return s.prepareImportVersion(ctx, t, at, i) }
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (KeyVersion, error) {
		t.about(at.key)
		k, d, err := s.currentActive(ctx, at)
		if err != nil {
			return KeyVersion{}, err
		}
		made, err := s.planImportedVersion(t, tx, d, at, k, q.MakePrimary)
		if err != nil {
			return KeyVersion{}, err
		}
		return made, s.consumeImport(ctx, tx, at.key.ns, i)
	})
}

func (s *Service) prepareImportVersion(ctx context.Context, t *trace, at *target, i *importing) (done func(), err error) {
	endTurn := func() {}
	k, _, err := s.currentActive(ctx, at)
	if err != nil {
		return endTurn, err
	}
	if err := at.key.framed(FramingNative); err != nil {
		return endTurn, err
	}
	i.key = k.value.Name // the caller may have given its id
	ns, job, err := s.importJob(ctx, i)
	switch {
	case err != nil:
		return endTurn, err
	case job.value.Algorithm != k.value.Algorithm:
		return endTurn, errImportMismatch("algorithm", k.value.Name, k.value.Algorithm, job.value.Algorithm)
	case job.value.Protection != k.value.Protection:
		return endTurn, errImportMismatch("protection_level", k.value.Name, string(k.value.Protection), string(job.value.Protection))
	}
	if k.value.Protection == HSMLevel {
		if endTurn, err = s.objects.turn(ctx, at.key.ID); err != nil {
			return endTurn, err
		}
		if k, _, err = s.currentActive(ctx, at); err != nil {
			return endTurn, err
		}
	}
	t.about(at.key)
	taken, err := s.takeIn(ctx, t, ns, job.value, i, objectRecord{Key: at.key.ID, Version: k.value.LatestVersion + 1, Algorithm: at.key.Algorithm})
	return func() { taken(); endTurn() }, err
}

func (s *Service) planImportedVersion(t *trace, tx *transaction, d *domain.Domain, at *target, k stored[keyRecord], makePrimary bool) (KeyVersion, error) {
	number := k.value.LatestVersion + 1
	if number == 0 {
		return KeyVersion{}, errTooManyVersions()
	}
	if err := s.putVersion(t, tx, d, at.key.ns.ID, k.value.Key, at.key.algorithm, number); err != nil {
		return KeyVersion{}, err
	}
	now := s.now().UTC()
	k.value.LatestVersion = number
	if makePrimary {
		k.value.PrimaryVersion, k.value.PrimaryCreated = number, now
		s.scheduleRotation(tx, &k.value)
		tx.detail("primary", fmt.Sprint(number))
	}
	s.putKey(tx, d, at, k)
	t.entry.Version = number
	return describeVersion(k.value, versionRecord{Version: number, State: Enabled, Created: now, Imported: t.importedTime()}, 0), nil
}
