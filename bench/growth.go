package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright/bench/internal/gobench"
	"github.com/keywright/keywright/bench/internal/rig"
)

// growing are the figures of what must not cost more because there is more of it, as
// points of curves: each benchmark fills an installation and compares it with one that
// has one of it. They go up to b.growth.
func (b *bench) growing() (subjects []subject) {
	point := func(name, unit string, benchmark string, metric reading, n int, goal float64) {
		s := subject{name: fmt.Sprintf(name, n), unit: unit, probe: b.once(fmt.Sprintf("%s/%d", benchmark, n), metric)}
		if goal > 0 {
			s.goal, s.predict, s.floors = atLeast(goal), first, probes(promise(1, 0))
		}
		subjects = append(subjects, rarely(s, 1))
	}
	const ofOne = "of one"
	for _, n := range b.sizes(100_000) {
		point("Encrypt with %d versions of the key", ofOne, "Versions", metric("encrypt-of-one"), n, 0.95)
		point("rotation with %d versions of the key", ofOne, "Versions", metric("rotate-of-one"), n, 0.90)
	}
	for _, n := range b.sizes(1_000) { // each put makes the index anew: ten times as many take minutes
		point("Encrypt with %d policies", ofOne, "NumberOfPolicies", metric("encrypt-of-one"), n, 0.95)
	}
	for _, n := range b.sizes(1_000_000) {
		point("Encrypt with %d keys", ofOne, "NumberOfKeys", metric("encrypt-of-one"), n, 0.95)
	}
	for _, n := range b.sizes(10_000) {
		point("Encrypt with %d namespaces", ofOne, "NumberOfNamespaces", metric("encrypt-of-one"), n, 0.95)
	}
	for _, n := range b.sizes(1_000_000) {
		point("Encrypt with %d lines in the log", ofOne, "LengthOfLog", metric("encrypt-of-one"), n, 0.95)
	}
	return slices.Concat(subjects, b.stored(b.sizes(1_000_000)), b.served())
}

// served are the curves of a server: by size of a plaintext and by number of callers,
// beside the echo.
func (b *bench) served() (subjects []subject) {
	const few = 8 // callers of what may be large
	mode := rig.Mode{Plaintext: true}
	for _, bytes := range []int{16, 256, 4 << 10, 64 << 10, mebibyte, 4*mebibyte - 4<<10} {
		w := work("encrypt", rig.SealingKey)
		w.Payload = bytes
		inMiB := func(noop bool) maker { return scaled(b.grpcBy(few, w, mode, noop), float64(bytes)/mebibyte) }
		subjects = append(subjects, rarely(subject{name: fmt.Sprintf("Encrypt of %d bytes", bytes), unit: "MiB/s", predict: first,
			probe: inMiB(false), floors: probes(inMiB(true))}, 3))
	}
	w := work("encrypt", rig.SealingKey)
	for _, callers := range []int{1, 4, 16, 64, 256, 1024, manyCallers} {
		subjects = append(subjects, rarely(subject{name: fmt.Sprintf("Encrypt with %d callers", callers), unit: opsPerSecond, predict: first,
			probe: b.grpcBy(callers, w, mode, false), floors: probes(b.grpcBy(callers, w, mode, true))}, 3))
	}
	return subjects
}

// scaledProbe tells another one's values in another unit.
type scaledProbe struct {
	probe
	by float64
}

func scaled(newProbe maker, by float64) maker {
	return func(ctx context.Context) (probe, error) {
		p, err := newProbe(ctx)
		if err != nil {
			return nil, err
		}
		return scaledProbe{p, by}, nil
	}
}

func (s scaledProbe) measure(ctx context.Context, d time.Duration) (sample, error) {
	measured, err := s.probe.measure(ctx, d)
	measured.value *= s.by
	return measured, err
}

// sizes are the powers of ten that are measured, from 100.
func (b *bench) sizes(most int) (sizes []int) {
	for n := 100; n <= min(most, b.growth); n *= 10 {
		sizes = append(sizes, n)
	}
	return sizes
}

// stored is what keys cost that nobody uses, and those that somebody does: a million of
// the first are to be there within 3 s and in 200 MiB, one of the second in 2 KiB. Of
// fewer keys the same is asked.
func (b *bench) stored(sizes []int) []subject {
	hot := within("memory of a key in use", 2048, "B", b.once("HotKey", metric("B/hot-key")))
	subjects := []subject{rarely(hot, 1)}
	for _, n := range sizes {
		run := fmt.Sprintf("NumberOfKeys/%d", n)
		subjects = append(subjects,
			rarely(within(fmt.Sprintf("start with %d keys", n), 3, "s", b.once(run, metric("open-s"))), 1),
			rarely(within(fmt.Sprintf("memory of %d keys that nobody uses", n), 200, "MiB", b.once(run, idle)), 1))
	}
	return subjects
}

// idle is the memory that keys take which nobody uses; less than what can be told
// apart from none counts as that.
func idle(r gobench.Result) sample {
	mebibytes, told := r["idle-MiB"]
	if !told {
		return sample{} // which is an error
	}
	return sample{value: max(mebibytes, 0.1)}
}

// once is the probe of one of several metrics of a benchmark of package kms that takes
// long to fill: it runs once for all of them.
func (b *bench) once(name string, value reading) maker {
	return func(ctx context.Context) (probe, error) {
		p, err := b.beside(kmsPackage, gobench.Run{Name: name}, value)(ctx)
		if err != nil {
			return nil, err
		}
		return remembered{p.(benchmark), b.results}, nil
	}
}

// remembered is a benchmark whose result is kept, by its name.
type remembered struct {
	benchmark
	results map[string]gobench.Result
}

func (r remembered) measure(ctx context.Context, d time.Duration) (sample, error) {
	if _, ran := r.results[r.run.Name]; !ran {
		run := r.run
		run.Time = d
		result, err := r.binary.Run(ctx, run)
		if err != nil {
			return sample{}, err
		}
		r.results[r.run.Name] = result
	}
	return r.read(r.results[r.run.Name])
}
