package kms

import (
	"context"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/policy"
)

// ExportTransitKey gives a key's material out in plaintext, which its namespace must have
// been created for and the key be exportable for (needs the right to ExportKey), or a
// public key (GetPublicKey). It is logged durably before the answer.
func (s *Service) ExportTransitKey(ctx context.Context, call Call, q ExportTransitRequest) (TransitExport, error) {
	action := policy.ExportKey
	if q.Kind == transit.PublicKey {
		action = policy.GetPublicKey
	}
	return perform(ctx, s, call, action, q, (*Service).exportTransit)
}

func (s *Service) exportTransit(ctx context.Context, t *trace, q ExportTransitRequest) (TransitExport, error) {
	k, err := s.admitUse(ctx, t, t.action, q.Namespace, q.Key, nil)
	if err == nil {
		err = k.framed(FramingVault)
	}
	if err == nil && q.Kind != transit.PublicKey {
		t.durable = true
		t.entry.Details = map[string]string{"form": "plaintext", "kind": string(q.Kind)}
		err = k.mayLeave()
	}
	if err != nil {
		return TransitExport{}, err
	}
	numbers, err := s.versionsToExport(ctx, k, q)
	if err != nil {
		return TransitExport{}, err
	}
	export := TransitExport{Key: s.describeKey(k.keyRecord), Keys: make(map[uint32]string, len(numbers))}
	for _, number := range numbers {
		if export.Keys[number], err = s.exportTransitVersion(ctx, k, q.Kind, number); err != nil {
			return TransitExport{}, err
		}
	}
	return export, nil
}

// mayLeave refuses to let a key's material leave in plaintext.
func (k *key) mayLeave() error {
	if k.Protection == HSMLevel || !k.Exportable {
		return precondition("NOT_EXPORTABLE", "private key material of key %s is not exportable, so it never leaves; make a new key with exportable set, in a namespace with plaintext_export", k.Name)
	}
	return checkPlaintext(k.ns, true, false)
}

// versionsToExport are those that an export asks for; of all, those that can be used.
func (s *Service) versionsToExport(ctx context.Context, k *key, q ExportTransitRequest) ([]uint32, error) {
	switch {
	case q.Latest:
		return []uint32{k.LatestVersion}, nil
	case q.Version == 0:
		versions, err := s.transitVersions(ctx, k, nil)
		numbers := make([]uint32, len(versions))
		for i, v := range versions {
			numbers[i] = v.Version
		}
		return numbers, err
	case q.Version < k.Transit.MinDecryptionVersion:
		return nil, invalid("version", "is %d, below the key's min_decryption_version, %d; lower that first", q.Version, k.Transit.MinDecryptionVersion)
	}
	return []uint32{q.Version}, nil
}

func (s *Service) exportTransitVersion(ctx context.Context, k *key, kind transit.ExportKind, number uint32) (string, error) {
	if kind == transit.PublicKey && (!k.settings.Type.Asymmetric() || k.Transit.Derived) {
		return "", invalid("type", "public-key is what keys of type %s do not have, or not before a context is given; use an asymmetric key that is not derived", k.settings.Type)
	}
	material, _, err := s.transitMaterial(ctx, k, number, kind == transit.PublicKey)
	if err != nil {
		return "", err
	}
	defer material.Wipe()
	if kind == transit.PublicKey {
		return s.transitPublicKey(ctx, k, number, nil)
	}
	text, err := transit.Export(k.settings, kind, material)
	return text, keyringError(err)
}

// transitMaterial opens the material of an ENABLED version; with look it only makes sure
// that there is one.
func (s *Service) transitMaterial(ctx context.Context, k *key, number uint32, look bool) (keyring.Material, versionRecord, error) {
	d, err := s.domainOf(ctx, k.ns)
	if err != nil {
		return keyring.Material{}, versionRecord{}, err
	}
	record, err := s.readVersion(ctx, k, number)
	switch {
	case err != nil:
		return keyring.Material{}, versionRecord{}, err
	case record.value.State != Enabled:
		return keyring.Material{}, versionRecord{}, errVersionState(number, record.value.State)
	case look:
		return keyring.Material{}, record.value, nil
	}
	material, err := s.unsealMaterial(ctx, k, d, record.value)
	return material, record.value, err
}

// BackupTransitKey gives a key with all its versions out in plaintext (ExportKey), if
// its configuration allows that. It is logged durably before the answer.
func (s *Service) BackupTransitKey(ctx context.Context, call Call, q BackupTransitRequest) (string, error) {
	return perform(ctx, s, call, policy.ExportKey, q, (*Service).backupTransit)
}

func (s *Service) backupTransit(ctx context.Context, t *trace, q BackupTransitRequest) (string, error) {
	t.durable = true
	k, err := s.admitUse(ctx, t, policy.ExportKey, q.Namespace, q.Key, nil)
	if err == nil {
		err = k.framed(FramingVault)
	}
	if err != nil {
		return "", err
	}
	t.entry.Details = map[string]string{"form": "plaintext", "kind": "backup"}
	if err := k.mayLeave(); err != nil {
		return "", err
	}
	if !k.Transit.PlaintextBackup {
		return "", precondition("NO_PLAINTEXT_BACKUP", "plaintext backup is disabled for key %s; set allow_plaintext_backup in the key's configuration, for good", k.Name)
	}
	if err := k.restored(max(k.Transit.MinAvailableVersion, 1)); err != nil {
		return "", err
	}
	backup, err := s.gatherBackup(ctx, k)
	defer backup.Wipe()
	if err != nil {
		return "", err
	}
	backup.HashiCorp = q.HashiCorp
	text, err := backup.Encode()
	return text, keyringError(err)
}

// gatherBackup opens all versions that are available. The result is to be wiped, also
// with an error.
func (s *Service) gatherBackup(ctx context.Context, k *key) (*transit.Backup, error) {
	t := k.Transit
	b := &transit.Backup{Name: k.Name, Settings: k.settings, Versions: map[uint32]transit.BackupVersion{}, LatestVersion: k.LatestVersion,
		MinDecryptionVersion: t.MinDecryptionVersion, MinEncryptionVersion: t.MinEncryptionVersion, MinAvailableVersion: t.MinAvailableVersion,
		DeletionAllowed: t.DeletionAllowed, Exportable: k.Exportable, PlaintextBackup: t.PlaintextBackup,
		Imported: t.Imported, AllowRotation: t.AllowRotation, AutoRotatePeriod: k.Rotation.Period}
	for n := max(t.MinAvailableVersion, 1); n <= k.LatestVersion; n++ {
		material, record, err := s.transitMaterial(ctx, k, n, false)
		if err != nil {
			return b, err
		}
		b.Versions[n] = transit.BackupVersion{Material: material, Created: record.Created}
	}
	return b, nil
}
