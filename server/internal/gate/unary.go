package gate

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/kms"
)

// Handler does what a unary method does for an authenticated caller.
type Handler[Q, P any] func(context.Context, kms.Call, *Q) (*P, error)

// Unary is a row of the table of methods.
type Unary[Q, P any] struct {
	gate   *Gate
	name   string // without the service
	terse  bool
	handle Handler[Q, P]
}

// Method is a unary method of any types.
type Method interface {
	// Descriptor is for gRPC.
	Descriptor() grpc.MethodDesc
	// Invoke serves a request that was read by other means than gRPC's.
	Invoke(ctx context.Context, a Arrival, request any) (proto.Message, error)
}

// Serve takes a request through the gate. decode, if given, reads it into q
// once it is known whose it is. The error is nil or a *kms.Error.
func (u *Unary[Q, P]) Serve(ctx context.Context, a Arrival, q *Q, decode func(any) error) (p *P, err error) {
	defer func() { err = u.gate.conclude(ctx, a, u.name, recover(), err) }()
	if err := u.gate.full(); err != nil {
		return nil, err
	}
	caller, err := u.gate.Authenticate(a)
	if err != nil {
		return nil, err
	}
	if decode != nil {
		if err := Receive(decode, q); err != nil {
			return nil, err
		}
	}
	if err := u.gate.admit(); err != nil {
		return nil, err
	}
	defer u.gate.leave()
	ctx = u.gate.bound(ctx)
	defer release(ctx)
	return u.handle(ctx, kms.Call{Caller: caller, RequestID: a.RequestID}, q)
}

// Failed is what becomes of a request that Serve let pass and that failed later; the
// result is nil if err is, else a *kms.Error.
func (u *Unary[Q, P]) Failed(ctx context.Context, a Arrival, err error) error {
	return u.gate.conclude(ctx, a, u.name, nil, err)
}

// Descriptor implements Method.
func (u *Unary[Q, P]) Descriptor() grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: u.name, Handler: u.overGRPC}
}

// overGRPC has the signature of grpc.MethodDesc.Handler.
func (u *Unary[Q, P]) overGRPC(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	a := arrivalOf(ctx)
	p, err := u.Serve(ctx, a, new(Q), decode)
	if err != nil || a.Named || !u.terse {
		if failure := grpc.SetHeader(ctx, metadata.MD{requestIDKey: {a.RequestID}}); failure != nil {
			return nil, failure
		}
	}
	if err != nil {
		return nil, grpcError(AsError(err), a.RequestID)
	}
	return p, nil
}

// Invoke implements Method.
func (u *Unary[Q, P]) Invoke(ctx context.Context, a Arrival, request any) (proto.Message, error) {
	p, err := u.Serve(ctx, a, request.(*Q), nil)
	if err != nil {
		return nil, err
	}
	return any(p).(proto.Message), nil
}

// Row makes a row of the table; it is a function so that types are inferred.
func Row[Q, P any](g *Gate, name string, handle Handler[Q, P]) *Unary[Q, P] {
	return &Unary[Q, P]{gate: g, name: name, handle: handle}
}

// Terse makes gRPC tell the request id of a success only to a client that named one.
// A header that is new in each answer costs a tenth of the server's work for a small
// operation, and nearly as much of the client's: HPACK (RFC 7541) puts it into its
// table on both sides.
func (u *Unary[Q, P]) Terse() *Unary[Q, P] {
	u.terse = true
	return u
}

// Operation adapts a method of the hot path.
func Operation[Q, K, R, P any](in func(*Q) *K, do func(context.Context, kms.Call, *K) (R, error), out func(*R) *P) Handler[Q, P] {
	return func(ctx context.Context, call kms.Call, q *Q) (*P, error) {
		r, err := do(ctx, call, in(q))
		if err != nil {
			return nil, err
		}
		return out(&r), nil
	}
}

// Command adapts a method of management.
func Command[Q, K, R, P any](in func(*Q) (K, error), do func(context.Context, kms.Call, K) (R, error), out func(R) *P) Handler[Q, P] {
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

// Listing adapts a method that returns a page and the token of the next.
func Listing[Q, K, R, P any](in func(*Q) (K, error), do func(context.Context, kms.Call, K) ([]R, string, error), out func([]R, string) *P) Handler[Q, P] {
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
