package api

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// quick is how long a job takes, on average, that waits for nothing.
	quick = 100 * time.Microsecond
	// few is how many members quick jobs have at most: who reads a stream keeps no more
	// of them busy.
	few = 4
	// stall is how long jobs wait for members that begin none before more are taken in.
	stall = time.Millisecond
)

// crew is goroutines that do the jobs of one stream. As long as jobs are quick there
// are few members, no more than processors, and each does what waits in one go: to wake a
// goroutine for a job costs as much as the job. When jobs turn out to wait for
// something, a device or a disk, the crew grows, so that they wait side by side.
//
// All methods are safe for concurrent use, but give and finish, which are for one
// goroutine.
type crew[T any] struct {
	ctx  context.Context // ends the crew at once, with jobs undone
	most int             // members; and jobs that are given and not done, which the giver sees to
	jobs chan T
	do   work[T]

	slow  atomic.Bool   // jobs wait for something
	begun atomic.Uint64 // jobs
	idle  atomic.Int32  // members that wait for a job

	mu      sync.Mutex // guards the following
	size    int
	ending  bool // who was the last member stays so
	ended   bool
	members sync.WaitGroup

	watching atomic.Bool
	watch    *time.Timer
	seen     uint64 // what begun was at the last look
}

// work does a job, and more of those that wait; it tells how many it did and how long
// that took.
type work[T any] func(first T, more func() (T, bool)) (n int, took time.Duration)

func newCrew[T any](ctx context.Context, most int, do work[T]) *crew[T] {
	c := &crew[T]{ctx: ctx, most: most, jobs: make(chan T, most), do: do}
	c.watch = time.AfterFunc(time.Hour, c.look)
	return c
}

// give hands over a job. It does not wait.
func (c *crew[T]) give(job T) {
	c.jobs <- job
	if c.idle.Load() == 0 {
		c.grow()
	}
	if c.watching.CompareAndSwap(false, true) {
		c.watch.Reset(stall)
	}
}

// finish says that there are no more jobs.
func (c *crew[T]) finish() { close(c.jobs) }

// wait returns when the jobs are done, or undone because ctx ended.
func (c *crew[T]) wait() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.members.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.watch.Stop()
}

// grow takes in a member, unless there are enough.
func (c *crew[T]) grow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size < c.enough() && (c.size > 0 || !c.ending) {
		c.size++
		c.members.Go(c.serve)
	}
}

func (c *crew[T]) enough() int {
	if c.slow.Load() {
		return c.most
	}
	return min(c.most, few, runtime.GOMAXPROCS(0))
}

// leave tells whether a member may leave: always when it must, otherwise when there are
// more than enough because jobs are quick again.
func (c *crew[T]) leave(must bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !must && c.size <= c.enough() {
		return false
	}
	c.size--
	return true
}

// look takes in members for all jobs that wait, if none was begun since the last look.
func (c *crew[T]) look() {
	waiting := len(c.jobs)
	if waiting == 0 {
		c.watching.Store(false)
		// A job that was given meanwhile was not seen, and its giver saw the watch.
		if len(c.jobs) == 0 || !c.watching.CompareAndSwap(false, true) {
			return
		}
	}
	if begun := c.begun.Load(); begun != c.seen {
		c.seen = begun
	} else {
		c.slow.Store(true)
		for range waiting {
			c.grow()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.watch.Reset(stall)
	}
}

func (c *crew[T]) serve() {
	for more := true; !c.leave(!more); {
		var job T
		if job, more = c.next(); more {
			n, took := c.do(job, c.more)
			c.slow.Store(took > quick*time.Duration(n))
		}
	}
}

// next waits for a job; false means that there are no more.
func (c *crew[T]) next() (job T, more bool) {
	if job, more = c.more(); more {
		return job, true
	}
	c.idle.Add(1)
	defer c.idle.Add(-1)
	select {
	case <-c.ctx.Done():
	case job, more = <-c.jobs:
		c.begun.Add(1)
	}
	return job, more
}

// more returns a job that waits, if there is one and jobs are quick.
func (c *crew[T]) more() (job T, waited bool) {
	if c.slow.Load() {
		return job, false
	}
	select {
	case job, waited = <-c.jobs:
		c.begun.Add(1)
	default:
	}
	return job, waited
}
