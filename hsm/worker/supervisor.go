package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
)

// Supervisor is a token in use through worker processes. Make it with Open. Safe for
// concurrent use.
type Supervisor struct {
	config   Config
	settings settings // of workers; the serial is the first one's
	log      *slog.Logger

	ctx      context.Context // ends when workers are to end
	stop     context.CancelCauseFunc
	starting wait.Semaphore            // held while a worker starts: the PIN is tried in one at a time
	refused  atomic.Pointer[hsm.Error] // set once, when the PIN was refused
	live     atomic.Pointer[[]*process]
	last     atomic.Pointer[hsm.Status] // of the worker that started last
	tending  sync.WaitGroup

	generation atomic.Uint64
	restarts   atomic.Uint64
	objects    objects
	health     health

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when live or a slot changes
	slots   []slot
	errs    []error // of workers that did not end as they should

	closing    chan struct{}
	closeOnce  sync.Once
	closeError error
}

// Open starts the first worker, and has the others started. It creates nothing on the
// token, and tries the PIN at most once. Errors are those of hsm.Open.
func Open(ctx context.Context, config Config) (*Supervisor, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, own("open", err)
	}
	s := &Supervisor{config: config, settings: config.settings(), log: config.HSM.Logger,
		starting: wait.NewSemaphore(1), changed: make(chan struct{}), slots: make([]slot, config.Workers),
		closing: make(chan struct{})}
	s.ctx, s.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	s.live.Store(&[]*process{})
	first := make(chan error, 1)
	s.tending.Go(func() { s.tend(0, first) })
	select {
	case err = <-first:
	case <-ctx.Done():
		err = own("open", context.Cause(ctx))
	}
	if err != nil {
		s.stop(hsm.ErrClosed)
		s.tending.Wait()
		return nil, err
	}
	for i := 1; i < config.Workers; i++ {
		s.tending.Go(func() { s.tend(i, nil) })
	}
	return s, nil
}

// patience is how long calls wait for a pause to end before a worker starts.
const patience = 500 * time.Millisecond

// pick returns the worker with the fewest calls under way. Without one it waits for
// the next, unless none is to be expected soon.
func (s *Supervisor) pick(ctx context.Context, op string) (*process, error) {
	if p := s.idlest(); p != nil {
		return p, s.open(op)
	}
	ctx, cancel := wait.Bounded(ctx, s.config.HSM.Timeout)
	defer cancel()
	for {
		s.mu.Lock()
		changed, trouble := s.changed, s.trouble()
		s.mu.Unlock()
		if err := s.open(op); err != nil {
			return nil, err
		}
		if p := s.idlest(); p != nil {
			return p, nil
		}
		if trouble != nil {
			return nil, s.away(op, trouble)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, query{op: op}.abandoned(context.Cause(ctx))
		}
	}
}

// idlest returns the worker with the fewest calls under way, nil if there is none.
func (s *Supervisor) idlest() (best *process) {
	for _, p := range *s.live.Load() {
		if p.lost.Load() == nil && (best == nil || p.inFlight.Load() < best.inFlight.Load()) {
			best = p
		}
	}
	return best
}

func (s *Supervisor) open(op string) error {
	select {
	case <-s.closing:
		return own(op, hsm.ErrClosed)
	default:
		return nil
	}
}

// trouble returns why no worker is to be expected soon, nil if one is. It needs mu.
func (s *Supervisor) trouble() error {
	for i := range s.slots {
		if s.slots[i].trouble == nil {
			return nil
		}
	}
	return s.slots[0].trouble
}

// away is the error while no worker lives.
func (s *Supervisor) away(op string, trouble error) error {
	if e := s.refused.Load(); e != nil {
		return &hsm.Error{Op: op, Class: e.Class, Code: e.Code, Err: e.Err}
	}
	return unavailable(op, fmt.Errorf("no HSM worker runs: %w", trouble))
}

// join puts a worker among those that get calls; part takes it away.
func (s *Supervisor) join(i int, p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots[i] = slot{}
	live := append(slices.Clone(*s.live.Load()), p)
	s.live.Store(&live)
	s.notify()
}

func (s *Supervisor) part(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := slices.DeleteFunc(slices.Clone(*s.live.Load()), func(q *process) bool { return p == q })
	s.live.Store(&live)
	s.notify()
}

// block records why a slot has no worker, and will have none soon.
func (s *Supervisor) block(i int, trouble error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots[i].trouble = trouble
	s.notify()
}

// notify wakes those who wait for a change. It needs mu.
func (s *Supervisor) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Close implements hsm.Service. A worker that does not end by itself is killed, and
// the error says so.
func (s *Supervisor) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.mu.Lock()
		s.notify()
		s.mu.Unlock()
		drained := s.drain()
		s.stop(drained)
		s.tending.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := errors.Join(append(s.errs, drained)...); err != nil {
			s.closeError = unavailable("close", err)
		}
	})
	return s.closeError
}

// drain waits until no call is under way, for as long as a call may take.
func (s *Supervisor) drain() error {
	const pause = 2 * time.Millisecond
	deadline := time.Now().Add(s.config.HSM.Timeout)
	for time.Now().Before(deadline) {
		busy := slices.ContainsFunc(*s.live.Load(), func(p *process) bool { return p.inFlight.Load() > 0 })
		if !busy {
			return nil
		}
		time.Sleep(pause)
	}
	return errors.New("calls were under way still, and their workers were killed")
}
