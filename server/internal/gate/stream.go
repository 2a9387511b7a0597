package gate

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/internal/identity"
)

// OpenStream is a stream that has passed the gate. Its context ends with the
// caller's credentials and with the server, and its cause says which.
type OpenStream struct {
	grpc.ServerStream
	ctx     context.Context
	arrival Arrival
}

// Context implements grpc.ServerStream.
func (s *OpenStream) Context() context.Context { return s.ctx }

// Arrival is how the stream arrived, and whose it is.
func (s *OpenStream) Arrival() Arrival { return s.arrival }

// Transport returns the context that ends with the connection alone.
func (s *OpenStream) Transport() context.Context { return s.ServerStream.Context() }

// Call is the stream's caller and request id.
func (s *OpenStream) Call() kms.Call {
	return kms.Call{Caller: s.arrival.Caller, RequestID: s.arrival.RequestID}
}

// Stream takes a stream through the gate; it is the grpc.StreamServerInterceptor.
// Health is watched without authentication, reflection is not.
func (g *Gate) Stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if info.FullMethod == healthpb.Health_Watch_FullMethodName {
		return g.watchHealth(stream, func(s grpc.ServerStream) error { return handle(server, s) })
	}
	s := &OpenStream{ServerStream: stream, ctx: stream.Context(), arrival: arrivalOf(stream.Context())}
	if err := stream.SetHeader(metadata.MD{requestIDKey: {s.arrival.RequestID}}); err != nil {
		return err
	}
	err := g.serveStream(s, info.FullMethod, func() error { return handle(server, s) })
	if err == nil {
		return nil
	}
	return grpcError(AsError(err), s.arrival.RequestID)
}

// watchGrace is how long a watcher of health gets to learn that the server drains.
const watchGrace = 200 * time.Millisecond

// watchHealth ends a watch, which has no end of its own, when the server drains.
func (g *Gate) watchHealth(stream grpc.ServerStream, handle func(grpc.ServerStream) error) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(g.draining, func() { time.AfterFunc(watchGrace, cancel) })()
	return handle(&OpenStream{ServerStream: stream, ctx: ctx})
}

func (g *Gate) serveStream(s *OpenStream, method string, handle func() error) (err error) {
	defer func() { err = g.conclude(s.ctx, s.arrival, method, recover(), err) }()
	defer g.streams.Add(-1)
	if g.streams.Add(1) > g.limit {
		return g.overloaded()
	}
	if s.arrival.Caller, err = g.Authenticate(s.arrival); err != nil {
		return err
	}
	ctx, end := g.lifetime(s.ctx, s.arrival.Caller)
	defer end()
	s.ctx = ctx
	return ended(ctx, handle())
}

// lifetime returns a context that ends with the caller's credentials and when
// the server drains.
func (g *Gate) lifetime(ctx context.Context, caller *policy.Caller) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopDrain := context.AfterFunc(g.draining, func() { cancel(errDraining()) })
	stopExpiry := func() bool { return true }
	if !caller.Expires.IsZero() {
		stopExpiry = time.AfterFunc(time.Until(caller.Expires), func() { cancel(identity.Expired(caller)) }).Stop
	}
	return ctx, func() {
		stopDrain()
		stopExpiry()
		cancel(nil)
	}
}

// ended puts the reason why a stream was ended in place of what its handler
// made of that.
func ended(ctx context.Context, err error) error {
	var why *kms.Error
	if err != nil && errors.As(context.Cause(ctx), &why) {
		return why
	}
	return err
}
