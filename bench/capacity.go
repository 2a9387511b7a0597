package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/bench/internal/report"
	"github.com/keywright/keywright/bench/internal/rig"
	"github.com/keywright/keywright/bench/internal/stat"
)

// reserve is how much of a server planning leaves free, for bursts and for the loss of
// another: as much again as is needed.
const reserve = 2

// loaded are the processors that a server needs for a load, against what planning says
// (docs/capacity.md): the load times what an operation costs when all is busy, and as
// much again. Open loops, so that the load is what it is called. Where little is to be
// done each call wakes a processor for itself, and costs more: nothing is promised there.
func (b *bench) loaded(w load.Work, mode rig.Mode) (subjects []subject) {
	batch := w
	batch.Batch = batchSize
	for _, c := range []struct {
		work  load.Work
		calls int // a second
		of    string
		goal  report.Goal
	}{
		{w, 1_000, "calls a second", report.Goal{}}, {w, 4_000, "calls a second", report.Goal{}}, {w, 10_000, "calls a second", atMost(1)},
		{batch, 1_000, "batches of 100 a second", atMost(1)}, {batch, 2_000, "batches of 100 a second", atMost(1)},
	} {
		planned := reserve * float64(c.calls*max(c.work.Batch, 1)) / 1e6
		subjects = append(subjects, rarely(subject{name: fmt.Sprintf("processors with %d %s", c.calls, c.of), unit: "cores", goal: c.goal,
			predict: func(cost []float64) float64 { return cost[0] * planned },
			probe:   b.steady(float64(c.calls), b.grpc(c.work, mode, false)), floors: probes(cpuOf(b.grpc(c.work, mode, false)))}, 5))
	}
	return subjects
}

// steady makes of calls as fast as they go calls at a rate.
func (b *bench) steady(rate float64, newProbe maker) maker {
	return func(ctx context.Context) (probe, error) {
		p, err := newProbe(ctx)
		if err != nil {
			return nil, err
		}
		return steadyLoad{p.(*calls), rate}, nil
	}
}

type steadyLoad struct {
	*calls
	rate float64
}

func (s steadyLoad) measure(ctx context.Context, d time.Duration) (sample, error) {
	before, err := stat.CPUTime(s.pid)
	if err != nil {
		return sample{}, err
	}
	result, err := load.Run(ctx, s.pool.Callers, load.Plan{Duration: d, Rate: s.rate})
	if err != nil {
		return sample{}, err
	}
	after, err := stat.CPUTime(s.pid)
	return sample{value: (after - before).Seconds() / result.Elapsed.Seconds(), latency: result.Latency}, err
}
