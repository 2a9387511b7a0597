package stat

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

func TestBucketsAreExactToOnePart64(t *testing.T) {
	for _, v := range []uint64{0, 1, 63, 64, 65, 127, 128, 129, 1000, 1 << 20, 1<<20 + 12345, math.MaxInt64} {
		low := lowest(bucketOf(v))
		if low > v || v-low > v/64 {
			t.Errorf("%d is told as %d", v, low)
		}
	}
	for i := 1; i < bucketOf(math.MaxInt64); i++ {
		if lowest(i) <= lowest(i-1) || bucketOf(lowest(i)) != i {
			t.Fatalf("bucket %d begins with %d, which is in bucket %d", i, lowest(i), bucketOf(lowest(i)))
		}
	}
}

func TestQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, part Histogram
	values := make([]time.Duration, 10_000)
	for i := range values {
		values[i] = time.Duration(math.Exp(random.Float64() * 20))
		if i%2 == 0 {
			h.Record(values[i])
		} else {
			part.Record(values[i])
		}
	}
	h.Add(&part)
	slices.Sort(values)
	for _, q := range []float64{0, 0.5, 0.99, 0.999, 1} {
		want := values[min(int(q*10_000), 9_999)]
		if got := h.Quantile(q); got > want || want-got > want/64 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if h.Count() != 10_000 {
		t.Errorf("counted %d", h.Count())
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	h.Add(new(Histogram))
	if h.Quantile(0.5) != 0 || h.Count() != 0 {
		t.Error("an empty histogram is not empty")
	}
	h.Record(-time.Second)
	if h.Quantile(1) != 0 || h.Count() != 1 {
		t.Error("a negative duration does not count as zero")
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := Median(test.values); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.values, got, test.want)
		}
	}
}

func TestParseCPUTime(t *testing.T) {
	line := "42 (a ) name) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 7\n"
	if got, err := parseCPUTime([]byte(line)); err != nil || got != 3*time.Second {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "42 (x) S 1", "42 (x) S 1 2 3 4 5 6 7 8 9 10 x 50"} {
		if _, err := parseCPUTime([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func TestCPUTimeGrows(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil && os.Getenv("CI") == "" {
		t.Skip("no /proc here") // in CI, what follows fails
	}
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		if after, err := CPUTime(os.Getpid()); err != nil || after > before {
			return
		}
	}
	t.Error("10 s of work took no processor time")
}
