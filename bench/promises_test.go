package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/internal/gobench"
)

// A result without the metric that is wanted must not become a cost of nothing,
// which would hold any goal.
func TestMissingMetricsAreErrors(t *testing.T) {
	t.Chdir("..")
	b := &bench{dir: t.TempDir(), binaries: map[string]*gobench.Binary{}}
	for name, test := range map[string]struct {
		value reading
		fails bool
	}{
		"cost that is there": {cpuPerOp, false},
		"cost that is not":   {cpuPerLine, true},
		"rate that is not":   {appended, true},
	} {
		p, err := b.beside(identityPackage, gobench.Run{Name: "Authenticate/same", CPUs: 1}, test.value)(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s, err := p.measure(t.Context(), time.Millisecond); (err != nil) != test.fails || err == nil && s.value <= 0 {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// TestPromisesCanBeMissed measures what is worse than each promise, and better.
func TestPromisesCanBeMissed(t *testing.T) {
	b := &bench{figureOptions: figureOptions{rounds: 7, entries: 1, duration: time.Millisecond}}
	for _, s := range b.promised() {
		for _, factor := range []float64{0.5, 2} {
			promised, err := s.floors[0](t.Context())
			if err != nil {
				t.Fatal(err)
			}
			own, err := promised.measure(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			s.probe = promise(own.value*factor, own.cpu/factor)
			figures, err := b.measure(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range figures {
				better := factor < 1
				if f.Goal == atLeast(1) || f.Name != s.name { // a rate, or the CPU beside one
					better = !better
				}
				if f.Holds() != better {
					t.Errorf("%s: %v of what was promised holds: %v", f.Name, f.Ratio(), f.Holds())
				}
			}
			if most := len(figures[0].Rounds); most != s.rounds(7) || s.most > 0 && most != s.most {
				t.Errorf("%s: %d rounds", s.name, most)
			}
		}
	}
}

func TestNoRoomForTheLog(t *testing.T) {
	dir := t.TempDir()
	if err := haveRoom(dir, 1); err != nil {
		t.Error(err)
	}
	if err := haveRoom(dir, math.MaxInt64); err == nil || !strings.Contains(err.Error(), "-entries") {
		t.Errorf("got %v, want advice", err)
	}
}
