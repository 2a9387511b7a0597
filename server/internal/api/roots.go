package api

import (
	"context"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/translate"
)

func (a *API) roots() []gate.Method {
	s := a.service
	return []gate.Method{
		row(a, "ListRoots", a.listRoots),
		row(a, "RotateRoot", gate.Command(translate.RotateRoot, s.RotateRoot, translate.RootVersion)),
		row(a, "DestroyRoot", gate.Command(translate.DestroyRoot, s.DestroyRoot, translate.RootVersion)),
		row(a, "RestoreRoot", gate.Command(translate.RestoreRoot, s.RestoreRoot, translate.RootVersion)),
	}
}

func (a *API) listRoots(ctx context.Context, call kms.Call, _ *pb.ListRootsRequest) (*pb.ListRootsResponse, error) {
	roots, err := a.service.ListRoots(ctx, call)
	if err != nil {
		return nil, err
	}
	return translate.Roots(roots), nil
}
