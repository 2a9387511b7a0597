package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/internal/identity"
)

// gate is what every request passes, whichever way it came.
type gate struct {
	service  *kms.Service
	callers  *identity.Authenticator
	metrics  *Metrics
	logger   *slog.Logger
	limit    int64 // of calls, and of streams
	timeout  time.Duration
	maxBytes int

	calls, streams atomic.Int64 // in flight

	draining context.Context // ends when the server drains
	drain    context.CancelFunc
}

func newGate(c Config) *gate {
	g := &gate{service: c.Service, metrics: c.Metrics, logger: c.Logger, limit: int64(c.MaxInFlight),
		timeout: c.CallTimeout, maxBytes: c.MaxMessageBytes}
	g.callers = identity.NewAuthenticator(c.Service.VerifyToken, c.Clock)
	g.draining, g.drain = context.WithCancel(context.Background())
	return g
}

// full refuses early what admit would refuse later.
func (g *gate) full() error {
	if g.calls.Load() < g.limit {
		return nil
	}
	return g.overloaded()
}

// admit takes a place among the calls in flight; leave gives it back. Places
// are held while the core works, not while a client sends or reads.
func (g *gate) admit() error {
	if g.calls.Add(1) <= g.limit {
		return nil
	}
	g.calls.Add(-1)
	return g.overloaded()
}

func (g *gate) leave() { g.calls.Add(-1) }

func (g *gate) overloaded() error {
	g.metrics.rejected.Inc()
	return &kms.Error{Code: kms.ResourceExhausted, Reason: "OVERLOADED",
		Message: fmt.Sprintf("the server is working on %d calls, its limit; try again a little later", g.limit)}
}

// authenticate tells who makes a request. Failures are counted and told to the
// core, which sums them up in the audit log.
func (g *gate) authenticate(a arrival) (*policy.Caller, error) {
	if a.caller != nil {
		return a.caller, g.callers.Current(a.caller)
	}
	caller, err := g.callers.Authenticate(a.connection, a.authorization)
	if err != nil {
		reason := asError(err).Reason
		g.denied(a.connection.Source, reason)
		return nil, err
	}
	return caller, nil
}

// denied is told of credentials that were refused, in handshakes too.
func (g *gate) denied(source netip.Addr, reason string) {
	g.metrics.authFailures.WithLabelValues(reason).Inc()
	g.service.RecordDenied(source, reason)
}

// bound gives ctx the default deadline if it has none; release must be called.
func (g *gate) bound(ctx context.Context) context.Context {
	if _, has := ctx.Deadline(); has {
		return ctx
	}
	return newBounded(ctx, g.timeout)
}

// conclude turns what became of a call into the error its caller gets, and logs
// failures. thrown is what was recovered from a panic, nil if there was none.
// The result is nil or a *kms.Error.
func (g *gate) conclude(ctx context.Context, a arrival, method string, thrown any, err error) error {
	if thrown != nil {
		err = internalError(g.panicked(method, thrown))
	}
	if err == nil {
		return nil
	}
	e := asError(err)
	g.log(ctx, a, method, e)
	return e
}

// panicked logs a panic. Its value may hold a request's data, so only its type
// is shown, unless it is the runtime's own.
func (g *gate) panicked(method string, thrown any) error {
	cause := fmt.Errorf("panic of type %T", thrown)
	var own runtime.Error
	if err, ok := thrown.(error); ok && errors.As(err, &own) {
		cause = own
	}
	g.metrics.panics.Inc()
	g.logger.Error("panic", "method", method, "cause", cause, "stack", string(debug.Stack()))
	return cause
}

// log notes a failed call: the server's own failures as errors, the others for
// whoever looks, because a caller can make as many of them as it likes.
func (g *gate) log(ctx context.Context, a arrival, method string, e *kms.Error) {
	level := slog.LevelDebug
	if e.Code == kms.Internal || e.Code == kms.Unavailable || e.Code == kms.DataLoss {
		level = slog.LevelError
	}
	if !g.logger.Enabled(ctx, level) {
		return
	}
	attributes := []slog.Attr{slog.String("method", method), slog.String("request_id", a.requestID),
		slog.String("code", string(e.Code)), slog.String("reason", e.Reason), slog.String("message", e.Message),
		slog.String("source", a.connection.Source.String())}
	if e.Cause != nil {
		attributes = append(attributes, slog.String("cause", e.Cause.Error()))
	}
	g.logger.LogAttrs(ctx, level, "call failed", attributes...)
}

func tooLarge(limit int) *kms.Error {
	return &kms.Error{Code: kms.InvalidArgument, Reason: reasonTooLarge,
		Message: fmt.Sprintf("the request is larger than %d bytes, this server's limit; send less, or encrypt large data under a data key", limit)}
}

// errDraining ends what is open when the server stops.
func errDraining() *kms.Error {
	return &kms.Error{Code: kms.Unavailable, Reason: "DRAINING", Message: "the server is shutting down; connect again"}
}
