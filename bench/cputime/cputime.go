// Package cputime tells benchmarks the processor time they take, which, unlike the
// time on the wall, does not grow with what else the machine does. It keeps no
// state.
package cputime

import (
	"syscall"
	"time"
)

// Used returns the processor time that this process has used so far, user and
// system (getrusage(2)).
func Used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it fails for wrong arguments alone
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Benchmark takes metrics, as a *testing.B does.
type Benchmark interface {
	ReportMetric(n float64, unit string)
}

// Report makes the processor time since start (what Used returned) a metric of b:
// ns for each of so many things, called unit.
func Report(b Benchmark, start time.Duration, things int, unit string) {
	b.ReportMetric(float64(Used()-start)/float64(things), "cpu-ns/"+unit)
}
