package cputime

import (
	"testing"
	"time"
)

func TestUsedCountsWorkAndNoWaiting(t *testing.T) {
	start, began := Used(), time.Now()
	time.Sleep(200 * time.Millisecond)
	if waited := Used() - start; waited > 100*time.Millisecond {
		t.Errorf("%v used while waiting", waited)
	}
	start = Used()
	for Used()-start < 50*time.Millisecond {
		if time.Since(began) > 30*time.Second {
			t.Fatal("30 s of work took no processor time")
		}
	}
	r := testing.Benchmark(func(b *testing.B) {
		start := Used()
		for b.Loop() {
			time.Sleep(time.Microsecond)
		}
		Report(b, start, b.N, "nap")
	})
	if r.Extra["cpu-ns/nap"] <= 0 {
		t.Errorf("metrics %v", r.Extra)
	}
}
