package api

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// busy is a crew whose jobs are counted, and take as long as they say.
func busy(ctx context.Context, most int) (c *crew[time.Duration], done, atOnce, highest *atomic.Int64) {
	done, atOnce, highest = new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)
	c = newCrew(ctx, most, func(first time.Duration, more func() (time.Duration, bool)) (n int, took time.Duration) {
		began := time.Now()
		if now := atOnce.Add(1); now > highest.Load() {
			highest.Store(now)
		}
		for pause, waits := first, true; waits; pause, waits = more() {
			time.Sleep(pause)
			done.Add(1)
			n++
		}
		atOnce.Add(-1)
		return n, time.Since(began)
	})
	return c, done, atOnce, highest
}

func TestCrewDoesEveryJobOnce(t *testing.T) {
	for _, pause := range []time.Duration{0, 3 * time.Millisecond} {
		c, done, _, _ := busy(t.Context(), 64)
		const jobs = 64
		for range jobs {
			c.give(pause)
		}
		c.finish()
		c.wait()
		if n := done.Load(); n != jobs || c.size != 0 {
			t.Errorf("%d jobs of %v done, want %d; %d members left", n, pause, jobs, c.size)
		}
	}
}

// Jobs that wait do so side by side, though nobody knew beforehand, and also where no
// more are given.
func TestCrewGrowsForSlowJobs(t *testing.T) {
	c, _, _, highest := busy(t.Context(), 64)
	for range 64 {
		c.give(500 * time.Millisecond)
	}
	c.finish()
	c.wait()
	if n := highest.Load(); n < 32 {
		t.Errorf("%d at once, want many of 64", n)
	}
}

func TestCrewShrinksForQuickJobs(t *testing.T) {
	c, done, _, _ := busy(t.Context(), 64)
	for range 64 {
		c.give(20 * time.Millisecond)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if done.Load() >= 64 {
			c.give(0)
		}
		c.mu.Lock()
		size := c.size
		c.mu.Unlock()
		if done.Load() > 64 && size <= min(few, runtime.GOMAXPROCS(0)) {
			c.finish()
			c.wait()
			return
		}
	}
	t.Error("the crew stayed large")
}

// One job that hangs does not hold up those that wait.
func TestCrewPassesByWhatHangs(t *testing.T) {
	c, done, _, _ := busy(t.Context(), 64)
	for range 2 * runtime.GOMAXPROCS(0) {
		c.give(5 * time.Second)
	}
	for range 10 {
		c.give(0)
	}
	for began := time.Now(); done.Load() < 10; time.Sleep(time.Millisecond) {
		if time.Since(began) > 4*time.Second {
			t.Fatalf("%d of 10 jobs done beside those that hang", done.Load())
		}
	}
	c.finish()
	c.wait()
}

func TestCrewEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, done, _, _ := busy(ctx, 64)
	for range 64 {
		c.give(10 * time.Millisecond)
	}
	cancel()
	c.wait()
	if n := done.Load(); n > 64 {
		t.Errorf("%d jobs done", n)
	}
}
