// Package stat holds the statistics of measurements: latency histograms, medians
// and the processor time of processes. Nothing here keeps state of its own; a
// Histogram belongs to one goroutine at a time.
package stat

import (
	"math/bits"
	"slices"
	"time"
)

// subBits is the number of bits that a histogram keeps of a value: each power of
// two is divided into 64 buckets, so that what it tells is at most 1/64 too low.
const (
	subBits = 6
	buckets = (64 - subBits) << subBits
)

// Histogram counts durations in buckets whose width grows with their value, as
// an HDR histogram does: any duration is kept, with a relative error under 1.6 %.
// The zero value is empty and ready for use.
type Histogram struct {
	counts []uint64 // made at the first Record
	total  uint64
}

// Record counts one duration; a negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
	}
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
}

// Add counts all that other has counted.
func (h *Histogram) Add(other *Histogram) {
	if other.total == 0 {
		return
	}
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
	}
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// Count is the number of durations.
func (h *Histogram) Count() uint64 { return h.total }

// Quantile returns the duration that a share q (0 to 1) of all durations do not
// exceed, to the width of a bucket; 0 when there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := min(uint64(q*float64(h.total)), max(h.total, 1)-1)
	for i, n := range h.counts {
		if rank < n {
			return time.Duration(lowest(i))
		}
		rank -= n
	}
	return 0
}

// bucketOf is exact below 64 and keeps the 7 leading bits above.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// lowest is the least value of a bucket.
func lowest(bucket int) uint64 {
	shift := max(bucket>>subBits-1, 0)
	return uint64(bucket-shift<<subBits) << shift
}

// Median returns the middle one of values, or the mean of the two in the middle;
// 0 when there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
