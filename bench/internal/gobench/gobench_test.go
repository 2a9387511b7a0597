package gobench

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	const printed = `goos: linux
cpu: some processor @ 2.80GHz
BenchmarkLog
    bench_test.go:41: 1000000 entries appended in 11.970359079s, 7.356µs of CPU each
BenchmarkLog/search
BenchmarkLog/search-2         	     128	   9070187 ns/op
BenchmarkLog/verify-2 	       1	1386714297 ns/op	      1324 cpu-ns/entry	    7.21129e+05 entries/s
BenchmarkBroken 	       1	fast ns/op
PASS
`
	for name, want := range map[string]Result{
		"BenchmarkLog/search-2": {"ns/op": 9070187},
		"BenchmarkLog/verify-2": {"ns/op": 1386714297, "cpu-ns/entry": 1324, "entries/s": 721129},
		"BenchmarkLog/search":   nil, // begun with -v, no result
		"BenchmarkLog/prove-2":  nil,
		"BenchmarkBroken":       nil,
	} {
		got, err := parse(printed, name)
		if (err == nil) != (want != nil) || !maps.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, want)
		}
	}
}

// BenchmarkSelf is what TestRun runs.
func BenchmarkSelf(b *testing.B) {
	for _, name := range []string{"one", "one+", "fails"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if name == "fails" {
					b.Fatal("on purpose")
				}
			}
			b.ReportMetric(float64(len(name)), "letters")
		})
	}
}

func TestRun(t *testing.T) {
	t.Chdir("../../..")
	binary, err := Build(t.Context(), t.TempDir(), "bench/internal/gobench")
	if err != nil {
		t.Fatal(err)
	}
	for name, letters := range map[string]float64{"Self/one": 3, "Self/one+": 4} {
		for _, cpus := range []int{1, 2, 0} {
			r, err := binary.Run(t.Context(), Run{Name: name, Time: time.Millisecond, CPUs: cpus})
			if err != nil || r["letters"] != letters || r["ns/op"] <= 0 {
				t.Errorf("%s on %d: %v, %v", name, cpus, r, err)
			}
		}
	}
	for name, want := range map[string]string{"Self/fails": "on purpose", "Self/none": "no result"} {
		if r, err := binary.Run(t.Context(), Run{Name: name, Time: time.Millisecond}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v; want an error with %q", name, r, err, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := binary.Run(ended, Run{Name: "Self/one", Time: time.Millisecond}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want to be interrupted", err)
	}
	if _, err := Build(t.Context(), t.TempDir(), "bench/internal/none"); err == nil || !strings.Contains(err.Error(), "bench/internal/none") {
		t.Errorf("a package that does not exist: %v", err)
	}
}
