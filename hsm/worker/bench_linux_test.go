package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// callers is how many goroutines call at once, for each processor.
const callers = 8

// BenchmarkUse compares a key's use in this process with that through workers.
func BenchmarkUse(b *testing.B) {
	for _, c := range []struct {
		algorithm string
		use       hsm.Use
		size      int
	}{
		{"ECDSA_P256_SHA256", hsm.UseSign, 32},
		{"RSA_PSS_2048_SHA256", hsm.UseSign, 32},
		{"AES_256_GCM", hsm.UseEncrypt, 32},
	} {
		for _, through := range []struct {
			name    string
			workers int
			pinned  bool
		}{{"in-process", 0, false}, {"1-worker", 1, false}, {"2-workers", 2, false}, {"1-worker-on-1-cpu", 1, true}, {"2-workers-on-2-cpus", 2, true}} {
			b.Run(c.algorithm+"/"+through.name, func(b *testing.B) {
				d := device(b, through.workers)
				if through.pinned {
					pin(b, d)
				}
				id := newID()
				if _, err := d.GenerateKey(b.Context(), id, c.algorithm); err != nil {
					b.Fatal(err)
				}
				use(b, d, id, c.algorithm, c.use, c.size)
			})
		}
	}
}

// device opens a token of its own: in this process, or through n workers.
func device(b *testing.B, n int) hsm.Service {
	config := configFor(softhsmtest.Token(b))
	if n > 0 {
		config.Workers = n
		s, _ := supervise(b, config)
		return s
	}
	d, err := hsm.Open(b.Context(), config.HSM)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	return d
}

// pin gives each worker one processor. Otherwise the threads of one worker take all
// processors of a small machine, and a second worker has nothing to add.
func pin(b *testing.B, d hsm.Service) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		b.Fatal(err)
	}
	workers := *d.(*Supervisor).live.Load()
	if all.Count() < len(workers) {
		skip := b.Skipf
		if os.Getenv("CI") != "" {
			skip = b.Fatalf
		}
		skip("%d workers want as many processors, there are %d", len(workers), all.Count())
	}
	next := 0
	for _, p := range workers {
		for !all.IsSet(next) {
			next++
		}
		pinThreads(b, p.cmd.Process.Pid, next)
		next++
	}
}

// pinThreads pins each thread of a process; threads to come inherit it.
func pinThreads(b *testing.B, pid, processor int) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	var one unix.CPUSet
	one.Set(processor)
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err == nil {
			err = unix.SchedSetaffinity(id, &one)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it ended
			b.Fatal(err)
		}
	}
}

// idleCommand makes the test binary a worker whose device takes no time.
const idleCommand = "idle-hsm-worker"

type idleDevice struct{ refuser }

func (idleDevice) Random(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil }

func idle() {
	conn, err := inherited(socketFD)
	if err != nil {
		os.Exit(3)
	}
	s := newServer(conn, nil)
	debug.SetGCPercent(gcPercent)
	go func() { _ = s.sender.Run(conn) }() // a Supervisor that is gone ends the loop too
	for range 2 {                          // Hello, PIN
		if _, err := s.frames.Next(); err != nil {
			os.Exit(3)
		}
	}
	_ = s.sender.Send(wire.Ready, 0, func(to []byte) []byte { return appendStatus(to, hsm.Status{SessionsMax: 16}) })
	_ = s.loop(idleDevice{})
}

// BenchmarkWire is what the way through a worker costs by itself.
func BenchmarkWire(b *testing.B) {
	config := configFor(softhsmtest.Token(b))
	config.Command = []string{self, idleCommand}
	s, _ := supervise(b, config)
	parallel(b, s, func() error {
		_, err := s.Random(b.Context(), 64)
		return err
	})
}

func use(b *testing.B, d hsm.Service, id hsm.KeyID, algorithm string, use hsm.Use, size int) {
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	parallel(b, d, func() error {
		_, err := d.UseKey(b.Context(), id, algorithm, use, data, nil)
		return err
	})
}

func parallel(b *testing.B, d hsm.Service, call func() error) {
	b.SetParallelism(callers)
	b.ReportAllocs()
	before, workersBefore := cpu(b, os.Getpid()), workersCPU(b, d)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	// What counts on a machine that others use as well.
	b.ReportMetric(float64((cpu(b, os.Getpid())-before).Microseconds())/float64(b.N), "server-µs/op")
	b.ReportMetric(float64((workersCPU(b, d)-workersBefore).Microseconds())/float64(b.N), "workers-µs/op")
}

func workersCPU(b *testing.B, d hsm.Service) (sum time.Duration) {
	s, ok := d.(*Supervisor)
	if !ok {
		return 0
	}
	for _, p := range *s.live.Load() {
		sum += cpu(b, p.cmd.Process.Pid)
	}
	return sum
}

// cpu is the processor time that a process has taken (proc_pid_stat(5)).
func cpu(b *testing.B, pid int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100
	_, rest, _ := strings.Cut(read(b, pid, "stat"), ") ")
	var sum int
	for _, field := range strings.Fields(rest)[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		sum += ticks
	}
	return time.Duration(sum) * tick
}
