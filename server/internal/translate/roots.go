package translate

import (
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// RotateRoot reads a RotateRootRequest.
func RotateRoot(q *pb.RotateRootRequest) (kms.RotateRootRequest, error) {
	return kms.RotateRootRequest{Token: q.Token, Idempotency: q.IdempotencyKey}, nil
}

// DestroyRoot reads a DestroyRootRequest.
func DestroyRoot(q *pb.DestroyRootRequest) (kms.DestroyRootRequest, error) {
	delay, err := optionalSpan("delay", q.Delay)
	return kms.DestroyRootRequest{Version: q.Version, Delay: delay, ConfirmLoss: q.ConfirmLoss, Idempotency: q.IdempotencyKey}, err
}

// RestoreRoot reads a RestoreRootRequest.
func RestoreRoot(q *pb.RestoreRootRequest) (kms.RootRef, error) {
	return kms.RootRef{Version: q.Version, Idempotency: q.IdempotencyKey}, nil
}

// MigrateNamespace reads a MigrateNamespaceRequest.
func MigrateNamespace(q *pb.MigrateNamespaceRequest) (kms.MigrateNamespaceRequest, error) {
	return kms.MigrateNamespaceRequest{Namespace: q.Namespace, Token: q.Token, Idempotency: q.IdempotencyKey}, nil
}

// RootVersion writes a RootVersion.
func RootVersion(r kms.RootVersion) *pb.RootVersion {
	return &pb.RootVersion{Version: r.Version, Id: r.ID.String(), Token: r.Token, Domains: r.Domains,
		State:      pb.RootState(pb.RootState_value["ROOT_"+string(r.State)]),
		CreateTime: timestamp(r.Created), ReplaceTime: timestamp(r.Replaced), RetireTime: timestamp(r.Retired), DestroyTime: timestamp(r.DestroyTime)}
}

// Roots writes a ListRootsResponse.
func Roots(roots []kms.RootVersion) *pb.ListRootsResponse {
	return &pb.ListRootsResponse{Roots: each(roots, RootVersion)}
}

func token(t kms.TokenStatus) *pb.TokenStatus {
	return &pb.TokenStatus{Name: t.Name, AwayTime: timestamp(t.Away), SealTime: timestamp(t.Sealed), Hsm: hsm(t.HSM, t.RootKeyID, t.RootVersion)}
}

func hsm(s kms.HSMStatus, root string, version uint32) *pb.HsmStatus {
	return &pb.HsmStatus{
		Healthy: s.Healthy, Problem: s.Problem, TokenLabel: s.TokenLabel, TokenSerial: s.TokenSerial,
		Manufacturer: s.Manufacturer, Model: s.Model, RootKeyId: root, RootVersion: version,
		SessionsInUse: uint32(s.SessionsInUse), SessionsMax: uint32(s.SessionsMax),
	}
}
