package wait

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Patience bounds many short calls by one timeout without a timer for each, which
// would cost more than the calls do. A call that outlasts the timeout is given up
// after at most a quarter more. The goroutines that run the calls are kept for the
// next ones, because a new stack that grows in each call costs as much as the timer
// would; with every quarter one of the idle ones ends. Safe for concurrent use.
type Patience struct {
	current atomic.Pointer[chan struct{}]
	calls   chan func() // to goroutines that are idle; nil ends one
	stop    chan struct{}
	once    sync.Once
}

// quarters is into how many parts the timeout is divided.
const quarters = 4

// NewPatience starts the clock, which Stop ends.
func NewPatience(timeout time.Duration) *Patience {
	p := &Patience{calls: make(chan func()), stop: make(chan struct{})}
	p.begin()
	go p.run(max(timeout/quarters, time.Millisecond))
	return p
}

// begin makes the end that calls get which start from now on.
func (p *Patience) begin() chan struct{} {
	end := make(chan struct{})
	p.current.Store(&end)
	return end
}

// run closes each end a timeout after no call gets it any more.
func (p *Patience) run(quarter time.Duration) {
	tick := time.NewTicker(quarter)
	defer tick.Stop()
	ends := []chan struct{}{*p.current.Load()}
	for {
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
		select {
		case p.calls <- nil:
		default:
		}
		ends = append(ends, p.begin())
		if len(ends) > quarters+1 {
			close(ends[0])
			ends = ends[1:]
		}
	}
}

// Stop ends the clock, and the goroutines once they are idle. Calls that are under way
// are no longer bounded.
func (p *Patience) Stop() { p.once.Do(func() { close(p.stop) }) }

// Left tells a call whether its caller has gone.
type Left struct{ flag atomic.Bool }

// Gone tells it.
func (l *Left) Gone() bool { return l.flag.Load() }

// Patiently is For, bounded by p as well, whose end comes as ErrStuck. fn can ask
// whether anybody waits for it still.
func Patiently[T any](ctx context.Context, p *Patience, fn func(*Left) (T, error)) (T, error) {
	return attended(ctx, *p.current.Load(), p.start, fn)
}

// start runs a call in an idle goroutine, or else in a new one.
func (p *Patience) start(call func()) {
	select {
	case p.calls <- call:
	default:
		go p.attend(call)
	}
}

func (p *Patience) attend(call func()) {
	for call != nil {
		call()
		select {
		case call = <-p.calls:
		case <-p.stop:
			return
		}
	}
}

// Within is Patiently for one long call, with a timer of its own.
func Within[T any](ctx context.Context, timeout time.Duration, fn func(*Left) (T, error)) (T, error) {
	ctx, cancel := Bounded(ctx, timeout)
	defer cancel()
	return attended(ctx, nil, func(call func()) { go call() }, fn)
}

func attended[T any](ctx context.Context, end <-chan struct{}, start func(func()), fn func(*Left) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	call := &struct {
		Left
		done chan result
	}{done: make(chan result, 1)}
	start(func() {
		value, err := fn(&call.Left)
		call.done <- result{value, err}
	})
	err := ErrStuck
	select {
	case r := <-call.done:
		return r.value, r.err
	case <-end:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	call.flag.Store(true)
	var none T
	return none, err
}
