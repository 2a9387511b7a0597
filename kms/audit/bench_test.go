package audit

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	for _, bench := range []struct {
		name    string
		writers int
		d       Durability
	}{{"hot/1", 1, Hot}, {"hot/32", 32, Hot}, {"sync/1", 1, Sync}, {"sync/32", 32, Sync}} {
		b.Run(bench.name, func(b *testing.B) {
			l := openLog(b, b.TempDir(), Options{})
			b.ReportAllocs()
			var group sync.WaitGroup
			b.ResetTimer()
			for w := range bench.writers {
				group.Go(func() {
					e := operation("01JDCWQ6W1Z0C5S4T3X2B9A8N7")
					for i := w; i < b.N; i += bench.writers {
						if _, err := l.Append(e, bench.d); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			group.Wait()
			b.ReportMetric(float64(l.Stats().Written)/float64(l.Stats().Writes), "lines/write")
		})
	}
}

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
				if err := fdatasync(file); err != nil {
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
