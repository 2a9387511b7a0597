package main

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/keywright/keywright/bench/internal/floor"
	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/bench/internal/report"
	"github.com/keywright/keywright/bench/internal/rig"
	"github.com/keywright/keywright/bench/internal/stat"
)

// The load of the figures.
const (
	payload     = 32 // bytes
	mebibyte    = 1 << 20
	callers     = 32
	manyCallers = 4096
	connections = 2 // of gRPC; REST has one for each caller
	batchSize   = 100
	streams     = 4
	window      = 64 // operations under way on each stream
)

const opsPerSecond, itemsPerSecond = "ops/s", "items/s"

// cpuGoal bounds the server's processor time per call against the no-op server's.
var cpuGoal = atMost(1.25)

func atLeast(ratio float64) report.Goal { return report.Goal{Ratio: ratio} }

func atMost(ratio float64) report.Goal { return report.Goal{Ratio: ratio, AtMost: true} }

// subjects are the figures, those over plaintext first, so that the server is
// started anew only once.
func (b *bench) subjects() []subject {
	encrypt, decrypt := work("encrypt", rig.SealingKey), work("decrypt", rig.SealingKey)
	batch, sign := work("encrypt", rig.SealingKey), work("sign", rig.SigningKey)
	batch.Batch = batchSize
	big, ed25519 := work("encrypt", rig.SealingKey), work("sign", rig.Ed25519Key)
	big.Payload = mebibyte
	plain, secure := rig.Mode{Plaintext: true}, rig.Mode{}
	cores := runtime.GOMAXPROCS(0)
	subjects := []subject{
		b.against("gRPC Encrypt 32 B", 0.90, b.grpc, encrypt, plain),
		b.against("gRPC Decrypt 32 B", 0.90, b.grpc, decrypt, plain),
		b.against("REST encrypt 32 B", 0.85, b.rest, encrypt, plain),
		b.against("Vault encrypt 32 B", 0.80, b.vault, encrypt, plain),
		{name: "Vault encrypt, batch of 100 × 32 B, to the bare cipher", unit: itemsPerSecond, goal: atLeast(0.5 / 2.9), predict: first,
			probe: b.vault(batch, plain, false), floors: probes(bare(floor.Seal("XAES_256_GCM", payload), cores))},
		{name: "gRPC Batch of 100 × 32 B, to unary Encrypt", unit: itemsPerSecond, goal: atLeast(20), predict: first,
			probe: b.grpc(batch, plain, false), floors: probes(b.grpc(encrypt, plain, false))},
		{name: "gRPC Batch of 100 × 32 B, to the bare cipher", unit: itemsPerSecond, goal: atLeast(1.0 / 2.9), predict: first,
			probe: b.grpc(batch, plain, false), floors: probes(bare(floor.Seal("XAES_256_GCM", payload), cores))},
		{name: "gRPC Batch of 100 × 32 B, to the echo", unit: itemsPerSecond, predict: first,
			probe: b.grpc(batch, plain, false), floors: probes(b.grpc(batch, plain, true))},
		{name: "gRPC Sign ECDSA P-256, to echo + bare signature", unit: opsPerSecond, goal: atLeast(0.90), predict: together,
			probe: b.grpc(sign, plain, false), floors: probes(b.grpc(sign, plain, true), bare(floor.Sign("ECDSA_P256_SHA256", payload), cores))},
		{name: "gRPC Sign Ed25519, to echo + bare signature", unit: opsPerSecond, goal: atLeast(0.90), predict: together,
			probe: b.grpc(ed25519, plain, false), floors: probes(b.grpc(ed25519, plain, true), bare(floor.Sign("ED25519", payload), cores))},
		b.against("gRPC Pipeline of 32 B, 4 streams of 64", 0.65, b.stream, encrypt, plain),
		inUnit("MiB/s", b.against("gRPC Encrypt 1 MiB", 0.92, b.grpc, big, plain)),
		b.delayed("gRPC Encrypt 32 B, p99 at half of saturation", encrypt, plain),
		b.overloaded(encrypt, plain),
		b.auditPart(encrypt, plain),
		b.against("gRPC Encrypt 32 B, TLS", 0.92, b.grpc, encrypt, secure),
		b.against("gRPC Decrypt 32 B, TLS", 0.92, b.grpc, decrypt, secure),
		b.against("REST encrypt 32 B, TLS", 0.85, b.rest, encrypt, secure),
		{name: "bare XAES-256-GCM seal 32 B, one core", unit: opsPerSecond, probe: bare(floor.Seal("XAES_256_GCM", payload), 1)},
		{name: "bare AES-256-GCM seal 32 B, one core", unit: opsPerSecond, probe: bare(floor.Seal("AES_256_GCM", payload), 1)},
		{name: "bare ECDSA P-256 signature, one core", unit: opsPerSecond, probe: bare(floor.Sign("ECDSA_P256_SHA256", payload), 1)},
		{name: "bare fsync of 256 B", unit: opsPerSecond, probe: func(context.Context) (probe, error) { return fsync{b.dir}, nil }},
	}
	return slices.Concat(subjects, b.besidePeer(encrypt, batch, plain), b.loaded(encrypt, plain), b.promised(), b.allocations(), b.inHSM(), b.synced(encrypt), b.growing())
}

func work(operation, key string) load.Work {
	return load.Work{Operation: operation, Namespace: rig.Namespace, Key: key, Payload: payload}
}

func probes(makers ...maker) []maker { return makers }

// against is an operation beside the same call to the no-op server, with the
// server's processor time.
func (b *bench) against(name string, goal float64, protocol func(load.Work, rig.Mode, bool) maker, w load.Work, mode rig.Mode) subject {
	return subject{name: name, unit: opsPerSecond, goal: atLeast(goal), cpu: cpuGoal, cpuName: "server CPU", predict: first,
		probe: protocol(w, mode, false), floors: probes(protocol(w, mode, true))}
}

// inUnit tells a subject's value in another unit, of the same size.
func inUnit(unit string, s subject) subject {
	s.unit = unit
	return s
}

// first takes the only floor as it is.
func first(values []float64) float64 { return values[0] }

// together is the rate of doing one thing after the other.
func together(rates []float64) float64 {
	seconds := 0.0
	for _, rate := range rates {
		seconds += 1 / rate
	}
	return 1 / seconds
}

// calls is the probe of a server.
type calls struct {
	pool  *load.Pool
	pid   int
	items float64 // per call
}

func (c *calls) close() error { return c.pool.Close() }

func (c *calls) measure(ctx context.Context, d time.Duration) (sample, error) {
	before, beforeErr := stat.CPUTime(c.pid)
	result, err := load.Run(ctx, c.pool.Callers, load.Plan{Duration: d})
	if err != nil {
		return sample{}, err
	}
	s := sample{value: result.Rate() * c.items}
	if !c.pool.Windowed {
		s.latency = result.Latency
	}
	if after, err := stat.CPUTime(c.pid); err == nil && beforeErr == nil {
		s.cpu = float64(after-before) / 1e3 / (float64(result.Latency.Count()) * c.items)
	}
	return s, nil
}

func newCalls(pool *load.Pool, err error, pid int, w load.Work) (probe, error) {
	if err != nil {
		return nil, err
	}
	return &calls{pool, pid, float64(max(w.Batch, 1))}, nil
}

// side is where calls go: the server under test or the no-op one, over gRPC or REST.
type side struct {
	load.Target
	pid int
}

// grpc makes the probe of a call over gRPC, to the server or to the no-op one.
func (b *bench) grpc(w load.Work, mode rig.Mode, noop bool) maker {
	return b.grpcBy(callers, w, mode, noop)
}

// grpcBy is grpc with a number of callers.
func (b *bench) grpcBy(callers int, w load.Work, mode rig.Mode, noop bool) maker {
	return func(ctx context.Context) (probe, error) {
		s, err := b.side(ctx, mode, noop, (*rig.Server).AddrGRPC, b.floor.AddrGRPC)
		if err != nil {
			return nil, err
		}
		pool, err := load.GRPC(ctx, s.Target, w, connections, callers)
		return newCalls(pool, err, s.pid, w)
	}
}

// stream makes the probe of operations in Pipeline streams.
func (b *bench) stream(w load.Work, mode rig.Mode, noop bool) maker {
	return func(ctx context.Context) (probe, error) {
		s, err := b.side(ctx, mode, noop, (*rig.Server).AddrGRPC, b.floor.AddrGRPC)
		if err != nil {
			return nil, err
		}
		pool, err := load.Pipeline(ctx, s.Target, w, connections, streams, streams*window)
		return newCalls(pool, err, s.pid, w)
	}
}

// rest makes the probe of a call over REST.
func (b *bench) rest(w load.Work, mode rig.Mode, noop bool) maker {
	return func(ctx context.Context) (probe, error) {
		s, err := b.side(ctx, mode, noop, (*rig.Server).AddrREST, b.floor.AddrREST)
		if err != nil {
			return nil, err
		}
		pool, err := load.REST(ctx, s.Target, w, callers)
		return newCalls(pool, err, s.pid, w)
	}
}

// vault is an operation over the Vault-compatible API beside the no-op HTTP server.
func (b *bench) vault(w load.Work, mode rig.Mode, noop bool) maker {
	if noop {
		return b.rest(w, mode, true)
	}
	return func(ctx context.Context) (probe, error) {
		s, err := b.side(ctx, mode, false, (*rig.Server).AddrVault, nil)
		if err != nil {
			return nil, err
		}
		running, err := b.rig.Serve(ctx, mode)
		if err == nil {
			err = b.rig.MakeTransitKey(ctx, running)
		}
		if err != nil {
			return nil, err
		}
		w.Key = rig.TransitKey
		pool, err := load.Vault(ctx, s.Target, w, callers)
		return newCalls(pool, err, s.pid, w)
	}
}

// side finds the no-op server, or starts the server under test if it does not run
// the way that is asked for.
func (b *bench) side(ctx context.Context, mode rig.Mode, noop bool, addr func(*rig.Server) string, noopAddr func(plaintext bool) string) (side, error) {
	// The same call goes to both, token and all: what a client spends on sending it, and a
	// transport on carrying it, is not the server's doing.
	t := load.Target{Plaintext: mode.Plaintext, CAFile: b.rig.CAFile(), Token: b.rig.Token()}
	if noop {
		t.Addr = noopAddr(mode.Plaintext)
		return side{t, b.floor.PID}, nil
	}
	s, err := b.rig.Serve(ctx, mode)
	if err != nil {
		return side{}, err
	}
	t.Addr = addr(s)
	return side{t, s.PID}, nil
}

// loop is the probe of a bare primitive.
type loop struct {
	newCall    func() (func() error, error)
	goroutines int
}

func bare(newCall func() (func() error, error), goroutines int) maker {
	return func(context.Context) (probe, error) { return loop{newCall, goroutines}, nil }
}

func (l loop) close() error { return nil }

func (l loop) measure(ctx context.Context, d time.Duration) (sample, error) {
	rate, err := floor.Loop(ctx, d, l.goroutines, l.newCall)
	return sample{value: rate}, err
}

// fsync is the probe of the disk below a folder.
type fsync struct{ dir string }

func (f fsync) close() error { return nil }

func (f fsync) measure(ctx context.Context, d time.Duration) (sample, error) {
	result, err := floor.Fsync(ctx, f.dir, d)
	return sample{value: result.Rate(), latency: result.Latency}, err
}
