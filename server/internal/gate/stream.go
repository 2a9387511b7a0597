package gate

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
)

// OpenStream is a stream that has passed the gate. Its context ends with the
// caller's credentials and with the server, and its cause says which.
type OpenStream struct {
	grpc.ServerStream
	gate    *Gate
	ctx     context.Context
	arrival Arrival
}

// Context implements grpc.ServerStream.
func (s *OpenStream) Context() context.Context { return s.ctx }

// Arrival is how the stream arrived, and whose it is.
func (s *OpenStream) Arrival() Arrival { return s.arrival }

// Current fails once the caller's credentials have ended or were revoked. Streams
// end by themselves then, but only a moment later.
func (s *OpenStream) Current() error {
	_, err := s.gate.Authenticate(s.arrival)
	return err
}

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
	s := &OpenStream{ServerStream: stream, gate: g, ctx: stream.Context(), arrival: arrivalOf(stream.Context())}
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
	ctx, end := g.lifetime(s.ctx, s.arrival)
	defer end()
	s.ctx = ctx
	return ended(ctx, handle())
}

// recheckInterval is how long a stream whose credentials were revoked stays open.
const recheckInterval = 500 * time.Millisecond

// lifetime returns a context that ends with the credentials of what arrived, when
// they are revoked, when the connection is too old, and when the server drains.
func (g *Gate) lifetime(ctx context.Context, a Arrival) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopDrain := context.AfterFunc(g.draining, func() { cancel(errDraining()) })
	stopAge := g.endAged(cancel, a)
	stopChecks := g.recheck(ctx, cancel, a)
	return ctx, func() {
		stopDrain()
		stopAge()
		cancel(nil)
		stopChecks()
	}
}

// endAged ends a stream that keeps its connection alive beyond its age. The client
// was told before that the connection is going away.
func (g *Gate) endAged(cancel context.CancelCauseFunc, a Arrival) (stop func()) {
	if g.age <= 0 {
		return func() {}
	}
	timer := time.AfterFunc(g.age-a.Connection.Age(), func() { cancel(errAged()) })
	return func() { timer.Stop() }
}

// recheck authenticates again what arrived, from time to time and when it
// expires, until that fails, which cancels ctx, or ctx ends.
func (g *Gate) recheck(ctx context.Context, cancel context.CancelCauseFunc, a Arrival) (stop func()) {
	var lock sync.Mutex // guards timer, which may fire before it is set
	var timer *time.Timer
	check := func() {
		caller, err := g.Authenticate(a)
		if err != nil {
			cancel(AsError(err))
			return
		}
		lock.Lock()
		defer lock.Unlock()
		if ctx.Err() == nil {
			timer.Reset(untilRecheck(caller))
		}
	}
	lock.Lock()
	defer lock.Unlock()
	timer = time.AfterFunc(untilRecheck(a.Caller), check)
	return func() {
		lock.Lock()
		defer lock.Unlock()
		timer.Stop()
	}
}

func untilRecheck(caller *policy.Caller) time.Duration {
	if caller.Expires.IsZero() {
		return recheckInterval
	}
	return min(recheckInterval, max(time.Until(caller.Expires), time.Millisecond))
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
