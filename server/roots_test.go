package server_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// callRoots rotates the root key of a real token, and has the old one scheduled for
// destruction and restored.
func callRoots(t *testing.T, c *grpc.ClientConn) {
	r, n := pb.NewRootsClient(c), pb.NewNamespacesClient(c)
	made := must[*pb.RootVersion](t)(r.RotateRoot(t.Context(), &pb.RotateRootRequest{IdempotencyKey: "root"}))
	if made.Version != 2 || made.State != pb.RootState_ROOT_ACTIVE || made.Token != "default" || len(made.Id) != 32 || made.CreateTime == nil {
		t.Errorf("rotated to %v", made)
	}
	roots := must[*pb.ListRootsResponse](t)(r.ListRoots(t.Context(), &pb.ListRootsRequest{})).Roots
	for deadline := time.Now().Add(time.Minute); roots[0].State != pb.RootState_ROOT_RETIRED && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		roots = must[*pb.ListRootsResponse](t)(r.ListRoots(t.Context(), &pb.ListRootsRequest{})).Roots
	}
	if len(roots) != 2 || roots[0].State != pb.RootState_ROOT_RETIRED || roots[0].Domains != 0 || roots[0].RetireTime == nil || roots[1].Domains == 0 {
		t.Fatalf("roots: %v", roots)
	}
	scheduled := must[*pb.RootVersion](t)(r.DestroyRoot(t.Context(), &pb.DestroyRootRequest{Version: 1, Delay: durationpb.New(48 * time.Hour)}))
	if scheduled.State != pb.RootState_ROOT_DESTROY_SCHEDULED || scheduled.DestroyTime == nil {
		t.Errorf("scheduled: %v", scheduled)
	}
	restored := must[*pb.RootVersion](t)(r.RestoreRoot(t.Context(), &pb.RestoreRootRequest{Version: 1}))
	if restored.State != pb.RootState_ROOT_RETIRED || restored.DestroyTime != nil {
		t.Errorf("restored: %v", restored)
	}
	moved := must[*pb.Namespace](t)(n.MigrateNamespace(t.Context(), &pb.MigrateNamespaceRequest{Namespace: "app", Token: "default"}))
	if moved.Token != "default" {
		t.Errorf("moved: %v", moved)
	}
}
