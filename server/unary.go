package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/kms"
)

// handler does what a unary method does for an authenticated caller.
type handler[Q, P any] func(context.Context, kms.Call, *Q) (*P, error)

// unary is a row of the table of methods.
type unary[Q, P any] struct {
	gate   *gate
	name   string // without the service
	handle handler[Q, P]
}

// method is a unary method of any types.
type method interface {
	descriptor() grpc.MethodDesc
	// invoke serves a request that was read by other means than gRPC's.
	invoke(ctx context.Context, a arrival, request any) (proto.Message, error)
}

// serve takes a request through the gate. decode, if given, reads it into q
// once it is known whose it is. The error is nil or a *kms.Error.
func (u *unary[Q, P]) serve(ctx context.Context, a arrival, q *Q, decode func(any) error) (p *P, err error) {
	defer func() { err = u.gate.conclude(ctx, a, u.name, recover(), err) }()
	if err := u.gate.full(); err != nil {
		return nil, err
	}
	caller, err := u.gate.authenticate(a)
	if err != nil {
		return nil, err
	}
	if decode != nil {
		if err := receive(decode, q); err != nil {
			return nil, err
		}
	}
	if err := u.gate.admit(); err != nil {
		return nil, err
	}
	defer u.gate.leave()
	ctx = u.gate.bound(ctx)
	defer release(ctx)
	return u.handle(ctx, kms.Call{Caller: caller, RequestID: a.requestID}, q)
}

func (u *unary[Q, P]) descriptor() grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: u.name, Handler: u.overGRPC}
}

// overGRPC has the signature of grpc.MethodDesc.Handler.
func (u *unary[Q, P]) overGRPC(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	a := arrivalOf(ctx)
	if err := grpc.SetHeader(ctx, metadata.MD{requestIDKey: {a.requestID}}); err != nil {
		return nil, err
	}
	p, err := u.serve(ctx, a, new(Q), decode)
	if err != nil {
		return nil, grpcError(asError(err), a.requestID)
	}
	return p, nil
}

func (u *unary[Q, P]) invoke(ctx context.Context, a arrival, request any) (proto.Message, error) {
	p, err := u.serve(ctx, a, request.(*Q), nil)
	if err != nil {
		return nil, err
	}
	return any(p).(proto.Message), nil
}

// operation adapts a method of the hot path.
func operation[Q, K, R, P any](in func(*Q) *K, do func(context.Context, kms.Call, *K) (R, error), out func(*R) *P) handler[Q, P] {
	return func(ctx context.Context, call kms.Call, q *Q) (*P, error) {
		r, err := do(ctx, call, in(q))
		if err != nil {
			return nil, err
		}
		return out(&r), nil
	}
}

// command adapts a method of management.
func command[Q, K, R, P any](in func(*Q) (K, error), do func(context.Context, kms.Call, K) (R, error), out func(R) *P) handler[Q, P] {
	return func(ctx context.Context, call kms.Call, q *Q) (*P, error) {
		k, err := in(q)
		if err != nil {
			return nil, err
		}
		r, err := do(ctx, call, k)
		if err != nil {
			return nil, err
		}
		return out(r), nil
	}
}

// listing adapts a method that returns a page and the token of the next.
func listing[Q, K, R, P any](in func(*Q) (K, error), do func(context.Context, kms.Call, K) ([]R, string, error), out func([]R, string) *P) handler[Q, P] {
	return func(ctx context.Context, call kms.Call, q *Q) (*P, error) {
		k, err := in(q)
		if err != nil {
			return nil, err
		}
		page, next, err := do(ctx, call, k)
		if err != nil {
			return nil, err
		}
		return out(page, next), nil
	}
}
