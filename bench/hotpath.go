package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keywright/keywright/bench/internal/gobench"
	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/bench/internal/rig"
)

// synced are the figures of a server whose answers wait for the disk, against an
// echo that waits for nothing.
func (b *bench) synced(w load.Work) (subjects []subject) {
	mode := rig.Mode{Plaintext: true, Fsync: true}
	for _, c := range []struct {
		callers int
		goal    float64
	}{{callers, 0.60}, {256, 0.80}} {
		subjects = append(subjects, subject{name: fmt.Sprintf("gRPC Encrypt 32 B, audit synced before the answer, %d callers", c.callers),
			unit: opsPerSecond, goal: atLeast(c.goal), predict: first,
			probe: b.grpcBy(c.callers, w, mode, false), floors: probes(b.grpcBy(c.callers, w, mode, true))})
	}
	return subjects
}

// Packages whose benchmarks tell what an operation allocates.
const (
	keyringPackage = "keyring"
	kmsPackage     = "kms"
)

// allocations are what the hot path allocates, at most; none is written as half of one,
// since a ratio to nothing is none.
func (b *bench) allocations() (subjects []subject) {
	const none = 0.5
	for _, c := range []struct {
		name, pkg, run string
		most           float64
	}{
		{"keyring seal AES-256-GCM", keyringPackage, "Seal/AES_256_GCM/noaad", none},
		{"keyring open AES-256-GCM", keyringPackage, "Open/AES_256_GCM", none},
		{"keyring seal XAES-256-GCM", keyringPackage, "Seal/XAES_256_GCM/noaad", 2},
		{"keyring open XAES-256-GCM", keyringPackage, "Open/XAES_256_GCM", 2},
		{"kms Encrypt AES-256-GCM, decision and audit included", kmsPackage, "Encrypt/AES_256_GCM/32", 3},
		{"kms Encrypt XAES-256-GCM, decision and audit included", kmsPackage, "Encrypt/XAES_256_GCM/32", 2 + 3},
	} {
		probe := b.beside(c.pkg, gobench.Run{Name: c.run, CPUs: 1}, allocated)
		subjects = append(subjects, rarely(within("allocations: "+c.name, c.most, "allocs/op", probe), 3))
	}
	return subjects
}

// allocated is how often an operation allocates; see allocations for what allocates
// nothing.
func allocated(r gobench.Result) sample {
	n, told := r["allocs/op"]
	if !told {
		return sample{} // which is an error
	}
	return sample{value: max(n, 0.5)}
}

// delayed is the time within which 99 of 100 calls are answered when calls begin at
// half the rate that the server can do, whoever is still waiting (open loop), against
// the echo's at the same rate.
func (b *bench) delayed(name string, w load.Work, mode rig.Mode) subject {
	half := new(pace)
	return subject{name: name, unit: milliseconds, goal: atMost(1.5), predict: first,
		probe: b.paced(half, b.grpc(w, mode, false), true), floors: probes(b.paced(half, b.grpc(w, mode, true), false))}
}

// overloaded is the time within which 99 of 100 calls are answered, of those that are
// not refused, when far more callers call at once than there is room for, against the
// echo's with as many: it refuses nobody, and what waits there waits in the transport.
func (b *bench) overloaded(w load.Work, mode rig.Mode) subject {
	tail := func(noop bool) maker {
		return func(ctx context.Context) (probe, error) {
			p, err := b.grpcBy(manyCallers, w, mode, noop)(ctx)
			if err != nil {
				return nil, err
			}
			return crowd{p.(*calls)}, nil
		}
	}
	return subject{name: fmt.Sprintf("gRPC Encrypt 32 B, p99 of what is answered to %d callers", manyCallers), unit: milliseconds, goal: atMost(2),
		predict: first, probe: tail(false), floors: probes(tail(true))}
}

// crowd is the probe of callers of whom some are refused.
type crowd struct{ *calls }

func (c crowd) measure(ctx context.Context, d time.Duration) (sample, error) {
	result, err := load.Run(ctx, c.pool.Callers, load.Plan{Duration: d, Tolerate: refused})
	return sample{value: result.Latency.Quantile(0.99).Seconds() * 1e3, latency: result.Latency}, err
}

// pace is calls a second, the same for a probe and its floor.
type pace struct{ rate float64 }

// paced makes an open loop of a probe; the one that sets the pace is run for a while to
// find out what it can do.
func (b *bench) paced(at *pace, newProbe maker, sets bool) maker {
	return func(ctx context.Context) (probe, error) {
		p, err := newProbe(ctx)
		if err != nil {
			return nil, err
		}
		if sets {
			saturated, err := p.measure(ctx, 2*b.duration)
			if err != nil {
				return p, err
			}
			at.rate = saturated.value / 2
		}
		return openLoop{p.(*calls), at}, nil
	}
}

type openLoop struct {
	*calls
	*pace
}

func (o openLoop) measure(ctx context.Context, d time.Duration) (sample, error) {
	result, err := load.Run(ctx, o.pool.Callers, load.Plan{Duration: d, Rate: o.rate})
	return sample{value: result.Latency.Quantile(0.99).Seconds() * 1e3, latency: result.Latency}, err
}
