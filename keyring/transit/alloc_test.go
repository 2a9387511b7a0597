package transit

import (
	"bytes"
	"runtime"
	"testing"
)

// What is allocated where dst has room: nothing by an AEAD under one key.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what is allocated")
	}
	for _, s := range usable() {
		if !s.Type.AcceptsAAD() || s.Derived {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			v := newTestVersion(t, s)
			plaintext, aad := bytes.Repeat([]byte("x"), 32), Params{AAD: []byte("data")}
			ct := must[[]byte](t)(v.Encrypt(nil, plaintext, aad))
			buffer := make([]byte, 0, 4*len(ct))
			assertAllocations(t, "Encrypt", func() { _, _ = v.Encrypt(buffer, plaintext, aad) })
			assertAllocations(t, "Decrypt", func() {
				_, body, _ := ParseVersion("ciphertext", ct)
				_, _ = v.Decrypt(buffer, body, aad)
			})
		})
	}
}

func assertAllocations(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(500, f); n > 0 {
		t.Errorf("%s: %v allocations", what, n)
	}
}

// A buffer without room grows once.
func TestAllocationsWithoutRoom(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what is allocated")
	}
	v, plaintext := newTestVersion(t, Settings{Type: typeOf(t, "aes256-gcm96")}), make([]byte, 32)
	if n := testing.AllocsPerRun(500, func() { _, _ = v.Encrypt(nil, plaintext, Params{}) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// MemorySize steers a cache, so it may be a third off, not ten times.
func TestMemorySize(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector changes what things weigh")
	}
	for _, s := range usable() {
		m := newMaterial(t, s)
		build := func() *Version { return must[*Version](t)(NewVersion(s, 7, m)) }
		weigh(50, build) // libraries make tables, and the runtime its own, on first use
		held, told := weigh(50, build), float64(build().MemorySize())
		t.Logf("%-32s holds %5.0f bytes, tells %5.0f", s, held, told)
		if ratio := told / held; ratio < 0.66 || ratio > 1.5 {
			t.Errorf("%s: MemorySize tells %.0f bytes, the version holds %.0f", s, told, held)
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
