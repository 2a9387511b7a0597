package kms

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Each benchmark here grows one thing, and compares what is done then with the same on
// an installation that has one of it. The metric "…-of-one" is the rate that is left:
// the median of rounds that alternate between the two, so that a busy machine falls on
// both alike.

// growth are the sizes.
var growth = []int{1, 10, 100, 1_000, 10_000, 100_000, 1_000_000}

func grow(b *testing.B, most int, measure func(b *testing.B, n int)) {
	for _, n := range growth {
		if n <= most {
			b.Run(fmt.Sprint(n), func(b *testing.B) { measure(b, n) })
		}
	}
}

// left is how much of one's rate many keeps.
func left(one, many func() error) (float64, error) {
	const rounds, least = 15, 20 * time.Millisecond
	calls, ratios := 1, make([]float64, 0, rounds)
	took := func(call func() error) (time.Duration, error) {
		began := time.Now()
		for range calls {
			if err := call(); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
	for len(ratios) < rounds {
		first, err := took(one)
		if err != nil {
			return 0, err
		}
		second, err := took(many)
		if err != nil {
			return 0, err
		}
		if first < least && second < least {
			calls *= 2
			continue
		}
		ratios = append(ratios, first.Seconds()/second.Seconds())
	}
	slices.Sort(ratios)
	return ratios[rounds/2], nil
}

// report compares a call on two installations, and leaves the time of the second as
// the benchmark's own.
func report(b *testing.B, metric string, one, many func() error) {
	b.Helper()
	ratio, err := left(one, many)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := many(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(ratio, metric)
}

// grown is an installation with a namespace and n keys, key-0 to key-(n-1).
func grown(b *testing.B, keys int) *testInstallation {
	in := newInstallation(b)
	in.namespace("pay")
	in.fill(keys)
	return in
}

// perCommit is how many keys or versions are made at once: a commit takes 128 records,
// of which a key has 5.
const perCommit = 25

// planned commits what it plans without an audit line, to fill a store quickly.
func (in *testInstallation) planned(plan func(ctx context.Context, t *trace, tx *transaction) error) {
	in.t.Helper()
	t, tx := in.begin(admin(), policy.CreateKey), &transaction{}
	if err := plan(context.Background(), t, tx); err != nil {
		in.t.Error(err)
	}
	// Nobody else is there who could have made them: that leaves room for more.
	tx.txn.Expect = slices.DeleteFunc(tx.txn.Expect, func(e store.Expect) bool { return e.Revision == 0 })
	if err := tx.commit(context.Background(), in.Service); err != nil {
		in.t.Error(err) // not from the test's own goroutine
	}
}

func (in *testInstallation) fill(n int) {
	in.t.Helper()
	algorithm, _ := keyring.Lookup("AES_256_GCM")
	ns := must[*namespace](in.t)(in.findNamespace(context.Background(), "pay"))
	var next atomic.Int64
	var filling sync.WaitGroup
	for range 16 { // so that one sync of the disk serves many commits
		filling.Go(func() {
			for from := int(next.Add(perCommit)) - perCommit; from < n; from = int(next.Add(perCommit)) - perCommit {
				in.planned(func(ctx context.Context, t *trace, tx *transaction) error {
					for i := from; i < min(from+perCommit, n); i++ {
						if _, err := in.planKey(ctx, t, tx, ns, newID(), algorithm, CreateKeyRequest{Namespace: "pay", Key: nthKey(i)}); err != nil {
							return err
						}
					}
					return nil
				})
			}
		})
	}
	filling.Wait()
}

func nthKey(i int) string { return fmt.Sprintf("key-%d", i) }

// addVersions gives key-0 versions until it has n.
func (in *testInstallation) addVersions(n int) {
	in.t.Helper()
	_, k, err := in.keyResource(context.Background(), "pay", nthKey(0))
	if err != nil {
		in.t.Fatal(err)
	}
	for at := (&target{k}); ; {
		if in.t.Failed() {
			in.t.FailNow()
		}
		more := 0
		in.planned(func(ctx context.Context, t *trace, tx *transaction) error {
			now, d, err := in.currentActive(ctx, at)
			if err != nil {
				return err
			}
			for more = min(2*perCommit, n-int(now.value.LatestVersion)); more > 0 && len(tx.txn.Puts) < 4*perCommit; {
				now.value.LatestVersion++
				if err := in.putVersion(t, tx, d, k.ns.ID, now.value.Key, k.algorithm, now.value.LatestVersion); err != nil {
					return err
				}
				more--
			}
			more = n - int(now.value.LatestVersion)
			now.value.PrimaryVersion, now.value.PrimaryCreated = now.value.LatestVersion, in.now().UTC()
			in.putKey(tx, d, at, now)
			return nil
		})
		if more == 0 {
			return
		}
	}
}

// uses encrypts with one of the first keys after another.
func (in *testInstallation) uses(keys int) func() error {
	call, next := as(policy.Token, "app"), 0
	requests := make([]EncryptRequest, keys)
	for i := range requests {
		requests[i] = EncryptRequest{Namespace: "pay", Key: nthKey(i), Plaintext: make([]byte, 32)}
	}
	return func() error {
		next = (next + 1) % keys
		_, err := in.Encrypt(context.Background(), call, &requests[next])
		return err
	}
}

func (in *testInstallation) rotates() error {
	_, err := in.RotateKey(context.Background(), admin(), KeyRef{Namespace: "pay", Key: nthKey(0)})
	return err
}

func BenchmarkVersions(b *testing.B) {
	grow(b, 100_000, func(b *testing.B, n int) {
		one, many := grown(b, 1), grown(b, 1)
		many.addVersions(n)
		rotation, err := left(one.rotates, many.rotates)
		if err != nil {
			b.Fatal(err)
		}
		report(b, "encrypt-of-one", one.uses(1), many.uses(1))
		b.ReportMetric(rotation, "rotate-of-one")
	})
}

func BenchmarkNumberOfKeys(b *testing.B) {
	grow(b, 1_000_000, func(b *testing.B, n int) {
		one, many := grown(b, 1), grown(b, n)
		many.close()
		debug.FreeOSMemory()
		before := resident(b)
		began := time.Now()
		many.open()
		opened := time.Since(began)
		debug.FreeOSMemory()
		idle := resident(b) - before
		report(b, "encrypt-of-one", one.uses(1), many.uses(1))
		b.ReportMetric(opened.Seconds(), "open-s")
		b.ReportMetric(float64(idle)/(1<<20), "idle-MiB")
	})
}

func BenchmarkNumberOfPolicies(b *testing.B) {
	grow(b, 10_000, func(b *testing.B, n int) {
		one, many := grown(b, 1), grown(b, 1)
		for i := range n - 1 {
			many.put("", fmt.Sprintf("other-%d", i), fmt.Sprintf(`permit (principal == Token::"other-%d", action, resource in Namespace::"pay");`, i))
		}
		report(b, "encrypt-of-one", one.uses(1), many.uses(1))
	})
}

func BenchmarkNumberOfNamespaces(b *testing.B) {
	grow(b, 10_000, func(b *testing.B, n int) {
		one, many := grown(b, 1), grown(b, 1)
		var next atomic.Int64
		var filling sync.WaitGroup
		for range 16 { // so that one sync of the disk serves many
			filling.Go(func() {
				for i := next.Add(1); i < int64(n); i = next.Add(1) {
					if _, err := many.CreateNamespace(context.Background(), admin(), CreateNamespaceRequest{Namespace: fmt.Sprint("other-", i)}); err != nil {
						b.Error(err)
					}
				}
			})
		}
		filling.Wait()
		report(b, "encrypt-of-one", one.uses(1), many.uses(1))
	})
}

func BenchmarkLengthOfLog(b *testing.B) {
	grow(b, 1_000_000, func(b *testing.B, n int) {
		one, many := grown(b, 1), grown(b, 1)
		use := many.uses(1)
		for range n {
			if err := use(); err != nil {
				b.Fatal(err)
			}
		}
		report(b, "encrypt-of-one", one.uses(1), many.uses(1))
	})
}

func BenchmarkHotKey(b *testing.B) {
	const hot = 10_000
	in := grown(b, hot)
	in.close() // with what filling it left in memory
	in.open()
	use := in.uses(hot)
	before := heap()
	for range hot {
		if err := use(); err != nil {
			b.Fatal(err)
		}
	}
	kept := heap() - before
	for b.Loop() {
		if err := use(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(kept)/hot, "B/hot-key")
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// resident is the process's memory without what it maps of files, which the system
// takes back when it wants to (RssAnon of proc_pid_status(5)).
func resident(b *testing.B) int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil && os.Getenv("CI") == "" {
		b.Skipf("told on Linux alone: %v", err)
	}
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "RssAnon:")
	var kib int64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		b.Fatal(err)
	}
	return kib << 10
}
