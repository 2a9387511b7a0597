package gate

import (
	"context"

	"google.golang.org/grpc"
)

// DescriptorNamed is Descriptor for an API whose messages carry the request's id,
// which name reads off one. What it returns counts if it has a request id's form and
// the client sent none beside the message, which is read before it is known whose it
// is: for connections of few, and small messages.
func (u *Unary[Q, P]) DescriptorNamed(name func(*Q) string) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: u.name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		a, q := arrivalOf(ctx), new(Q)
		fault := Receive(decode, q)
		if fault == nil && !a.Named {
			a.RequestID = RequestID([]string{name(q)})
		}
		p, err := u.Serve(ctx, a, q, func(any) error { return fault })
		if err != nil {
			return nil, grpcError(AsError(err), a.RequestID)
		}
		return p, nil
	}}
}
