package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/keywright/keywright/bench/internal/gobench"
	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/bench/internal/rig"
)

// Where the benchmarks of the promised figures live.
const (
	policyPackage    = "kms/policy"
	identityPackage  = "server/internal/identity"
	flatprotoPackage = "server/internal/flatproto"
	auditPackage     = "kms/audit"
	verifyPackage    = "kms/audit/verify"
)

const (
	entriesPerSecond = "entries/s"
	microseconds     = "µs"
	milliseconds     = "ms"
)

// promised are the figures that have an absolute goal, in the place of a floor:
// the ratio is of what was measured to what was promised. What one core does alone
// is told in processor time, which a busy machine does not change.
func (b *bench) promised() []subject {
	inLog := fmt.Sprintf("a log of %g million entries", float64(b.entries)/1e6)
	decide := func(name string) maker {
		return b.beside(policyPackage, gobench.Run{Name: "Decide/" + name, CPUs: 1}, cpuPerOp)
	}
	search := func(name string, value reading) maker {
		return b.inLog(gobench.Run{Name: "Log/" + name, CPUs: 2}, value)
	}
	return []subject{
		within("policy decision, 10,000 policies, cached", 0.3, microseconds, decide("cached/policies=10000")),
		within("policy decision, 10,000 policies, uncached", 10, microseconds, decide("uncached/policies=10000")),
		within("token verified from cache", 0.2, microseconds, b.beside(identityPackage, gobench.Run{Name: "Authenticate/other", CPUs: 1}, cpuPerOp)),
		{name: "audit append, hash, tree and index, one core", unit: entriesPerSecond, goal: atLeast(1), predict: first,
			probe: b.beside(auditPackage, gobench.Run{Name: "Append/hot/32", CPUs: 1}, appended), floors: probes(promise(400_000, 0))},
		rarely(within("audit inclusion proof in "+inLog, 10, milliseconds, search("prove", perOp)), 5),
		rarely(within("audit search for a request id in "+inLog, 50, milliseconds, search("search", perOp)), 5),
		rarely(subject{name: "audit verify of " + inLog + ", two cores", unit: entriesPerSecond, goal: atLeast(1), predict: first,
			cpu: atMost(1), cpuName: "CPU", probe: search("verify", verified), floors: probes(promise(500_000, 4))}, 3),
	}
}

// reading takes what is wanted out of a benchmark's result.
type reading func(gobench.Result) sample

// perOp is the time of an operation in ms.
func perOp(r gobench.Result) sample { return sample{value: r["ns/op"] / 1e6} }

// cpuPerOp is the processor time of an operation in µs.
func cpuPerOp(r gobench.Result) sample { return sample{value: r["cpu-ns/op"] / 1e3} }

// cpuPerLine is the processor time of an audit line in µs.
func cpuPerLine(r gobench.Result) sample { return sample{value: r["cpu-ns/line"] / 1e3} }

// appended is how many audit lines a core can append in a second.
func appended(r gobench.Result) sample { return sample{value: 1e9 / r["cpu-ns/line"]} }

func verified(r gobench.Result) sample {
	return sample{value: r[entriesPerSecond], cpu: r["cpu-ns/entry"] / 1e3}
}

// within is a cost that stays within what was promised.
func within(name string, most float64, unit string, probe maker) subject {
	return subject{name: name, unit: unit, goal: atMost(1), predict: first, probe: probe, floors: probes(promise(most, 0))}
}

// rarely bounds the rounds of a subject of which one takes long.
func rarely(s subject, rounds int) subject {
	s.most = rounds
	return s
}

// auditPart is what an operation's line costs, all told, beside all that the
// server does for it.
func (b *bench) auditPart(w load.Work, mode rig.Mode) subject {
	// On one core, where it makes batches of 7 lines as a server under this load does
	// on two; on two of its own, half the lines and the writers' idling would count.
	line := b.beside(auditPackage, gobench.Run{Name: "Append/served", CPUs: 1}, cpuPerLine)
	return subject{name: "audit's part of server CPU per gRPC Encrypt 32 B", unit: "µs/op", goal: atMost(0.10), predict: first,
		probe: line, floors: probes(cpuOf(b.grpc(w, mode, false)))}
}

// constant is the probe of what needs no measuring.
type constant sample

// promise is a value, and processor time in µs where that is promised too.
func promise(value, cpu float64) maker {
	return func(context.Context) (probe, error) { return constant{value: value, cpu: cpu}, nil }
}

func (c constant) measure(context.Context, time.Duration) (sample, error) {
	return sample(c), nil
}

func (constant) close() error { return nil }

// spent is the probe of a server's processor time, in µs for each operation.
type spent struct{ probe }

func cpuOf(newProbe maker) maker {
	return func(ctx context.Context) (probe, error) {
		p, err := newProbe(ctx)
		if err != nil {
			return nil, err
		}
		return spent{p}, nil
	}
}

func (s spent) measure(ctx context.Context, d time.Duration) (sample, error) {
	measured, err := s.probe.measure(ctx, d)
	measured.value = measured.cpu
	return measured, err
}

// binary builds the benchmarks of a package at their first use.
func (b *bench) binary(ctx context.Context, pkg string) (*gobench.Binary, error) {
	if built := b.binaries[pkg]; built != nil {
		return built, nil
	}
	built, err := gobench.Build(ctx, b.dir, pkg)
	if err == nil {
		b.binaries[pkg] = built
	}
	return built, err
}

// beside is the probe of a benchmark that lives beside its package.
func (b *bench) beside(pkg string, run gobench.Run, value reading) maker {
	return func(ctx context.Context) (probe, error) {
		binary, err := b.binary(ctx, pkg)
		return benchmark{binary, run, value}, err
	}
}

type benchmark struct {
	binary *gobench.Binary
	run    gobench.Run
	value  reading
}

func (p benchmark) close() error { return nil }

func (p benchmark) measure(ctx context.Context, d time.Duration) (sample, error) {
	p.run.Time = d
	result, err := p.binary.Run(ctx, p.run)
	if err != nil {
		return sample{}, err
	}
	return p.read(result)
}

// read takes what is wanted from a result, of which it must be a part.
func (p benchmark) read(result gobench.Result) (sample, error) {
	s := p.value(result)
	if s.value <= 0 || math.IsInf(s.value, 0) {
		return s, fmt.Errorf("benchmark %s printed %v, which lacks what is wanted", p.run.Name, result)
	}
	return s, nil
}
