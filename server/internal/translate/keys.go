package translate

import (
	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// CreateKey reads a CreateKeyRequest.
func CreateKey(q *pb.CreateKeyRequest) (kms.CreateKeyRequest, error) {
	rotation, err := rotation(q.Rotation)
	return kms.CreateKeyRequest{Namespace: q.Namespace, Key: q.Key, Purpose: keyring.Purpose(enum(q.Purpose)),
		Algorithm: q.Algorithm, Protection: kms.Protection(enum(q.ProtectionLevel)), Labels: q.Labels,
		Rotation: rotation, Exportable: q.Exportable, Idempotency: q.IdempotencyKey}, err
}

func rotation(r *pb.RotationPolicy) (kms.Rotation, error) {
	rotation := kms.Rotation{MaxUses: r.GetMaxUses()}
	if r.GetPeriod() == nil {
		return rotation, nil
	}
	var err error
	rotation.Period, err = span("rotation.period", r.Period)
	return rotation, err
}

// GetKey reads a GetKeyRequest.
func GetKey(q *pb.GetKeyRequest) (kms.KeyRef, error) {
	return kms.KeyRef{Namespace: q.Namespace, Key: q.Key}, nil
}

// ListKeys reads a ListKeysRequest.
func ListKeys(q *pb.ListKeysRequest) (kms.ListKeysRequest, error) {
	return kms.ListKeysRequest{Namespace: q.Namespace, Labels: q.Labels, ShowDeleted: q.ShowDeleted,
		PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// UpdateKey reads an UpdateKeyRequest.
func UpdateKey(q *pb.UpdateKeyRequest) (kms.UpdateKeyRequest, error) {
	update := kms.UpdateKeyRequest{Namespace: q.Namespace, Key: q.Key, Labels: labels(q.Labels), Idempotency: q.IdempotencyKey}
	if q.Rotation == nil {
		return update, nil
	}
	rotation, err := rotation(q.Rotation)
	update.Rotation = &rotation
	return update, err
}

// RotateKey reads a RotateKeyRequest.
func RotateKey(q *pb.RotateKeyRequest) (kms.KeyRef, error) {
	return kms.KeyRef{Namespace: q.Namespace, Key: q.Key, Idempotency: q.IdempotencyKey}, nil
}

// GetVersion reads a GetVersionRequest.
func GetVersion(q *pb.GetVersionRequest) (kms.VersionRef, error) {
	return kms.VersionRef{Namespace: q.Namespace, Key: q.Key, Version: q.Version}, nil
}

// ListVersions reads a ListVersionsRequest.
func ListVersions(q *pb.ListVersionsRequest) (kms.ListVersionsRequest, error) {
	return kms.ListVersionsRequest{Namespace: q.Namespace, Key: q.Key, PageSize: int(q.PageSize), PageToken: q.PageToken}, nil
}

// versionMutation is what the requests have in common that change one version.
type versionMutation interface {
	GetNamespace() string
	GetKey() string
	GetVersion() uint32
	GetIdempotencyKey() string
}

func version(q versionMutation) (kms.VersionRef, error) {
	return kms.VersionRef{Namespace: q.GetNamespace(), Key: q.GetKey(), Version: q.GetVersion(), Idempotency: q.GetIdempotencyKey()}, nil
}

// SetPrimaryVersion reads a SetPrimaryVersionRequest.
func SetPrimaryVersion(q *pb.SetPrimaryVersionRequest) (kms.VersionRef, error) { return version(q) }

// EnableVersion reads an EnableVersionRequest.
func EnableVersion(q *pb.EnableVersionRequest) (kms.VersionRef, error) { return version(q) }

// DisableVersion reads a DisableVersionRequest.
func DisableVersion(q *pb.DisableVersionRequest) (kms.VersionRef, error) { return version(q) }

// RestoreVersion reads a RestoreVersionRequest.
func RestoreVersion(q *pb.RestoreVersionRequest) (kms.VersionRef, error) { return version(q) }

// DestroyVersion reads a DestroyVersionRequest.
func DestroyVersion(q *pb.DestroyVersionRequest) (kms.DestroyRequest, error) {
	delay, err := optionalSpan("delay", q.Delay)
	return kms.DestroyRequest{Namespace: q.Namespace, Key: q.Key, Version: q.Version, Delay: delay, Idempotency: q.IdempotencyKey}, err
}

// DeleteKey reads a DeleteKeyRequest.
func DeleteKey(q *pb.DeleteKeyRequest) (kms.DestroyRequest, error) {
	delay, err := optionalSpan("delay", q.Delay)
	return kms.DestroyRequest{Namespace: q.Namespace, Key: q.Key, Delay: delay, Idempotency: q.IdempotencyKey}, err
}

// RestoreKey reads a RestoreKeyRequest.
func RestoreKey(q *pb.RestoreKeyRequest) (kms.RestoreKeyRequest, error) {
	id, err := kms.ParseID(q.KeyId)
	return kms.RestoreKeyRequest{Namespace: q.Namespace, ID: id, Idempotency: q.IdempotencyKey}, err
}

// Key writes a Key.
func Key(k kms.Key) *pb.Key {
	return &pb.Key{
		Namespace: k.Namespace, Name: k.Name, Id: k.ID.String(),
		Purpose: pb.Purpose(pb.Purpose_value[string(k.Purpose)]), Algorithm: k.Algorithm,
		ProtectionLevel: protectionLevel(k.Protection),
		PrimaryVersion:  k.PrimaryVersion, LatestVersion: k.LatestVersion,
		Labels: k.Labels, Rotation: rotationPolicy(k.Rotation), NextRotationTime: timestamp(k.NextRotation),
		CreateTime: timestamp(k.Created), UpdateTime: timestamp(k.Updated),
		State: pb.KeyState(pb.KeyState_value[string(k.State)]), DestroyTime: timestamp(k.DestroyTime),
		EraseTime:  timestamp(k.ErasedTime),
		Exportable: k.Exportable, Origin: origin(k.Imported), ImportTime: timestamp(k.Imported),
		Framing: framing(k), Vault: vaultKey(k.Transit),
	}
}

func rotationPolicy(r kms.Rotation) *pb.RotationPolicy {
	if r == (kms.Rotation{}) {
		return nil
	}
	return &pb.RotationPolicy{Period: duration(r.Period), MaxUses: r.MaxUses}
}

// Keys writes a ListKeysResponse.
func Keys(keys []kms.Key, next string) *pb.ListKeysResponse {
	return &pb.ListKeysResponse{Keys: each(keys, Key), NextPageToken: next}
}

// KeyVersion writes a KeyVersion.
func KeyVersion(v kms.KeyVersion) *pb.KeyVersion {
	return &pb.KeyVersion{
		Namespace: v.Namespace, Key: v.Key, KeyId: v.KeyID.String(), Version: v.Version,
		State: pb.VersionState(pb.VersionState_value[string(v.State)]), Primary: v.Primary, Algorithm: v.Algorithm,
		CreateTime: timestamp(v.Created), LastUsedTime: timestamp(v.LastUsed), DestroyTime: timestamp(v.DestroyTime),
		EraseTime:       timestamp(v.ErasedTime),
		ProtectionLevel: protectionLevel(v.Protection), TokenKey: tokenKey(v.Token),
		Origin: origin(v.Imported), ImportTime: timestamp(v.Imported),
	}
}

func protectionLevel(p kms.Protection) pb.ProtectionLevel {
	return pb.ProtectionLevel(pb.ProtectionLevel_value[string(p)])
}

func tokenKey(k *kms.TokenKey) *pb.TokenKey {
	if k == nil {
		return nil
	}
	return &pb.TokenKey{Id: k.ID.String(), Problem: k.Problem, Local: k.Origin.Local, NeverExtractable: k.Origin.NeverExtractable,
		AlwaysSensitive: k.Origin.AlwaysSensitive, Removing: k.Removing}
}

// KeyVersions writes a ListVersionsResponse.
func KeyVersions(versions []kms.KeyVersion, next string) *pb.ListVersionsResponse {
	return &pb.ListVersionsResponse{Versions: each(versions, KeyVersion), NextPageToken: next}
}
