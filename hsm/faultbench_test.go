package hsm_test

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// eachBenchmarkWay runs a benchmark in process and through a worker.
func eachBenchmarkWay(b *testing.B, run func(*testing.B, func(hsm.Config) (hsm.Service, error))) {
	b.Run("in-process", func(b *testing.B) {
		run(b, func(c hsm.Config) (hsm.Service, error) { return hsm.Open(b.Context(), c) })
	})
	b.Run("worker", func(b *testing.B) {
		run(b, func(c hsm.Config) (hsm.Service, error) {
			return worker.Open(b.Context(), worker.Config{HSM: c, Env: worker.DefaultEnv()})
		})
	})
}

// behindModule opens a token behind the fault module.
func behindModule(b *testing.B, open func(hsm.Config) (hsm.Service, error), sessions int) (hsm.Service, *hsmtest.Module) {
	b.Helper()
	token := softhsmtest.Token(b)
	module := hsmtest.New(b, token.Module)
	config := configFor(token)
	config.Module, config.MaxSessions, config.Timeout = module.Path, sessions, time.Minute
	d, err := open(config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		module.Reset()
		_ = d.Close()
	})
	return d, module
}

// A device that takes 2 ms for each PKCS#11 call, and has 64 sessions, is called by 64
// at once. The metric "ratio" is the rate reached to that of 64 sessions that are never
// idle; "calls/op" is how many PKCS#11 calls one operation takes. Decryption costs
// SoftHSM2 least, whose own work is the device's too here. With 10 ms, processors are
// not what limits the rate.
func BenchmarkSlowDevice(b *testing.B) {
	eachBenchmarkWay(b, func(b *testing.B, open func(hsm.Config) (hsm.Service, error)) {
		d, module := behindModule(b, open, slowSessions)
		root, err := d.GenerateRoot(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		blob, err := d.Wrap(b.Context(), root.ID, 1, make([]byte, 32), nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, delay := range []time.Duration{slowDelay, 10 * time.Millisecond} {
			b.Run(delay.String(), func(b *testing.B) {
				slowly(b, module, delay, func() error { _, err := d.Unwrap(b.Context(), blob, nil); return err })
			})
		}
	})
}

const (
	slowDelay    = 2 * time.Millisecond
	slowSessions = 64
)

func slowly(b *testing.B, module *hsmtest.Module, delay time.Duration, call func() error) {
	module.InjectAll(hsmtest.Fault{Delay: delay})
	atOnce(b, slowSessions, 4*slowSessions, call) // opens the sessions
	before := module.AllCalls()
	b.ResetTimer()
	atOnce(b, slowSessions, b.N, call)
	b.StopTimer()
	calls := float64(module.AllCalls()-before) / float64(b.N)
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(calls, "calls/op")
	b.ReportMetric(rate, "ops/s")
	b.ReportMetric(rate/(slowSessions/(calls*delay.Seconds())), "ratio")
}

// atOnce makes n calls by a number of callers.
func atOnce(b *testing.B, callers, n int, call func() error) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A flood of tampered ciphertexts against an HSM-resident key: the metric
// "rss-growth-%" is by how much the resident memory of this process and the module's
// grew during it, after a tenth of it as a start. Run it with -benchtime 1000000x.
func BenchmarkTamperedFlood(b *testing.B) {
	eachBenchmarkWay(b, func(b *testing.B, open func(hsm.Config) (hsm.Service, error)) {
		d, module := behindModule(b, open, hsm.DefaultMaxSessions)
		keys, ok := d.(hsm.Keys)
		if !ok {
			b.Fatal("no HSM-resident keys")
		}
		id := newID()
		if _, err := keys.GenerateKey(b.Context(), id, "AES_256_GCM"); err != nil {
			b.Fatal(err)
		}
		ciphertext, err := keys.UseKey(b.Context(), id, "AES_256_GCM", hsm.UseEncrypt, make([]byte, 1024), nil)
		if err != nil {
			b.Fatal(err)
		}
		ciphertext[len(ciphertext)-1] ^= 1
		tampered := func() error {
			_, err := keys.UseKey(b.Context(), id, "AES_256_GCM", hsm.UseDecrypt, ciphertext, nil)
			if errors.Is(err, hsm.ErrDecrypt) {
				return nil
			}
			return errors.Join(errors.New("not told as tampered"), err)
		}
		generation := d.Status().Generation
		atOnce(b, 4, max(b.N/10, 100), tampered)
		before := bothMemories(b, module)
		b.ResetTimer()
		atOnce(b, 4, b.N, tampered)
		b.StopTimer()
		b.ReportMetric(100*float64(bothMemories(b, module)-before)/float64(before), "rss-growth-%")
		if s := d.Status(); !s.Healthy || s.Generation != generation {
			b.Errorf("the breaker opened: %+v", s)
		}
	})
}

// bothMemories is the resident memory of this process and of the module's.
func bothMemories(b *testing.B, module *hsmtest.Module) int {
	total := residentMemory(b, os.Getpid())
	if module.Process() != os.Getpid() {
		total += residentMemory(b, module.Process())
	}
	return total
}
