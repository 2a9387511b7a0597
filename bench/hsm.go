package main

import "github.com/keywright/keywright/bench/internal/gobench"

const (
	hsmPackage    = "hsm"
	workerPackage = "hsm/worker"
)

// inHSM are the figures of keys that live in the token, at package hsm, without a
// server around them. Eight callers are compared with as many bare loops in one
// process: a single caller pays for the change of goroutine, by which a call that
// hangs can be given up, with some 4 µs.
func (b *bench) inHSM() []subject {
	var subjects []subject
	for _, c := range []struct{ name, run string }{
		{"ECDSA P-256 sign, and verify,", "ECDSA_P256_SHA256/verified"},
		{"RSA-2048 sign", "RSA_PKCS1_2048_SHA256/bare"},
		{"AES-GCM 32 B", "AES_256_GCM/bare"},
	} {
		subjects = append(subjects, subject{name: "HSM key: " + c.name + " to bare PKCS#11 loops", unit: "of it", goal: atLeast(0.9), predict: first,
			probe: b.beside(hsmPackage, gobench.Run{Name: "Resident/" + c.run + "/callers=8"}, metric("of-bare")), floors: probes(promise(1, 0))})
	}
	for _, c := range []struct{ name, algorithm string }{
		{"ECDSA P-256 sign", "ECDSA_P256_SHA256"}, {"RSA-2048 sign", "RSA_PSS_2048_SHA256"},
	} {
		subjects = append(subjects, b.through("HSM key: "+c.name+" through a worker, to in process", 0.7, c.algorithm, "1-worker", "in-process"))
	}
	return append(subjects,
		b.through("HSM key: ECDSA P-256 sign, two workers on a processor each, to one", 1.5, "ECDSA_P256_SHA256", "2-workers-on-2-cpus", "1-worker-on-1-cpu"),
		subject{name: "64 callers of a device of 2 ms a call, to 64 busy sessions", unit: "of it", goal: atLeast(0.9), predict: first,
			probe: b.beside(hsmPackage, gobench.Run{Name: "SlowDevice/in-process/2ms"}, metric("ratio")), floors: probes(promise(1, 0))})
}

// through compares two ways to a key in the token.
func (b *bench) through(name string, goal float64, algorithm, way, other string) subject {
	use := func(way string) maker {
		return b.beside(workerPackage, gobench.Run{Name: "Use/" + algorithm + "/" + way}, metric(opsPerSecond))
	}
	return subject{name: name, unit: opsPerSecond, goal: atLeast(goal), predict: first, probe: use(way), floors: probes(use(other))}
}

// metric takes one of a benchmark's own metrics.
func metric(unit string) reading {
	return func(r gobench.Result) sample { return sample{value: r[unit]} }
}
