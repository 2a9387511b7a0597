package server

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrDrain says that calls were still running when the time to drain was over,
// and that they did not end when they were cancelled either.
var ErrDrain = errors.New("calls in flight did not end in time")

// stopGrace is how long cancelled calls get to end.
const stopGrace = 5 * time.Second

// drain stops taking work, lets what is in flight finish, and cancels what is
// left when DrainTimeout is over.
func (s *Server) drain() error {
	s.health.Shutdown()
	s.gate.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), s.config.DrainTimeout)
	defer cancel()
	var stopping sync.WaitGroup
	stopping.Go(s.grpc.GracefulStop)
	for _, plugin := range s.kube {
		stopping.Go(plugin.GracefulStop)
	}
	for _, w := range s.web {
		if w.operator {
			// Served to the end: who watches the drain asks here.
			defer w.server.Close()
			continue
		}
		stopping.Go(func() {
			if w.server.Shutdown(ctx) != nil {
				_ = w.server.Close()
			}
		})
	}
	finished := make(chan struct{})
	go func() {
		stopping.Wait()
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		calls, streams := s.gate.InFlight()
		s.config.Logger.Warn("calls still in flight are cancelled", "calls", calls, "streams", streams)
		go s.grpc.Stop()
		for _, plugin := range s.kube {
			go plugin.Stop()
		}
	}
	select {
	case <-finished:
		return nil
	case <-time.After(stopGrace):
		return ErrDrain
	}
}
