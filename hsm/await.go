package hsm

import (
	"context"
	"errors"
	"time"
)

// errStuck is the cause when a call outlasted the configured timeout, as opposed
// to the caller's own deadline.
var errStuck = errors.New("no answer within the configured timeout")

// await runs fn in a goroutine of its own and waits for it no longer than ctx
// allows. What outlasts ctx goes on by itself, its result is dropped: fn must own
// all that it touches.
func await[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := fn()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// bounded limits ctx to the timeout, with errStuck as the cause when that ends it.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, errStuck)
}

// detached is bounded, but outlives the caller: work done for all is not given up
// because one of them left.
func detached(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return bounded(context.WithoutCancel(ctx), timeout)
}

// semaphore is a counting semaphore whose waits end with a context.
type semaphore chan struct{}

func newSemaphore(n int) semaphore { return make(semaphore, n) }

func (s semaphore) acquire(ctx context.Context) error {
	select {
	case s <- struct{}{}:
		return nil
	default:
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s semaphore) release() { <-s }
