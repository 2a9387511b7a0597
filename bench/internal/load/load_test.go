package load

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// callerFunc is a caller without a server.
type callerFunc func(ctx context.Context) error

func (f callerFunc) Call(ctx context.Context) error { return f(ctx) }

func TestRunCountsEveryCall(t *testing.T) {
	var made atomic.Uint64
	one := callerFunc(func(context.Context) error {
		made.Add(1)
		time.Sleep(time.Millisecond)
		return nil
	})
	r, err := Run(t.Context(), []Caller{one, one, one}, Plan{Duration: 100 * time.Millisecond})
	if err != nil || r.Latency.Count() != made.Load() || made.Load() < 3 {
		t.Fatalf("counted %d of %d calls, %v", r.Latency.Count(), made.Load(), err)
	}
	if r.Elapsed < 100*time.Millisecond || r.Latency.Quantile(0) < 900*time.Microsecond {
		t.Errorf("elapsed %v, fastest %v", r.Elapsed, r.Latency.Quantile(0))
	}
}

func TestOpenLoopKeepsItsRate(t *testing.T) {
	quick := callerFunc(func(context.Context) error { return nil })
	r, err := Run(t.Context(), []Caller{quick, quick}, Plan{Duration: 200 * time.Millisecond, Rate: 500})
	if err != nil || r.Latency.Count() != 100 {
		t.Fatalf("made %d calls at 500/s in 0.2 s, %v", r.Latency.Count(), err)
	}
}

func TestOpenLoopCountsWaitingAsLatency(t *testing.T) {
	first := true
	stalls := callerFunc(func(context.Context) error {
		if first {
			time.Sleep(100 * time.Millisecond)
		}
		first = false
		return nil
	})
	r, err := Run(t.Context(), []Caller{stalls}, Plan{Duration: 100 * time.Millisecond, Rate: 1000})
	if err != nil || r.Latency.Count() != 100 {
		t.Fatalf("made %d calls, %v", r.Latency.Count(), err)
	}
	if half := r.Latency.Quantile(0.5); half < 40*time.Millisecond {
		t.Errorf("half of the calls waited 50 ms and more to be sent; the median is told as %v", half)
	}
}

func TestErrorsEndTheRun(t *testing.T) {
	broken, busy := errors.New("broken"), errors.New("busy")
	fails := callerFunc(func(context.Context) error { return broken })
	waits := callerFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	if _, err := Run(t.Context(), []Caller{waits, fails}, Plan{Duration: time.Hour}); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error that came first", err)
	}
	refused := callerFunc(func(context.Context) error { return busy })
	r, err := Run(t.Context(), []Caller{refused}, Plan{Duration: 10 * time.Millisecond, Tolerate: func(err error) bool { return errors.Is(err, busy) }})
	if err != nil || r.Refused == 0 || r.Latency.Count() != 0 {
		t.Errorf("%d refused, %d answered, %v", r.Refused, r.Latency.Count(), err)
	}
}

func TestCancelEndsTheRun(t *testing.T) {
	for name, plan := range map[string]Plan{"closed": {Duration: time.Hour}, "open": {Duration: time.Hour, Rate: 0.001}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			idle := callerFunc(func(context.Context) error { time.Sleep(time.Millisecond); return nil })
			if _, err := Run(ctx, []Caller{idle, idle}, plan); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}
