package badger

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keywright/keywright/kms/store"
)

const benchValue = 300 // bytes, about what a key version takes

func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s := open(b, Options{Dir: b.TempDir()})
			value := make([]byte, benchValue)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if _, err := s.Commit(b.Context(), put(fmt.Sprint("key/", n), value)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txn/s")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	const count = 10_000
	s := open(b, Options{Dir: b.TempDir()})
	fill(b, s, count)
	i := 0
	for b.Loop() {
		if _, err := s.Get(b.Context(), fmt.Sprintf("key/%07d", i%count)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkList1000(b *testing.B) {
	s := open(b, Options{Dir: b.TempDir()})
	fill(b, s, 10_000)
	for b.Loop() {
		if page, err := s.List(b.Context(), "key/", "key/0004000", 1000); err != nil || len(page.Records) != 1000 {
			b.Fatal(len(page.Records), err)
		}
	}
}

// BenchmarkOpenMillion opens a store of a million records, and reports how long
// that takes and what it keeps in memory.
func BenchmarkOpenMillion(b *testing.B) {
	const count = 1_000_000
	dir := b.TempDir()
	s := open(b, Options{Dir: dir})
	fill(b, s, count)
	mustClose(b, s)
	for b.Loop() {
		s := open(b, Options{Dir: dir})
		b.StopTimer()
		b.ReportMetric(heapMiB(), "heap-MiB")
		mustClose(b, s)
		b.StartTimer()
	}
}

func heapMiB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func fill(b *testing.B, s store.Store, count int) {
	value := make([]byte, benchValue)
	for from := 0; from < count; from += store.MaxTxnChanges {
		var txn store.Txn
		for i := from; i < min(from+store.MaxTxnChanges, count); i++ {
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprintf("key/%07d", i), Value: value})
		}
		mustCommit(b, s, txn)
	}
}
