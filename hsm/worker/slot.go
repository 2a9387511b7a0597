package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// slot is a worker's place, with one worker at a time.
type slot struct {
	// trouble says why there is no worker, and why none is to be expected soon;
	// nil while there is one, or is about to be.
	trouble error
}

// Bounds of the pause between the end of a worker and the start of the next.
const (
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
	// calm is how long a worker has to have lived to be replaced without a pause.
	calm = 5 * time.Second
	// startGrace is what the start of a process may take beside opening the token.
	startGrace = 10 * time.Second
	// endGrace is what the end of a process may take beside closing the token.
	endGrace = 2 * time.Second
)

// tend keeps a slot filled until the Supervisor closes or the PIN is refused. The
// outcome of the very first start goes to first, if there is one; a failure ends it.
func (s *Supervisor) tend(i int, first chan<- error) {
	onThreadOfItsOwn(func() { s.tendHere(i, first) })
}

// onThreadOfItsOwn runs fn, which starts workers: they end with the thread that
// started them, and it ends with fn, because it is confined like them. The process's
// first thread is not taken for that: it cannot end.
func onThreadOfItsOwn(fn func()) {
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if firstThread() {
			defer runtime.UnlockOSThread()
			onThreadOfItsOwn(fn) // while this one is held
		} else {
			fn()
		}
		close(done)
	}()
	<-done
}

func (s *Supervisor) tendHere(i int, first chan<- error) {
	var pause time.Duration
	for lost := false; ; {
		p, err := s.start()
		if first != nil {
			first <- err
			if err != nil {
				return
			}
			first = nil
		}
		switch {
		case err != nil:
			s.health.bad(asError(err))
		case lost:
			s.restarts.Add(1)
			fallthrough
		default:
			err = s.serve(i, p)
			lost = true
			if time.Since(p.begun) >= calm {
				pause = 0
			}
		}
		if s.ctx.Err() != nil || !s.rest(i, p, err, &pause) {
			return
		}
	}
}

// rest waits before the next start, and says why it is needed. It returns false when
// there is none.
func (s *Supervisor) rest(i int, p *process, err error, pause *time.Duration) bool {
	if s.refused.Load() != nil {
		s.log.Error("HSM worker is not started again: the PIN was refused", slog.Any("error", err))
		s.block(i, err)
		return false
	}
	wait := *pause*3/4 + rand.N(*pause/2+1) // several servers must not fall into step
	if p == nil {
		wait = max(wait, minPause)
		s.log.Warn("HSM worker did not start", slog.Any("error", err), slog.Duration("pause", wait))
	} else {
		s.log.Warn("HSM worker was lost", slog.Int("worker", p.cmd.Process.Pid), slog.Uint64("generation", p.generation),
			slog.String("reason", p.reason()), slog.Duration("uptime", time.Since(p.begun)), slog.Duration("pause", wait))
	}
	if p == nil || wait > patience {
		s.block(i, err)
	}
	*pause = min(max(2**pause, minPause), maxPause)
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(wait):
		return true
	}
}

// serve has a worker serve until it is lost, and returns why; or until the
// Supervisor closes.
func (s *Supervisor) serve(i int, p *process) error {
	s.join(i, p)
	s.health.good()
	timeout := s.config.HSM.Timeout
	watch := time.NewTicker(max(timeout/16, 10*time.Millisecond))
	defer watch.Stop()
	for {
		select {
		case <-p.dead:
			s.part(p)
			s.health.bad(asError(*p.lost.Load()))
			<-p.reaped
			return *p.lost.Load()
		case <-watch.C:
			p.overdue()
		case <-s.ctx.Done():
			s.part(p)
			s.end(p, context.Cause(s.ctx), timeout+endGrace)
			return nil
		}
	}
}

// end ends a worker when the Supervisor closes: by itself if no call is left.
func (s *Supervisor) end(p *process, undrained error, patience time.Duration) {
	if !errors.Is(undrained, context.Canceled) {
		p.kill(undrained)
		return
	}
	if p.lost.Load() != nil { // before there was any talk of an end
		<-p.reaped
		return
	}
	if err := p.finish(patience); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.errs = append(s.errs, err)
	}
}

// start starts a worker, has it log in, and makes sure that the known roots are there.
func (s *Supervisor) start() (*process, error) {
	if err := s.starting.Acquire(s.ctx); err != nil {
		return nil, err
	}
	defer s.starting.Release()
	if s.ctx.Err() != nil {
		return nil, context.Cause(s.ctx)
	}
	if e := s.refused.Load(); e != nil {
		return nil, e
	}
	pin, err := s.config.HSM.PIN()
	if err != nil {
		return nil, unavailable("open", err)
	}
	defer clear(pin.Reveal())
	p, err := spawn(s.config)
	if err != nil {
		return nil, unavailable("open", err)
	}
	if err := s.prepare(p, pin.Reveal()); err != nil {
		var lost *lostError
		if errors.As(err, &lost) {
			<-p.reaped
			err = unavailable("open", errors.New("HSM worker ended at its start: "+p.reason()))
		}
		p.kill(err)
		return nil, err
	}
	return p, nil
}

// prepare takes a new worker to the point where it can get calls.
func (s *Supervisor) prepare(p *process, pin []byte) error {
	ctx, cancel := wait.Bounded(s.ctx, s.config.HSM.Timeout+startGrace)
	defer cancel()
	// What cannot be sent to a worker that is lost is seen below.
	_ = p.sender.Send(wire.Hello, 0, s.settings.append)
	_ = p.sender.Send(wire.PIN, 0, func(to []byte) []byte { return append(to, pin...) })
	body, err := p.awaitOpen(ctx)
	if err != nil {
		if e := asError(err); e.Class == hsm.ClassPIN {
			s.refused.CompareAndSwap(nil, e)
		}
		return err
	}
	p.status = readStatus(body)
	if err := body.Done(); err != nil {
		return unavailable("open", err)
	}
	p.places = make(chan struct{}, p.status.SessionsMax)
	s.settings.serial = p.status.TokenSerial // later ones must not take another of that label
	p.generation = s.generation.Add(1)
	s.last.Store(&p.status)
	return s.recall(ctx, p)
}

// awaitOpen waits for the outcome of a worker's start.
func (p *process) awaitOpen(ctx context.Context) (*wire.Body, error) {
	select {
	case f := <-p.opening:
		return outcome(f)
	case <-p.dead:
	case <-ctx.Done():
		return nil, query{op: "open"}.abandoned(context.Cause(ctx))
	}
	select {
	case f := <-p.opening: // the last that it said
		return outcome(f)
	default:
		return nil, &lostError{cause: *p.lost.Load()}
	}
}

func outcome(f wire.Frame) (*wire.Body, error) {
	body := wire.NewBody(f.Body)
	if f.Kind == wire.Ready {
		return body, nil
	}
	e, err := readError(body)
	if err != nil {
		return nil, unavailable("open", err)
	}
	return nil, e
}

// recall makes sure that a new worker's token holds every root key that was seen,
// with the same value: otherwise it is another token.
func (s *Supervisor) recall(ctx context.Context, p *process) error {
	for _, o := range s.objects.roots() {
		if err := s.find(ctx, p, o); err != nil {
			return fmt.Errorf("root %s: %w", o.id, err)
		}
	}
	return nil
}

// asError returns the *hsm.Error in err, or makes one of a device that is away.
func asError(err error) *hsm.Error {
	var e *hsm.Error
	if errors.As(err, &e) {
		return e
	}
	return unavailable("worker", err)
}
