package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/hsm"
)

// Status implements hsm.Service. Sessions are those of all workers; a call that a
// worker has not answered counts as one.
func (s *Supervisor) Status() hsm.Status {
	status := hsm.Status{Module: s.config.HSM.Module, TokenLabel: s.config.HSM.TokenLabel, TokenSerial: s.config.HSM.TokenSerial}
	if last := s.last.Load(); last != nil {
		status = *last
	}
	status.SessionsMax = 0
	for _, p := range *s.live.Load() {
		if p.lost.Load() != nil {
			continue
		}
		status.Workers++
		status.SessionsMax += p.status.SessionsMax
		status.SessionsInUse += min(int(p.inFlight.Load()), p.status.SessionsMax)
	}
	status.Generation = s.generation.Load()
	status.WorkerRestarts = s.restarts.Load()
	s.health.report(&status)
	status.Healthy = status.Healthy && status.Workers > 0
	return status
}

// Probe implements hsm.Service: it asks every worker, each under every root key that
// was seen.
func (s *Supervisor) Probe(ctx context.Context) error {
	if len(*s.live.Load()) == 0 {
		_, err := s.do(ctx, probe)
		return err
	}
	var all sync.WaitGroup
	workers := *s.live.Load()
	errs := make([]error, len(workers))
	for i, p := range workers {
		all.Go(func() { errs[i] = s.probe(ctx, p) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			e := asError(err)
			s.health.bad(e)
			return e
		}
	}
	s.health.good()
	return nil
}

var probe = query{op: "probe", method: methodProbe}

// probe asks one worker. One that is lost meanwhile has a successor to be asked.
func (s *Supervisor) probe(ctx context.Context, p *process) error {
	err := s.recall(ctx, p)
	if err == nil {
		err = p.ask(ctx, probe)
	}
	var lost *lostError
	if errors.As(err, &lost) {
		_, err = s.do(ctx, probe)
	}
	return err
}

// health is what is known of the token without asking it. The zero value is
// unhealthy. Safe for concurrent use.
type health struct {
	well atomic.Bool

	mu        sync.Mutex
	lastClass hsm.Class
	lastAt    time.Time
}

func (h *health) good() {
	if !h.well.Load() {
		h.well.Store(true)
	}
}

// bad records a failure. Neither a wrong request nor a busy pool says anything about
// the token.
func (h *health) bad(e *hsm.Error) {
	if e.Class == hsm.ClassCaller {
		return
	}
	if e.Class != hsm.ClassExhausted {
		h.well.Store(false)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastClass, h.lastAt = e.Class, time.Now()
}

func (h *health) report(s *hsm.Status) {
	s.Healthy = h.well.Load()
	h.mu.Lock()
	defer h.mu.Unlock()
	s.LastErrorClass, s.LastErrorAt = h.lastClass, h.lastAt
}
