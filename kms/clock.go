package kms

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/audit"
)

const (
	// clockSettle is how long the clock must have run evenly before anything is
	// destroyed: time for an operator to notice that it is wrong.
	clockSettle = time.Hour
	// clockDrift is how far the clock may get ahead of the time that passed, all
	// told, before it counts as having jumped.
	clockDrift = time.Minute
)

// clockGuard keeps a clock that was set forward from destroying anything early.
// It compares the clock with the time that really passed, as the operating
// system's monotonic clock tells it, from an anchor on; steps that are small one
// by one add up. After a start and after a jump, destruction is paused until the
// clock has run evenly for clockSettle. In dev mode nothing is paused.
type clockGuard struct {
	passed func() time.Duration // monotonic; tests replace it
	wall   time.Time            // the clock at the anchor
	anchor time.Duration
	off    bool
	paused atomic.Bool // for status
}

func newClockGuard(now time.Time, devMode bool) *clockGuard {
	began := time.Now()
	g := &clockGuard{passed: func() time.Duration { return time.Since(began) }, off: devMode}
	g.reset(now)
	return g
}

func (g *clockGuard) reset(now time.Time) {
	g.wall, g.anchor = now.Round(0), g.passed()
	g.paused.Store(!g.off)
}

// check notes the clock's time and returns by how much it has jumped forward, 0
// if it has not. Only the jobs' goroutine calls it.
func (g *clockGuard) check(now time.Time) time.Duration {
	if g.off {
		return 0
	}
	passed := g.passed() - g.anchor
	if ahead := now.Round(0).Sub(g.wall) - passed; ahead > clockDrift {
		g.reset(now)
		return ahead
	}
	if passed >= clockSettle {
		g.paused.Store(false)
	}
	return 0
}

// checkClock pauses destruction when the clock jumps forward, and says so.
func (s *Service) checkClock() {
	ahead := s.clock.check(s.now())
	if ahead == 0 {
		return
	}
	s.log.Error("the clock jumped forward: nothing is destroyed until it has run evenly for a while; set it right", "ahead", ahead, "for", clockSettle)
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: "ClockJump",
		Outcome: string(OK), Details: map[string]string{"ahead": ahead.Round(time.Second).String()}}, audit.Sync)
	if err != nil {
		s.log.Error("the clock's jump was not logged", "error", err)
	}
}

// destroys tells whether a kind of job removes what a wrong clock must not bring
// forward: material, and revocations, whose tokens it would make valid again.
func (j due) destroys() bool {
	return slices.Contains([]string{dueDestroyVersion, dueDeleteKey, dueDeleteNamespace, dueRevocation, dueLease}, j.Kind)
}
