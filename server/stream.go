package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/internal/identity"
	"github.com/keywright/keywright/server/internal/translate"
)

// openStream is a stream that has passed the gate. Its context ends with the
// caller's credentials and with the server, and its cause says which.
type openStream struct {
	grpc.ServerStream
	ctx     context.Context
	arrival arrival
}

func (s *openStream) Context() context.Context { return s.ctx }

func (s *openStream) call() kms.Call {
	return kms.Call{Caller: s.arrival.caller, RequestID: s.arrival.requestID}
}

// stream takes a stream through the gate; it is the grpc.StreamServerInterceptor.
// Health is watched without authentication, reflection is not.
func (g *gate) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if info.FullMethod == healthpb.Health_Watch_FullMethodName {
		return g.watchHealth(stream, func(s grpc.ServerStream) error { return handle(server, s) })
	}
	s := &openStream{ServerStream: stream, ctx: stream.Context(), arrival: arrivalOf(stream.Context())}
	if err := stream.SetHeader(metadata.MD{requestIDKey: {s.arrival.requestID}}); err != nil {
		return err
	}
	err := g.serveStream(s, info.FullMethod, func() error { return handle(server, s) })
	if err == nil {
		return nil
	}
	return grpcError(asError(err), s.arrival.requestID)
}

// watchGrace is how long a watcher of health gets to learn that the server drains.
const watchGrace = 200 * time.Millisecond

// watchHealth ends a watch, which has no end of its own, when the server drains.
func (g *gate) watchHealth(stream grpc.ServerStream, handle func(grpc.ServerStream) error) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(g.draining, func() { time.AfterFunc(watchGrace, cancel) })()
	return handle(&openStream{ServerStream: stream, ctx: ctx})
}

func (g *gate) serveStream(s *openStream, method string, handle func() error) (err error) {
	defer func() { err = g.conclude(s.ctx, s.arrival, method, recover(), err) }()
	defer g.streams.Add(-1)
	if g.streams.Add(1) > g.limit {
		return g.overloaded()
	}
	if s.arrival.caller, err = g.authenticate(s.arrival); err != nil {
		return err
	}
	ctx, end := g.lifetime(s.ctx, s.arrival.caller)
	defer end()
	s.ctx = ctx
	return ended(ctx, handle())
}

// lifetime returns a context that ends with the caller's credentials and when
// the server drains.
func (g *gate) lifetime(ctx context.Context, caller *policy.Caller) (_ context.Context, end func()) {
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

func (a *api) auditStreams() []grpc.StreamDesc {
	return []grpc.StreamDesc{{StreamName: "TailEntries", Handler: a.tailEntries, ServerStreams: true}}
}

func (a *api) tailEntries(_ any, stream grpc.ServerStream) error {
	s, q := stream.(*openStream), new(pb.TailEntriesRequest)
	if err := receive(s.RecvMsg, q); err != nil {
		return err
	}
	filter, backlog, err := translate.TailEntries(q)
	if err != nil {
		return err
	}
	return a.service.TailAudit(s.ctx, s.call(), filter, backlog, func(e audit.Entry) error {
		return s.SendMsg(translate.Entry(e))
	})
}
