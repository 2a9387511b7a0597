package kms

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// restoring is a restore under way.
type restoring struct {
	backup *transit.Backup
	create CreateKeyRequest
	id     ID
	time   time.Time
}

// MaxRestoredVersions is how many versions a backup may have that is restored: a key
// becomes visible with all of them, in one transaction, which takes two records of each
// beside those of the key and of the change.
const MaxRestoredVersions = (store.MaxTxnChanges - restoreRecords) / 2

const restoreRecords = 8

// RestoreTransitKey makes a key of a backup that Vault, OpenBao or BackupTransitKey made
// (needs the right to ImportKey). Names, versions, their times and settings are kept;
// exportable and allow_plaintext_backup only in a namespace with plaintext export.
func (s *Service) RestoreTransitKey(ctx context.Context, call Call, q RestoreTransitRequest) (Key, error) {
	r, err := s.readBackup(q)
	defer r.backup.Wipe()
	name := r.create.Key
	c := change{action: policy.ImportKey, namespace: q.Namespace, key: name, idempotency: q.Idempotency, check: err,
		request:  struct{ P, N, K, B, V any }{"transit backup", q.Namespace, q.Key, sha256.Sum256([]byte(q.Backup)), q.ValidateOnly},
		lock:     func() *sync.Mutex { return s.creationLock(q.Namespace, r.id) },
		resource: func(ctx context.Context) (*policy.Resource, error) { return s.restoreResource(ctx, r) }}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		k, err := s.planTransitRestore(ctx, tx, r)
		if err == nil && q.ValidateOnly {
			*tx = transaction{details: tx.details}
			tx.detail("validate_only", "true")
		}
		return k, err
	})
}

// readBackup reads what is to be restored. The backup of the result is never nil.
func (s *Service) readBackup(q RestoreTransitRequest) (*restoring, error) {
	r := &restoring{backup: &transit.Backup{}, create: CreateKeyRequest{Namespace: q.Namespace, Key: q.Key, Protection: Software}, id: newID(), time: s.now().UTC()}
	// Before the caller is known to be permitted, so that policies see what the key is:
	// how much there is to read is bounded first.
	switch n, err := transit.CountBackup(q.Backup); {
	case err != nil:
		return r, keyringError(err)
	case n > MaxRestoredVersions:
		return r, invalid("backup", "has %d versions, the limit is %d; where it comes from, rewrap what the oldest %d encrypted, trim them (min_available_version), and back it up again", n, MaxRestoredVersions, n-MaxRestoredVersions)
	}
	backup, err := transit.ParseBackup(q.Backup)
	if err != nil {
		return r, keyringError(err)
	}
	r.backup = backup
	if q.Key == "" {
		r.create.Key = backup.Name
	}
	b := r.backup
	r.create.Exportable, r.create.Rotation = b.Exportable, Rotation{Period: b.AutoRotatePeriod}
	r.create.Transit = &TransitOptions{Type: b.Settings.Type.Name(), Derived: b.Settings.Derived, Convergent: b.Settings.Convergent,
		KeySize: b.Settings.KeySize, PlaintextBackup: b.PlaintextBackup}
	switch {
	case q.Key == "" && checkName("key", b.Name) != nil:
		return r, invalid("key", "is needed: the backup's own name, %q, is none that a key can have here; use letters, digits, '.', '_' and '-'", clip(b.Name))
	case b.Imported && !b.AllowRotation && b.AutoRotatePeriod != 0:
		return r, invalid("backup", "has an auto_rotate_period, and is of an imported key that may not be rotated; set that to 0 where it comes from, and back it up again")
	}
	if _, err := s.checkCreate(r.create); err != nil {
		return r, firstError(err)
	}
	return r, nil
}

func (s *Service) restoreResource(ctx context.Context, r *restoring) (*policy.Resource, error) {
	a := r.backup.Settings.Type.Algorithm()
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
	s.scheduleRotation(tx, &record)
	if err := s.putRestored(ctx, tx, ns, r, record.Key); err != nil {
		return Key{}, err
	}
	d, err := s.domainOf(ctx, ns)
	if err != nil {
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
	tx.detail("versions", fmt.Sprint(len(r.backup.Versions)))
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

// putRestored writes all versions, sealed under the namespace's domain.
func (s *Service) putRestored(ctx context.Context, tx *transaction, ns *namespace, r *restoring, k Key) error {
	d, err := s.domainOf(ctx, ns)
	if err != nil {
		return err
	}
	for number, v := range r.backup.Versions {
		sealed, err := d.Seal(materialPlace(ns.ID, k.ID, number, k.Algorithm), v.Material.Bytes())
		if err != nil {
			return sealError(err)
		}
		tx.put(d, pathVersion(ns.ID, k.ID, number), 0,
			versionRecord{Version: number, State: Enabled, Created: v.Created.UTC(), Imported: r.time, Material: sealed})
		tx.put(d, pathUsage(ns.ID, k.ID, number), 0, usageRecord{})
	}
	return nil
}
