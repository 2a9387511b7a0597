package translate

import (
	"time"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

func origin(imported time.Time) pb.MaterialOrigin {
	if imported.IsZero() {
		return pb.MaterialOrigin_GENERATED
	}
	return pb.MaterialOrigin_IMPORTED
}

// ExportKey reads an ExportKeyRequest.
func ExportKey(q *pb.ExportKeyRequest) (kms.ExportKeyRequest, error) {
	return kms.ExportKeyRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version, PublicKey: q.PublicKey}, nil
}

// ExportedKey writes an ExportKeyResponse.
func ExportedKey(e kms.ExportedKey) *pb.ExportKeyResponse {
	return &pb.ExportKeyResponse{WrappedKey: e.Wrapped, Method: e.Method, Version: e.Version, Algorithm: e.Algorithm}
}

// GetImportParameters reads a GetImportParametersRequest.
func GetImportParameters(q *pb.GetImportParametersRequest) (kms.ImportParametersRequest, error) {
	ttl, err := optionalSpan("ttl", q.Ttl)
	return kms.ImportParametersRequest{Namespace: q.Namespace, Key: q.Key, Algorithm: q.Algorithm,
		Protection: kms.Protection(enum(q.ProtectionLevel)), TTL: ttl, SingleUse: q.SingleUse, Idempotency: q.IdempotencyKey}, err
}

// ImportParameters writes an ImportParameters.
func ImportParameters(p kms.ImportParameters) *pb.ImportParameters {
	return &pb.ImportParameters{Namespace: p.Namespace, ImportJob: p.Job.String(), Key: p.Key, Algorithm: p.Algorithm,
		ProtectionLevel: pb.ProtectionLevel(pb.ProtectionLevel_value[string(p.Protection)]), PublicKeyPem: p.PublicKeyPEM,
		Method: p.Method, OaepHash: p.Hash, SingleUse: p.SingleUse, CreateTime: timestamp(p.Created), ExpireTime: timestamp(p.Expires)}
}

// ImportKey reads an ImportKeyRequest.
func ImportKey(q *pb.ImportKeyRequest) (kms.ImportKeyRequest, error) {
	rotation, err := rotation(q.Rotation)
	return kms.ImportKeyRequest{Namespace: q.Namespace, Key: q.Key, Job: q.ImportJob, Wrapped: q.WrappedKey, Labels: q.Labels,
		Rotation: rotation, Exportable: q.Exportable, Idempotency: q.IdempotencyKey}, err
}

// ImportKeyVersion reads an ImportKeyVersionRequest.
func ImportKeyVersion(q *pb.ImportKeyVersionRequest) (kms.ImportVersionRequest, error) {
	return kms.ImportVersionRequest{Namespace: q.Namespace, Key: q.Key, Job: q.ImportJob, Wrapped: q.WrappedKey,
		MakePrimary: q.MakePrimary, Idempotency: q.IdempotencyKey}, nil
}

// RestoreVaultKey reads a RestoreVaultKeyRequest.
func RestoreVaultKey(q *pb.RestoreVaultKeyRequest) (kms.RestoreTransitRequest, error) {
	return kms.RestoreTransitRequest{Namespace: q.Namespace, Key: q.Key, Backup: q.Backup, ValidateOnly: q.ValidateOnly, Idempotency: q.IdempotencyKey}, nil
}

// BackupVaultKey reads a BackupVaultKeyRequest.
func BackupVaultKey(q *pb.BackupVaultKeyRequest) (kms.BackupTransitRequest, error) {
	return kms.BackupTransitRequest{Namespace: q.Namespace, Key: q.Key, HashiCorp: q.Hashicorp}, nil
}

// VaultBackup writes a BackupVaultKeyResponse.
func VaultBackup(backup string) *pb.BackupVaultKeyResponse {
	return &pb.BackupVaultKeyResponse{Backup: backup}
}

func framing(k kms.Key) pb.Framing {
	if k.Transit != nil {
		return pb.Framing_VAULT
	}
	return pb.Framing_NATIVE
}

func vaultKey(t *kms.TransitKey) *pb.VaultKey {
	if t == nil {
		return nil
	}
	return &pb.VaultKey{Type: t.Type, Derived: t.Derived, ConvergentEncryption: t.Convergent, MinDecryptionVersion: t.MinDecryptionVersion,
		MinEncryptionVersion: t.MinEncryptionVersion, MinAvailableVersion: t.MinAvailableVersion, DeletionAllowed: t.DeletionAllowed,
		AllowPlaintextBackup: t.PlaintextBackup, ImportedKey: t.Imported, AllowRotation: t.AllowRotation, OldestRestoredVersion: t.Restoring}
}
