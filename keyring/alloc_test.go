package keyring

import (
	"bytes"
	"runtime"
	"testing"
)

// allowedAllocations per Seal or Open into a buffer with room. XAES makes a
// cipher for its derived key; tink's AES-SIV is not listed, it allocates freely.
var allowedAllocations = map[string]float64{
	"XAES_256_GCM":       2,
	"AES_256_GCM":        0,
	"AES_128_GCM":        0,
	"CHACHA20_POLY1305":  0,
	"XCHACHA20_POLY1305": 0,
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random, so allocations cannot be counted")
	}
	for name, allowed := range allowedAllocations {
		t.Run(name, func(t *testing.T) {
			v := newTestVersion(t, row(t, name))
			for kind, aad := range aads(t) {
				plaintext := bytes.Repeat([]byte("x"), 32)
				ct := must[[]byte](t)(v.Seal(nil, plaintext, aad))
				buffer := make([]byte, 0, len(ct))
				assertAllocations(t, "Seal, AAD "+kind, allowed, func() { _, _ = v.Seal(buffer, plaintext, aad) })
				assertAllocations(t, "Open, AAD "+kind, allowed, func() { _, _ = v.Open(buffer, ct, aad) })
			}
		})
	}
}

func TestMACAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools at random, so allocations cannot be counted")
	}
	v := newTestVersion(t, row(t, "HMAC_SHA256"))
	message := []byte("message")
	assertAllocations(t, "MAC", 1, func() { _, _ = v.MAC(message) })
}

func assertAllocations(t *testing.T, what string, allowed float64, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(500, f); n > allowed {
		t.Errorf("%s: %v allocations, want at most %v", what, n, allowed)
	}
}

// MemorySize steers a cache, so it may be a third off, not ten times.
func TestMemorySize(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what things weigh")
	}
	for _, a := range usable("") {
		build := func() *Version {
			v := newTestVersion(t, a)
			_, _ = v.MAC(nil) // makes its state on first use
			return v
		}
		weigh(50, build) // libraries make tables, and the runtime its own, on first use
		held, told := weigh(50, build), float64(build().MemorySize())
		t.Logf("%-24s holds %5.0f bytes, tells %5.0f", a.name, held, told)
		if ratio := told / held; ratio < 0.66 || ratio > 1.5 {
			t.Errorf("%s: MemorySize tells %.0f bytes, the version holds %.0f", a.name, told, held)
		}
	}
}

// weigh is how many bytes of the heap each of n versions holds.
func weigh(n int, build func() *Version) float64 {
	versions := make([]*Version, n)
	heap() // what others left in pools survives one collection, not two
	before := heap()
	for i := range versions {
		versions[i] = build()
	}
	after := heap()
	runtime.KeepAlive(versions)
	return float64(after-before) / float64(n)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
