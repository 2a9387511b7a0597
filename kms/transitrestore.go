package kms

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// restoring is a restore under way.
type restoring struct {
	outline *transit.Outline // nil if there is no backup to read
	backup  *transit.Backup  // nil until the caller is known to be permitted
	create  CreateKeyRequest
	id      ID
	time    time.Time
}

// read reads the keys, which takes time.
func (r *restoring) read() (err error) {
	if r.backup == nil {
		r.backup, err = r.outline.Backup()
	}
	return keyringError(err)
}

func (r *restoring) wipe() {
	if r.outline != nil {
		r.outline.Wipe()
	}
	if r.backup != nil {
		r.backup.Wipe()
	}
}

// MaxRestoredVersions is how many versions a backup may have that is restored.
const MaxRestoredVersions = 1000

// restorePage is how many versions one transaction restores: two records of each, beside
// those of the key and of the change.
const restorePage = (store.MaxTxnChanges - 8) / 2

// RestoreTransitKey makes a key of a backup that Vault, OpenBao or BackupTransitKey made
// (needs the right to ImportKey). Names, versions, their times and settings are kept;
// exportable and allow_plaintext_backup only in a namespace with plaintext export.
//
// A key with more versions than a transaction takes becomes visible with its newest ones;
// the older ones follow, and can be used as soon as they are here. Where that ended early,
// the same backup restored again goes on with it.
func (s *Service) RestoreTransitKey(ctx context.Context, call Call, q RestoreTransitRequest) (Key, error) {
	r, err := s.readBackup(q)
	defer r.wipe()
	k, err := s.restoreNewest(ctx, call, q, r, err)
	if q.ValidateOnly || err != nil && reasonOf(err) != "KEY_EXISTS" {
		return k, err
	}
	for taken := err; taken != nil || k.Transit.Restoring != 0; taken = nil {
		if k, err = s.restoreMore(ctx, call, r, taken); err != nil {
			return Key{}, err
		}
	}
	return k, nil
}

// restoreNewest makes the key, with all its versions if they fit into a transaction.
func (s *Service) restoreNewest(ctx context.Context, call Call, q RestoreTransitRequest, r *restoring, check error) (Key, error) {
	c := change{action: policy.ImportKey, namespace: q.Namespace, key: r.create.Key, idempotency: q.Idempotency, check: check,
		request:  struct{ P, N, K, B, V any }{"transit backup", q.Namespace, q.Key, sha256.Sum256([]byte(q.Backup)), q.ValidateOnly},
		lock:     func() *sync.Mutex { return s.creationLock(q.Namespace, r.id) },
		resource: func(ctx context.Context) (*policy.Resource, error) { return s.restoreResource(ctx, r) },
		prepare:  func(context.Context, *trace) (func(), error) { return func() {}, r.read() }}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		k, err := s.planTransitRestore(ctx, tx, r)
		if err == nil && q.ValidateOnly {
			*tx = transaction{details: tx.details}
			tx.detail("validate_only", "true")
			k.Transit.Restoring = 0
		}
		return k, err
	})
}

// restoreMore restores a page of older versions of a key that is being restored from this
// very backup. Of any other it returns taken, or why it cannot go on.
func (s *Service) restoreMore(ctx context.Context, call Call, r *restoring, taken error) (Key, error) {
	c, at := s.keyChange(policy.ImportKey, r.create.Namespace, r.create.Key, "", nil)
	c.prepare = func(context.Context, *trace) (func(), error) { return func() {}, r.read() }
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		k, d, err := s.currentActive(ctx, at)
		if err != nil {
			return Key{}, err
		}
		same, err := s.restoredFrom(ctx, at.key, k.value, r.backup)
		switch {
		case err != nil:
			return Key{}, err
		case !same && taken != nil:
			return Key{}, taken
		case !same && k.value.Transit != nil && k.value.Transit.Restoring == 0:
			return k.value.Key, nil // all of it is here
		case !same:
			return Key{}, storeError(store.ErrConflict) // it has been replaced meanwhile
		}
		oldest := max(r.backup.MinAvailableVersion, k.value.Transit.MinAvailableVersion, 1)
		from := r.page(k.value.Transit.Restoring, oldest)
		if err := s.putRestored(tx, d, r, k.value.Key, from, k.value.Transit.Restoring); err != nil {
			return Key{}, err
		}
		k.value.Transit.Restoring = from
		if from <= oldest {
			k.value.Transit.Restoring = 0
		}
		tx.detail("origin", "BACKUP")
		s.putKey(tx, d, at, k)
		return k.value.Key, nil
	})
}

// restoredFrom tells whether versions of a key are still to be restored, and this is the
// backup that they are in.
func (s *Service) restoredFrom(ctx context.Context, k *key, now keyRecord, b *transit.Backup) (bool, error) {
	if now.Transit == nil || now.Transit.Restoring == 0 {
		return false, nil
	}
	material, _, err := s.transitMaterial(ctx, k, b.LatestVersion, false)
	if CodeOf(err) == NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer material.Wipe()
	return subtle.ConstantTimeCompare(material.Bytes(), b.Versions[b.LatestVersion].Material.Bytes()) == 1, nil
}

// page is the oldest version of the page below a version.
func (r *restoring) page(below, oldest uint32) uint32 {
	if below <= oldest+restorePage {
		return oldest
	}
	return below - restorePage
}

// readBackup reads what is to be restored, but for its keys.
func (s *Service) readBackup(q RestoreTransitRequest) (*restoring, error) {
	r := &restoring{create: CreateKeyRequest{Namespace: q.Namespace, Key: q.Key, Protection: Software}, id: newID(), time: s.now().UTC()}
	o, err := transit.ReadOutline(q.Backup)
	if err != nil {
		return r, keyringError(err)
	}
	r.outline = o
	if q.Key == "" {
		r.create.Key = o.Name
	}
	r.create.Exportable, r.create.Rotation = o.Exportable, Rotation{Period: o.AutoRotatePeriod}
	r.create.Transit = &TransitOptions{Type: o.Settings.Type.Name(), Derived: o.Settings.Derived, Convergent: o.Settings.Convergent,
		KeySize: o.Settings.KeySize, PlaintextBackup: o.PlaintextBackup}
	switch {
	case o.Versions > MaxRestoredVersions:
		return r, invalid("backup", "has %d versions, the limit is %d; where it comes from, rewrap what the oldest %d encrypted, trim them (min_available_version), and back it up again",
			o.Versions, MaxRestoredVersions, o.Versions-MaxRestoredVersions)
	case q.Key == "" && checkName("key", o.Name) != nil:
		return r, invalid("key", "is needed: the backup's own name, %q, is none that a key can have here; use letters, digits, '.', '_' and '-'", clip(o.Name))
	case o.Imported && !o.AllowRotation && o.AutoRotatePeriod != 0:
		return r, invalid("backup", "has an auto_rotate_period, and is of an imported key that may not be rotated; set that to 0 where it comes from, and back it up again")
	}
	if _, err := s.checkCreate(r.create); err != nil {
		return r, firstError(err)
	}
	return r, nil
}

func (s *Service) restoreResource(ctx context.Context, r *restoring) (*policy.Resource, error) {
	a := r.outline.Settings.Type.Algorithm()
	_, err := s.findNamespace(ctx, r.create.Namespace)
	if err == nil {
		err = s.usable(r.create.Namespace)
	}
	return &policy.Resource{Namespace: r.create.Namespace, Key: r.create.Key, Purpose: string(a.Purpose()), Algorithm: a.Name(),
		Protection: string(Software), Exportable: r.create.Exportable}, err
}

func (s *Service) planTransitRestore(ctx context.Context, tx *transaction, r *restoring) (Key, error) {
	ns, err := s.usableNamespace(ctx, r.create.Namespace)
	if err != nil {
		return Key{}, err
	}
	create, options := r.create, *r.create.Transit
	if !ns.PlaintextExport { // it stays here, then
		create.Exportable, options.PlaintextBackup = false, false
	}
	create.Transit = &options
	if err := s.checkPlace(ctx, ns, tx, create); err != nil {
		return Key{}, err
	}
	record := r.record(ns, create)
	oldest := max(r.backup.MinAvailableVersion, 1)
	from := r.page(record.LatestVersion+1, oldest)
	if from > oldest {
		record.Transit.Restoring = from
	}
	s.scheduleRotation(tx, &record)
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return Key{}, err
	}
	if err := s.putRestored(tx, d, r, record.Key, from, record.LatestVersion+1); err != nil {
		return Key{}, err
	}
	tx.put(s.system, pathKeyID(r.id), 0, keyIndex{Namespace: ns.ID, NamespaceName: ns.Name})
	tx.put(d, pathKeyName(ns.ID, create.Key), 0, keyNameRecord{ID: r.id})
	tx.put(d, pathKey(ns.ID, r.id), 0, record)
	tx.detail("key_id", r.id.String())
	tx.detail("algorithm", record.Algorithm)
	tx.detail("framing", string(FramingVault))
	tx.detail("type", options.Type)
	tx.detail("origin", "BACKUP")
	return record.Key, nil
}

// record is the key as it will be stored.
func (r *restoring) record(ns *namespace, create CreateKeyRequest) keyRecord {
	b, a := r.backup, r.backup.Settings.Type.Algorithm()
	t := create.Transit.key(nil)
	t.MinDecryptionVersion, t.MinEncryptionVersion, t.MinAvailableVersion = max(b.MinDecryptionVersion, 1), b.MinEncryptionVersion, b.MinAvailableVersion
	t.DeletionAllowed, t.Imported, t.AllowRotation = b.DeletionAllowed, b.Imported, b.AllowRotation
	latest := b.Versions[b.LatestVersion]
	return keyRecord{Framing: FramingVault, PrimaryCreated: latest.Created.UTC(), Key: Key{Namespace: ns.Name, Name: create.Key, ID: r.id,
		Purpose: a.Purpose(), Algorithm: a.Name(), Protection: Software, PrimaryVersion: b.LatestVersion, LatestVersion: b.LatestVersion,
		Rotation: create.Rotation, Exportable: create.Exportable, Imported: r.time, Created: r.time, Updated: r.time, State: KeyActive, Transit: t}}
}

// putRestored writes the versions from one up to, and without, another, sealed under the
// namespace's domain.
func (s *Service) putRestored(tx *transaction, d *domain.Domain, r *restoring, k Key, from, end uint32) error {
	ns := ID(d.Namespace())
	for number := from; number < end; number++ {
		v := r.backup.Versions[number]
		sealed, err := d.Seal(materialPlace(ns, k.ID, number, k.Algorithm), v.Material.Bytes())
		if err != nil {
			return sealError(err)
		}
		tx.put(d, pathVersion(ns, k.ID, number), 0,
			versionRecord{Version: number, State: Enabled, Created: v.Created.UTC(), Imported: r.time, Material: sealed})
		tx.put(d, pathUsage(ns, k.ID, number), 0, usageRecord{})
	}
	tx.detail("versions", fmt.Sprintf("%d-%d", from, end-1))
	return nil
}
