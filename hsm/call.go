package hsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/hsm/internal/wait"
)

// call runs fn on a session of the token, and reacts to what goes wrong as the
// table says. fn runs in another goroutine and may outlast the call: it must own
// what it reads and return what it makes.
func call[T any](ctx context.Context, d *Device, op string, fn func(*session) (T, error)) (T, error) {
	return callWithin(ctx, d, d.config.Timeout, op, fn)
}

// callWithin is call with a timeout of its own, for what takes long.
func callWithin[T any](ctx context.Context, d *Device, timeout time.Duration, op string, fn func(*session) (T, error)) (T, error) {
	t := trial{device: d, until: time.Now().Add(timeout)}
	for {
		value, c, err := attempt(ctx, d, timeout, fn)
		if err == nil {
			d.health.good()
			return value, nil
		}
		e := classify(op, err)
		d.health.bad(e)
		if c == nil || !t.again(ctx, c, e) {
			var none T
			return none, e
		}
	}
}

// attempt runs fn once, on the connection that it returns. The connection is nil
// if none could be had, or the pool was exhausted: then no reaction would help.
func attempt[T any](ctx context.Context, d *Device, timeout time.Duration, fn func(*session) (T, error)) (value T, used *connection, err error) {
	if ctx.Err() != nil {
		return value, nil, context.Cause(ctx)
	}
	c, err := d.admit(ctx)
	if err != nil {
		return value, nil, err
	}
	run := func(left *wait.Left) (T, error) {
		defer d.pool.Release()
		return onSession(left, c, fn)
	}
	if timeout == d.config.Timeout {
		value, err = wait.Patiently(ctx, d.patience, run)
	} else {
		value, err = wait.Within(ctx, timeout, run)
	}
	return value, c, abandoned(err)
}

// admit takes a place in the pool, and a connection.
func (d *Device) admit(ctx context.Context) (*connection, error) {
	if d.pool.Try() { // most often, and then no timer is needed
		if c := d.conn.Load(); d.health.stopped() == nil && !d.closed() && c.live() {
			return c, nil
		}
		d.pool.Release()
	}
	ctx, cancel := wait.Bounded(ctx, d.config.Timeout)
	defer cancel()
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	c, err := d.connected(ctx)
	if err != nil {
		d.pool.Release()
		return nil, err
	}
	return c, nil
}

// abandoned turns silence for the whole timeout into the device's fault; an earlier
// end is the caller's own.
func abandoned(err error) error {
	if errors.Is(err, wait.ErrStuck) {
		return fault(ClassDevice, err)
	}
	return err
}

// closed tells whether Close was called.
func (d *Device) closed() bool {
	select {
	case <-d.closing:
		return true
	default:
		return false
	}
}

// enter takes a place in the pool.
func (d *Device) enter(ctx context.Context) error {
	if d.closed() {
		return ErrClosed
	}
	if err := d.pool.Acquire(ctx); err != nil {
		return fault(ClassExhausted, fmt.Errorf("no session became free: %w", err))
	}
	if d.closed() {
		d.pool.Release()
		return ErrClosed
	}
	return nil
}

// onSession runs fn on a pooled session. The session is kept unless it failed at
// the device, or nobody waits for its answer any more.
func onSession[T any](left *wait.Left, c *connection, fn func(*session) (T, error)) (value T, err error) {
	err = c.Within(func() error {
		s, err := c.Take()
		if err != nil {
			return err
		}
		value, err = fn(&session{s, c.hsmIV})
		if !left.Gone() && (err == nil || classify("", err).Class == ClassCaller) {
			s.Put()
		} else {
			s.Close()
		}
		return err
	})
	return value, err
}

// trial is one call with its retries.
type trial struct {
	device *Device
	until  time.Time // for what is waited for
	tried  [classes]bool
}

// again reacts to an error and tells whether to try once more.
func (t *trial) again(ctx context.Context, c *connection, e *Error) bool {
	react := reactions[e.Class]
	if react == nil || ctx.Err() != nil {
		return false
	}
	if e.Class != ClassExhausted && t.tried[e.Class] {
		return false
	}
	t.tried[e.Class] = true
	return react(ctx, t, c, e)
}

// reactions holds the one reaction to each class of error; a class without one is
// not tried again. Each tells whether to.
var reactions = [classes]func(context.Context, *trial, *connection, *Error) bool{
	ClassSession: func(context.Context, *trial, *connection, *Error) bool {
		return true // onSession closed it
	},
	ClassHandle: func(_ context.Context, _ *trial, c *connection, _ *Error) bool {
		c.Forget()
		return true
	},
	ClassLogin: func(_ context.Context, _ *trial, c *connection, _ *Error) bool {
		c.doubt.CompareAndSwap(trusted, loggedOut)
		return true
	},
	ClassDevice: func(_ context.Context, _ *trial, c *connection, e *Error) bool {
		c.doubt.Store(suspect)
		return !errors.Is(e, wait.ErrStuck) // the caller has waited long enough
	},
	ClassExhausted: func(ctx context.Context, t *trial, _ *connection, _ *Error) bool {
		const pause = 20 * time.Millisecond
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
			return time.Now().Before(t.until)
		}
	},
}
