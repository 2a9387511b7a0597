package verify_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/cputime"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/verify"
)

// envEntries says how many entries the log of BenchmarkLog has; without it there
// is no such benchmark. Ten million take some minutes and 5 GB, in the directory
// that envDir names, where they stay for another time, or in a temporary one:
//
//	KEYWRIGHT_AUDIT_ENTRIES=10000000 go test ./kms/audit/verify -run '^$' -bench Log
const (
	envEntries = "KEYWRIGHT_AUDIT_ENTRIES"
	envDir     = "KEYWRIGHT_AUDIT_DIR"
)

// BenchmarkLog measures what must stay fast in a long log.
func BenchmarkLog(b *testing.B) {
	entries, err := strconv.Atoi(os.Getenv(envEntries))
	if err != nil {
		b.Skipf("needs %s, the number of entries", envEntries)
	}
	dir := cmp.Or(os.Getenv(envDir), b.TempDir())
	l, err := audit.Open(dir, audit.Options{Interval: time.Second})
	must(b, err)
	defer l.Close()
	start, spent := time.Now(), cputime.Used()
	fillLog(b, l, int(l.Next()), entries)
	b.Logf("%d entries appended in %v, %v of CPU each", entries, time.Since(start), (cputime.Used()-spent)/time.Duration(entries))
	p := edPair(b, origin, "a")
	must(b, l.SaveKeys(begin(b, p)))
	must(b, l.SaveCheckpoint(sign(b, l, l.Next(), p), l.Next()))

	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			id, found := requestID(rand.IntN(entries)), 0
			must(b, l.Scan(b.Context(), audit.Filter{RequestID: id}, func(audit.Entry) error { found++; return nil }))
			if found != 1 {
				b.Fatalf("%d entries of %s", found, id)
			}
		}
	})
	b.Run("newest of a principal", func(b *testing.B) {
		for b.Loop() {
			found := 0
			f := audit.Filter{Principal: fmt.Sprintf("Workload::\"internal:spiffe://example.org/app%d\"", rand.IntN(1000)), Limit: 10, Newest: true}
			must(b, l.Scan(b.Context(), f, func(audit.Entry) error { found++; return nil }))
			if found == 0 {
				b.Fatal("no entry of the principal")
			}
		}
	})
	b.Run("prove", func(b *testing.B) {
		for b.Loop() {
			n := rand.Uint64N(l.Next())
			line, err := l.Line(n)
			must(b, err)
			signed, size := l.Checkpoint()
			hashes, err := l.Inclusion(n, size)
			must(b, err)
			_, err = checkpoint.Proof{Index: n, Hashes: hashes, Note: signed}.Verify(line, p.Key)
			must(b, err)
		}
	})
	b.Run("verify", func(b *testing.B) {
		spent := cputime.Used()
		for b.Loop() {
			report, err := verify.Dir(b.Context(), dir, verify.Options{Key: &p.Key})
			must(b, err)
			if report.Lines != uint64(entries) {
				b.Fatalf("%+v", report)
			}
		}
		b.ReportMetric(float64(entries)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		cputime.Report(b, spent, entries*b.N, "entry")
	})
}

func requestID(n int) string { return fmt.Sprintf("01JDCWQ6W1Z0C5S4%010d", n) }

// fillLog appends as a busy server does.
func fillLog(b *testing.B, l *audit.Log, from, entries int) {
	b.Helper()
	const writers = 64
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := from + w; n < entries; n += writers {
				e := entry(requestID(n))
				e.Time = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond)
				e.Principal = fmt.Sprintf("Workload::\"internal:spiffe://example.org/app%d\"", n%1000)
				e.Namespace, e.Key, e.KeyID = fmt.Sprintf("n%d", n%50), fmt.Sprintf("k%d", n%5000), uint64(1+n%5000)
				if _, err := l.Append(e, audit.Hot); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}
