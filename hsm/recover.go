package hsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keywright/keywright/hsm/internal/wait"
)

// connected returns a connection that may be used, replacing one in doubt.
func (d *Device) connected(ctx context.Context) (*connection, error) {
	if err := d.health.stopped(); err != nil {
		return nil, err
	}
	doubtful := d.conn.Load()
	if doubtful.live() {
		return doubtful, nil
	}
	if err := d.mayRecover(); err != nil {
		return nil, err
	}
	c, err := wait.For(ctx, func() (*connection, error) { return d.restore(ctx, doubtful) })
	if ctx.Err() != nil && err != nil {
		err = fault(ClassDevice, fmt.Errorf("while the token is brought back: %w", err))
	}
	return c, err
}

// restore gives the connection in doubt a successor, one goroutine at a time. Once
// begun, it does not end with the caller's context.
func (d *Device) restore(ctx context.Context, doubtful *connection) (*connection, error) {
	if err := d.recovering.Acquire(ctx); err != nil {
		return nil, err
	}
	defer d.recovering.Release()
	if c := d.conn.Load(); c != doubtful || c.live() {
		return c, nil // somebody else was faster
	}
	if err := d.mayRecover(); err != nil {
		return nil, err
	}
	ctx, cancel := wait.Detached(ctx, d.config.Timeout)
	defer cancel()
	c, err := d.replacement(ctx, doubtful)
	if err != nil {
		return nil, d.gaveUp(err)
	}
	d.health.good() // as the canary or a new login tells
	if c != doubtful {
		d.conn.Store(c)
		doubtful.Retire()
		d.config.Logger.Info("HSM connection restored", d.attrs(slog.Uint64("generation", c.Generation))...)
	}
	return c, nil
}

// mayRecover returns an error while the circuit is open, or once the PIN was refused:
// whoever waited for a turn until then must not try it again. A refusal is known
// before its recovery opens the circuit (gaveUp), so it is asked for last.
func (d *Device) mayRecover() error {
	paused := d.backoff.open()
	if refused := d.health.stopped(); refused != nil {
		return refused
	}
	if paused != nil {
		return fault(ClassDevice, paused)
	}
	return nil
}

// replacement tries the mildest remedy first: a canary on the old connection, a
// new login, a new generation of the module.
func (d *Device) replacement(ctx context.Context, c *connection) (*connection, error) {
	seen := d.module.Current()
	doubt := c.doubt.Load()
	if doubt == suspect && seen == c.Generation && d.canary(c) == nil {
		c.doubt.Store(trusted)
		return c, nil
	}
	if doubt != suspect || seen != c.Generation {
		next, err := d.connect(d.token.Label, d.token.Serial)
		if err == nil || classify("", err).Class == ClassPIN {
			return next, err
		}
	}
	d.backoff.begin()
	if err := d.module.Reinitialise(ctx, seen); err != nil {
		return nil, err
	}
	return d.connect(d.token.Label, d.token.Serial)
}

// gaveUp records a failed recovery. Whatever the reason, to the caller the token is
// away; only a refused PIN is more than that.
func (d *Device) gaveUp(err error) error {
	e := classify("recover", err)
	if e.Class != ClassPIN {
		e.Class = ClassDevice
	}
	d.health.bad(e) // here, because the caller may have left
	d.backoff.failed(e)
	d.config.Logger.Warn("HSM recovery failed", d.attrs(slog.String("class", e.Class.String()), slog.Any("error", e))...)
	return e
}

func (d *Device) attrs(more ...slog.Attr) []any {
	all := []any{slog.String("token", d.token.Label), slog.String("serial", d.token.Serial)}
	for _, a := range more {
		all = append(all, a)
	}
	return all
}

// canary tries a known root on a connection in doubt. Without one there is no
// saying whether the token is well.
func (d *Device) canary(c *connection) error {
	if len(d.knownRoots()) == 0 {
		return errors.New("no root key known")
	}
	return c.Within(func() error { return d.checkRoots(c) })
}

// Bounds of the pause between two initialisations of the module.
const (
	minBackoff  = 100 * time.Millisecond
	maxBackoff  = 5 * time.Second
	calmBackoff = time.Minute // without an initialisation: the pause starts small again
)

// backoff is the circuit breaker: between two attempts to initialise the module
// anew, calls that need one fail at once. The zero value is closed. Safe for
// concurrent use.
type backoff struct {
	mu    sync.Mutex
	pause time.Duration
	begun time.Time
	until time.Time
	cause error
}

// open returns an error while the circuit is open.
func (b *backoff) open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !time.Now().Before(b.until) {
		return nil
	}
	if b.cause == nil {
		return fmt.Errorf("the module was initialised a moment ago, next attempt at %s", b.until.Format(time.RFC3339Nano))
	}
	return b.cause
}

// begin opens the circuit for a pause that doubles, give or take a quarter, so that
// several processes do not fall into step.
func (b *backoff) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.begun) > calmBackoff {
		b.pause = 0
	}
	b.pause = min(max(2*b.pause, minBackoff), maxBackoff)
	b.begun = now
	b.until = now.Add(b.pause*3/4 + rand.N(b.pause/2))
	b.cause = nil
}

// failed keeps the reason for callers, and the circuit open for a pause from now.
func (b *backoff) failed(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cause = cause
	b.until = time.Now().Add(max(b.pause, minBackoff))
}
