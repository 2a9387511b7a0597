package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/server/internal/identity"
)

// Options is what a Gate stands on; all but Logger and Clock are required.
type Options struct {
	Service     *kms.Service
	Metrics     *Metrics
	Logger      *slog.Logger
	Clock       func() time.Time
	MaxInFlight int           // calls, and as many streams
	CallTimeout time.Duration // of calls whose client sets no deadline
	MaxFailures int           // refused credentials from one source in a minute; 0 is no limit
	StreamAge   time.Duration // of the connection, at which its streams end; 0 is for ever
}

// noFailures are the reasons for which no credentials were looked at, or genuine
// ones that have ended: who goes on with those must not hold up its neighbours.
var noFailures = []string{"NO_CREDENTIALS", "UNKNOWN_PEER", identity.ReasonTooManyFailures, "TOKEN_EXPIRED", "TOKEN_REVOKED", "CERTIFICATE_EXPIRED"}

// Gate is what every request passes, whichever way it came.
type Gate struct {
	service *kms.Service
	callers *identity.Authenticator
	metrics *Metrics
	logger  *slog.Logger
	limit   int64 // of calls, and of streams
	timeout time.Duration
	age     time.Duration // of connections, at which their streams end

	calls, streams atomic.Int64 // in flight

	draining context.Context // ends when the server drains
	drain    context.CancelFunc
}

// New returns an open gate and registers its figures with the metrics.
func New(o Options) (*Gate, error) {
	g := &Gate{service: o.Service, metrics: o.Metrics, logger: o.Logger, limit: int64(o.MaxInFlight), timeout: o.CallTimeout, age: o.StreamAge}
	g.callers = identity.NewAuthenticator(o.Service, o.Clock, o.MaxFailures)
	g.draining, g.drain = context.WithCancel(context.Background())
	if err := o.Metrics.registry.Register(newCollector(g)); err != nil {
		return nil, fmt.Errorf("these metrics already belong to a server: %w", err)
	}
	return g, nil
}

// Drain ends streams and makes Draining true; calls go on being served.
func (g *Gate) Drain() { g.drain() }

// Draining tells whether Drain was called.
func (g *Gate) Draining() bool { return g.draining.Err() != nil }

// InFlight returns how many calls and streams are in flight.
func (g *Gate) InFlight() (calls, streams int64) { return g.calls.Load(), g.streams.Load() }

// full refuses early what admit would refuse later.
func (g *Gate) full() error {
	if g.calls.Load() < g.limit {
		return nil
	}
	return g.overloaded()
}

// admit takes a place among the calls in flight; leave gives it back. Places
// are held while the core works, not while a client sends or reads.
func (g *Gate) admit() error {
	if g.calls.Add(1) <= g.limit {
		return nil
	}
	g.calls.Add(-1)
	return g.overloaded()
}

func (g *Gate) leave() { g.calls.Add(-1) }

func (g *Gate) overloaded() error {
	g.metrics.rejected.Inc()
	return &kms.Error{Code: kms.ResourceExhausted, Reason: "OVERLOADED",
		Message: fmt.Sprintf("the server is working on %d calls, its limit; try again a little later", g.limit)}
}

// Authenticate tells who makes a request, also one on a stream that was
// authenticated before. Failures are counted and told to the core, which sums them
// up in the audit log.
func (g *Gate) Authenticate(a Arrival) (*policy.Caller, error) {
	caller, err := g.callers.Authenticate(a.Connection, a.Authorization)
	if err == nil {
		return caller, nil
	}
	if e := AsError(err); e.Code == kms.Unauthenticated || e.Reason == identity.ReasonTooManyFailures {
		g.Denied(a.Connection, e.Reason)
	}
	return nil, err
}

// Denied is told of credentials that were missing or refused, in handshakes too.
// Only what is not genuine counts as a failure.
func (g *Gate) Denied(c *identity.Connection, reason string) {
	g.metrics.authFailures.WithLabelValues(reason).Inc()
	g.service.RecordDenied(c.Source, reason)
	if !slices.Contains(noFailures, reason) {
		g.callers.Failed(c)
	}
}

// bound gives ctx the default deadline if it has none; release must be called.
func (g *Gate) bound(ctx context.Context) context.Context {
	if _, has := ctx.Deadline(); has {
		return ctx
	}
	return newBounded(ctx, g.timeout)
}

// conclude turns what became of a call into the error its caller gets, and logs
// failures. thrown is what was recovered from a panic, nil if there was none.
// The result is nil or a *kms.Error.
func (g *Gate) conclude(ctx context.Context, a Arrival, method string, thrown any, err error) error {
	if thrown != nil {
		err = InternalError(g.Panicked(method, thrown))
	}
	if err == nil {
		return nil
	}
	e := AsError(err)
	g.log(ctx, a, method, e)
	return e
}

// Panicked logs a panic. Its value may hold a request's data, so only its type
// is shown, unless it is the runtime's own.
func (g *Gate) Panicked(method string, thrown any) error {
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
func (g *Gate) log(ctx context.Context, a Arrival, method string, e *kms.Error) {
	level := slog.LevelDebug
	if e.Code == kms.Internal || e.Code == kms.Unavailable || e.Code == kms.DataLoss {
		level = slog.LevelError
	}
	if !g.logger.Enabled(ctx, level) {
		return
	}
	attributes := []slog.Attr{slog.String("method", method), slog.String("request_id", a.RequestID),
		slog.String("code", string(e.Code)), slog.String("reason", e.Reason), slog.String("message", e.Message),
		slog.String("source", a.Connection.Source.String())}
	if e.Cause != nil {
		attributes = append(attributes, slog.String("cause", e.Cause.Error()))
	}
	g.logger.LogAttrs(ctx, level, "call failed", attributes...)
}

// TooLarge is the error for a request over the size limit, in bytes.
func TooLarge(limit int) *kms.Error {
	return &kms.Error{Code: kms.InvalidArgument, Reason: ReasonTooLarge,
		Message: fmt.Sprintf("the request is larger than %d bytes, this server's limit; send less, or encrypt large data under a data key", limit)}
}

// ReasonAged is the reason of the error that ends the streams of an old connection.
const ReasonAged = "CONNECTION_AGED"

// errAged ends streams on a connection that has been used for long enough.
func errAged() *kms.Error {
	return &kms.Error{Code: kms.Unavailable, Reason: ReasonAged, Message: "the connection has reached the age that limits.connection_age sets; open the stream again, on a new one"}
}

// errDraining ends what is open when the server stops.
func errDraining() *kms.Error {
	return &kms.Error{Code: kms.Unavailable, Reason: "DRAINING", Message: "the server is shutting down; connect again"}
}
