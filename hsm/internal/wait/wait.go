// Package wait bounds what may take long: a call that cannot be interrupted, and a
// place in a queue. It keeps no state of its own but the clock of a Patience;
// everything in it is safe for concurrent use.
package wait

import (
	"context"
	"errors"
	"time"
)

// ErrStuck is the cause when a call outlasted the configured timeout, as opposed
// to the caller's own deadline.
var ErrStuck = errors.New("no answer within the configured timeout")

// For runs fn in a goroutine of its own and waits for it no longer than ctx
// allows. What outlasts ctx goes on by itself, its result is dropped: fn must own
// all that it touches. The error is fn's or else the context's cause.
func For[T any](ctx context.Context, fn func() (T, error)) (T, error) {
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

// Bounded limits ctx to the timeout, with ErrStuck as the cause when that ends it.
func Bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, ErrStuck)
}

// Detached is Bounded, but outlives the caller: work done for all is not given up
// because one of them left.
func Detached(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return Bounded(context.WithoutCancel(ctx), timeout)
}

// Semaphore is a counting semaphore whose waits end with a context. Its len is the
// number of places taken, its cap that of all places.
type Semaphore chan struct{}

// NewSemaphore makes a semaphore of n free places.
func NewSemaphore(n int) Semaphore { return make(Semaphore, n) }

// Acquire takes a place, or returns the cause of the end of ctx. A free place is
// taken even if ctx has ended.
func (s Semaphore) Acquire(ctx context.Context) error {
	if s.Try() {
		return nil
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Try takes a place if one is free.
func (s Semaphore) Try() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// Release gives a place back.
func (s Semaphore) Release() { <-s }
