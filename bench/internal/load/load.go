// Package load makes calls to a server, over gRPC or REST or as Vault's transit engine
// is called, and takes the time of each.
//
// A Pool holds the connections and the callers; callers reuse their buffers and
// connections, so that as much as possible of the machine is left to the server.
// A Caller belongs to one goroutine at a time; Run gives each its own.
package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/bench/internal/stat"
)

// grace is how long the last calls may take after the time is up.
const grace = 10 * time.Second

// Caller sends the same request again and again.
type Caller interface {
	// Call sends it once and returns when the answer has been read. An error is
	// one line, and wraps ErrOverload where the server refused for want of room.
	Call(ctx context.Context) error
}

// Plan says how long and how fast to call.
type Plan struct {
	Duration time.Duration
	// Rate is the number of calls a second that all callers together begin,
	// whether or not the earlier ones are answered (open loop); latency then
	// counts from the moment a call was due, so that a stalled server is not
	// flattered by the calls it kept from being sent. 0 is a closed loop: each
	// caller sends its next call when the last is answered.
	Rate float64
	// Tolerate tells which errors are counted as refusals. Any other ends the
	// run, as all do where it is nil.
	Tolerate func(error) bool
}

// Result is what a run has seen.
type Result struct {
	Refused uint64 // calls whose error was tolerated
	Elapsed time.Duration
	Latency stat.Histogram // of the calls that were answered
}

// Rate is the number of calls answered per second.
func (r *Result) Rate() float64 { return float64(r.Latency.Count()) / r.Elapsed.Seconds() }

// Run lets all callers call at the same time. It returns the first error that is
// not tolerated, with what was seen until then.
func Run(ctx context.Context, callers []Caller, p Plan) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hung := time.AfterFunc(p.Duration+grace, func() {
		cancel(fmt.Errorf("a call was still not answered %s after the time was up", grace))
	})
	defer hung.Stop()
	s := &schedule{Plan: p, start: time.Now()}
	parts := make([]Result, len(callers))
	var running sync.WaitGroup
	for i, c := range callers {
		running.Go(func() {
			if err := s.drive(ctx, c, &parts[i]); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	total := Result{Elapsed: time.Since(s.start)}
	for i := range parts {
		total.Refused += parts[i].Refused
		total.Latency.Add(&parts[i].Latency)
	}
	return total, context.Cause(ctx)
}

// schedule says when the next call begins.
type schedule struct {
	Plan
	start time.Time
	due   atomic.Int64 // calls that were given to a caller, in an open loop
}

func (s *schedule) drive(ctx context.Context, c Caller, r *Result) error {
	for {
		start, ok := s.next(ctx)
		if !ok {
			return nil
		}
		switch err := c.Call(ctx); {
		case err == nil:
			r.Latency.Record(time.Since(start))
		case s.Tolerate != nil && s.Tolerate(err):
			r.Refused++
		default:
			return err
		}
	}
}

// next waits until a call is due and returns that moment; false at the end.
func (s *schedule) next(ctx context.Context) (time.Time, bool) {
	now := time.Now()
	if s.Rate <= 0 {
		return now, now.Sub(s.start) < s.Duration && ctx.Err() == nil
	}
	after := time.Duration(float64(s.due.Add(1)-1) / s.Rate * float64(time.Second))
	due := s.start.Add(after)
	return due, after < s.Duration && sleep(ctx, due.Sub(now))
}

// sleep waits and tells whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
