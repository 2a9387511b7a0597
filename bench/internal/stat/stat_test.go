package stat

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
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

func TestCPUTimeGrows(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) && runtime.GOOS != "linux" {
		t.Skip("told on Linux alone")
	}
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for time.Since(start) < 20*time.Millisecond { // work
	}
	after, err := CPUTime(os.Getpid())
	if err != nil || after <= before || after-before > 10*time.Since(start)*time.Duration(runtime.NumCPU()) {
		t.Errorf("%v of work took %v, %v", time.Since(start), after-before, err)
	}
	if _, err := CPUTime(1 << 28); err == nil {
		t.Error("the time of no process was told")
	}
}
