package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// asked is a call that the worker has not answered yet, whether or not its caller
// still waits: a module cannot be interrupted, and its session is not free before.
type asked struct {
	until time.Time  // without a reply by then the worker is lost
	reply chan reply // room for the one reply
}

// reply is an answer's body, or an error.
type reply struct {
	body []byte
	err  *hsm.Error
}

// query is one call.
type query struct {
	op     string
	method method
	object hsm.KeyID                // that the worker must have found before; zero: none
	once   bool                     // makes something: never asked twice
	body   func(to []byte) []byte   // arguments; nil: none
	result func(b *wire.Body) error // takes the answer; an error means that it is nonsense
}

// lostError means that the worker was lost before it answered.
type lostError struct {
	cause error
	sent  bool // whether the worker may have seen the call
}

// Error says why the worker was lost.
func (e *lostError) Error() string { return "HSM worker was lost: " + e.cause.Error() }

// Unwrap returns why the worker was lost.
func (e *lostError) Unwrap() error { return e.cause }

// ask makes one call of this worker. The error is a *lostError, or an *hsm.Error of
// the device's or the caller's.
func (p *process) ask(ctx context.Context, q query) error {
	if err := p.enter(ctx, q.op); err != nil {
		return err
	}
	a := &asked{until: time.Now().Add(q.method.within(p.config.HSM.Timeout)), reply: make(chan reply, 1)}
	if err := p.send(q, a); err != nil {
		p.leave()
		if errors.Is(err, wire.ErrTooLong) {
			return own(q.op, fmt.Errorf("%w: the arguments: %w", hsm.ErrInvalidArgument, err))
		}
		return &lostError{cause: err}
	}
	select {
	case r := <-a.reply:
		return p.take(q, r)
	case <-p.dead:
	case <-ctx.Done():
	}
	lost := p.lost.Load()
	select { // an answer counts, also the last one of a worker
	case r := <-a.reply:
		return p.take(q, r)
	default:
	}
	if lost != nil {
		return &lostError{*lost, true}
	}
	return q.abandoned(context.Cause(ctx))
}

// abandoned is the error of a call whose caller has left.
func (q query) abandoned(cause error) error {
	switch {
	case q.once:
		return &hsm.Error{Op: q.op, Class: hsm.ClassUnknown, Err: cause}
	case errors.Is(cause, wait.ErrStuck):
		return unavailable(q.op, cause)
	}
	return own(q.op, cause)
}

// enter takes a place among the calls under way. It waits at most as long as a call
// may take.
func (p *process) enter(ctx context.Context, op string) error {
	select {
	case p.places <- struct{}{}:
		p.inFlight.Add(1)
		return nil
	default:
	}
	ctx, cancel := wait.Bounded(ctx, p.config.HSM.Timeout)
	defer cancel()
	select {
	case p.places <- struct{}{}:
		p.inFlight.Add(1)
		return nil
	case <-p.dead:
		return &lostError{cause: *p.lost.Load()}
	case <-ctx.Done():
		return &hsm.Error{Op: op, Class: hsm.ClassExhausted, Err: fmt.Errorf("no session became free: %w", context.Cause(ctx))}
	}
}

// leave gives the place back, when the worker has answered.
func (p *process) leave() {
	p.inFlight.Add(-1)
	<-p.places
}

// send registers the call and queues its request.
func (p *process) send(q query, a *asked) error {
	p.mu.Lock()
	p.last++
	call := p.last
	p.calls[call] = a
	p.mu.Unlock()
	err := p.sender.Send(wire.Request, call, func(to []byte) []byte {
		to = append(to, byte(q.method))
		if q.body != nil {
			to = q.body(to)
		}
		return to
	})
	if err != nil {
		p.mu.Lock()
		delete(p.calls, call)
		p.mu.Unlock()
	}
	return err
}

// deliver hands a reply to its caller, if he still waits. One to nothing is nonsense.
func (p *process) deliver(f wire.Frame) error {
	p.mu.Lock()
	a, ok := p.calls[f.Call]
	delete(p.calls, f.Call)
	p.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: answer to call %d, which is not under way", wire.ErrNonsense, f.Call)
	}
	r := reply{body: f.Body}
	if f.Kind == wire.Refusal {
		var err error
		if r.err, err = readError(wire.NewBody(f.Body)); err != nil {
			return err
		}
	}
	a.reply <- r
	p.leave()
	return fatal(r.err)
}

// fatal returns why an error is the end of its worker, if it is: a module that hangs
// keeps the sessions that it hangs in, and a second login needs a PIN.
func fatal(e *hsm.Error) error {
	switch {
	case e == nil:
		return nil
	case errors.Is(e, errPINUsed):
		return e.Err
	case e.Class == hsm.ClassDevice && errors.Is(e, wait.ErrStuck):
		return fmt.Errorf("its module hangs: %w", e.Err)
	}
	return nil
}

// take reads a reply. Where the worker has lost its login, nothing was done.
func (p *process) take(q query, r reply) error {
	if r.err != nil {
		if r.err.Class == hsm.ClassDevice && errors.Is(r.err, errPINUsed) {
			p.lose(r.err.Err) // before anybody asks again: not this worker
			return &lostError{cause: r.err.Err}
		}
		return r.err
	}
	body := wire.NewBody(r.body)
	var err error
	if q.result != nil {
		err = q.result(body)
	}
	if err = errors.Join(err, body.Done()); err != nil {
		err = fmt.Errorf("answer to %q: %w", q.op, err)
		p.lose(err)
		return &lostError{err, true}
	}
	return nil
}

// overdue ends the worker if it has left a call unanswered for too long.
func (p *process) overdue() {
	now, late := time.Now(), 0
	p.mu.Lock()
	for _, a := range p.calls {
		if now.After(a.until) {
			late++
		}
	}
	p.mu.Unlock()
	if late > 0 {
		p.lose(fmt.Errorf("it left %d calls unanswered beyond the timeout of %v", late, p.config.HSM.Timeout))
	}
}
