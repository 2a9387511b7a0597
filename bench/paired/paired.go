// Package paired compares the time of one thing with that of another so that what else
// the machine does falls on both alike: they take turns of a fraction of a millisecond
// in one goroutine, and the median of the turns' ratios is told.
package paired

import (
	"slices"
	"strconv"
	"time"
)

// turns is how many pairs are measured, and turn how long one half of a pair takes at
// least.
const (
	turns = 500
	turn  = 50 * time.Microsecond
)

// Ratio is how many times longer own takes than bare: the median of the turns.
func Ratio(own, bare func()) float64 {
	calls := [2]int{fitting(own), fitting(bare)}
	ratios := make([]float64, turns)
	for i := range ratios {
		spent := took(own, calls[0]).Seconds() / float64(calls[0])
		ratios[i] = spent / (took(bare, calls[1]).Seconds() / float64(calls[1]))
	}
	slices.Sort(ratios)
	return ratios[turns/2]
}

// fitting is how many calls fill a turn.
func fitting(call func()) int {
	n := 1
	for took(call, n) < turn {
		n *= 2
	}
	return n
}

func took(call func(), n int) time.Duration {
	began := time.Now()
	for range n {
		call()
	}
	return time.Since(began)
}

// Benchmark is what Report needs of a testing.B.
type Benchmark interface {
	Loop() bool
	ReportAllocs()
	ReportMetric(value float64, unit string)
}

// Report runs own as a benchmark does, and reports its ratio to bare as "of-bare".
func Report(b Benchmark, own, bare func()) {
	ratio := Ratio(own, bare)
	b.ReportAllocs()
	for b.Loop() {
		own()
	}
	b.ReportMetric(ratio, "of-bare")
}

// Plain returns what takes some 100 ns of Go's own code, without allocating: the
// yardstick of what is neither cipher nor system call.
func Plain() func() {
	buffer, seen := make([]byte, 0, 128), map[string]int{"alpha": 1, "beta": 2, "gamma": 3}
	return func() {
		buffer = buffer[:0]
		for name := range seen {
			buffer = append(buffer, name...)
			buffer = strconv.AppendInt(buffer, int64(seen[name])*1_000_003, 10)
		}
	}
}
