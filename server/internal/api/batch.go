package api

import (
	"context"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/translate"
)

// batch answers each operation in its place. One that cannot be read is nil to
// the core, which refuses it alone.
func (a *API) batch(ctx context.Context, call kms.Call, q *pb.BatchRequest) (*pb.BatchResponse, error) {
	operations := make([]kms.Operation, len(q.Operations))
	for i, o := range q.Operations {
		if operation, err := translate.Operation(o, q.Namespace, q.Key); err == nil {
			operations[i] = operation
		}
	}
	outcomes, err := a.service.Batch(ctx, call, operations)
	if err != nil {
		return nil, err
	}
	results := make([]*pb.OperationResult, len(outcomes))
	for i, outcome := range outcomes {
		results[i] = response(q.Operations[i], outcome)
	}
	return &pb.BatchResponse{Results: results}, nil
}

func response(o *pb.Operation, r kms.Result) *pb.OperationResult {
	if r.Err != nil {
		return translate.Failure(gate.OperationError(r.Err))
	}
	return translate.Response(o, r.Response)
}

// perform performs one operation of a pipeline, which has still to be recorded.
func (a *API) perform(ctx context.Context, call kms.Call, o *pb.Operation) (*kms.Performed, error) {
	operation, err := translate.Operation(o, "", "")
	if err != nil {
		return nil, err
	}
	performed := a.service.Perform(ctx, call, operation)
	return &performed, nil
}
