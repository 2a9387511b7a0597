package audit

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/cputime"
	"github.com/keywright/keywright/kms/audit/internal/disk"
)

func BenchmarkAppend(b *testing.B) {
	const never = math.MaxInt
	for _, bench := range []struct {
		name    string
		writers int
		sync    int // one line in so many waits for its fdatasync
		options Options
	}{
		{"hot/1", 1, never, Options{}},
		{"hot/32", 32, never, Options{}},
		{"sync/1", 1, 1, Options{}},
		{"sync/32", 32, 1, Options{}},
		// As in a server of 20,000 calls a second, which shares an fdatasync every
		// 10 ms among 200 lines: without a pause between calls there would be more.
		{"served", 8, 200, Options{Interval: time.Hour}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			l := openLog(b, b.TempDir(), bench.options)
			b.ReportAllocs()
			var group sync.WaitGroup
			b.ResetTimer()
			spent := cputime.Used()
			for w := range bench.writers {
				group.Go(func() {
					e := operation("")
					for i := w; i < b.N; i += bench.writers {
						e.RequestID = requestIDs[i%len(requestIDs)]
						d := Hot
						if bench.sync != never && i%bench.sync == 0 {
							d = Sync
						}
						if _, err := l.Append(e, d); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			cputime.Report(b, spent, b.N, "line")
			b.ReportMetric(float64(l.Stats().Written)/float64(l.Stats().Writes), "lines/write")
		})
	}
}

// requestIDs are what makes one line differ from the other.
var requestIDs = func() []string {
	ids := make([]string, 1<<16)
	for i := range ids {
		ids[i] = fmt.Sprintf("01JDCWQ6W1Z0C5S4T3X2B%05d", i)
	}
	return ids
}()

// BenchmarkFloor is the least that one line can cost: the bare system calls.
func BenchmarkFloor(b *testing.B) {
	line := append(operation("01JDCWQ6W1Z0C5S4T3X2B9A8N7").AppendJSON(nil), '\n')
	for _, synced := range []bool{false, true} {
		name := map[bool]string{false: "write", true: "write+fdatasync"}[synced]
		b.Run(name, func(b *testing.B) {
			file, err := os.OpenFile(filepath.Join(b.TempDir(), "floor"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
			for b.Loop() {
				if _, err := file.Write(line); err != nil {
					b.Fatal(err)
				}
				if !synced {
					continue
				}
				if err := disk.Datasync(file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	e := operation("01JDCWQ6W1Z0C5S4T3X2B9A8N7")
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = e.AppendJSON(line[:0])
	}
	b.SetBytes(int64(len(line)))
}

func BenchmarkParse(b *testing.B) {
	line := operation("01JDCWQ6W1Z0C5S4T3X2B9A8N7").AppendJSON(nil)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEntry(line); err != nil {
			b.Fatal(err)
		}
	}
}
