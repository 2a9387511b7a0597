package floor

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/keyring"
)

// chunk is the number of calls between two looks at the clock, so that the clock
// is not what is measured.
const chunk = 16

// Loop makes calls in a number of goroutines for a while and returns how many it
// made per second. Each goroutine gets a function of its own.
func Loop(ctx context.Context, d time.Duration, goroutines int, newCall func() (func() error, error)) (float64, error) {
	calls := make([]func() error, goroutines)
	for i := range calls {
		var err error
		if calls[i], err = newCall(); err != nil {
			return 0, err
		}
	}
	counts, failures := make([]int, goroutines), make([]error, goroutines)
	start := time.Now()
	var running sync.WaitGroup
	for i, call := range calls {
		running.Go(func() { counts[i], failures[i] = loop(ctx, start.Add(d), call) })
	}
	running.Wait()
	elapsed, total := time.Since(start).Seconds(), 0
	for i := range counts {
		if failures[i] != nil {
			return 0, failures[i]
		}
		total += counts[i]
	}
	return float64(total) / elapsed, nil
}

func loop(ctx context.Context, end time.Time, call func() error) (n int, err error) {
	for time.Now().Before(end) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		for range chunk {
			if err := call(); err != nil {
				return n, err
			}
		}
		n += chunk
	}
	return n, nil
}

// newVersion makes a key version of the algorithm called name.
func newVersion(name string) (*keyring.Version, error) {
	a, ok := keyring.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("keyring has no algorithm %s", name)
	}
	m, err := a.Generate(rand.Reader)
	if err != nil {
		return nil, err
	}
	return keyring.NewVersion(a, 1, 1, m)
}

// Seal is the bare cipher: sealing a payload of n bytes into a buffer that is
// used again.
func Seal(algorithm string, n int) func() (func() error, error) {
	return func() (func() error, error) {
		v, err := newVersion(algorithm)
		if err != nil {
			return nil, err
		}
		plaintext, buffer := make([]byte, n), make([]byte, 0, n+v.Algorithm().Overhead())
		return func() error {
			_, err := v.Seal(buffer, plaintext, keyring.NoAAD())
			return err
		}, nil
	}
}

// Sign is the bare signature of a message of n bytes.
func Sign(algorithm string, n int) func() (func() error, error) {
	return func() (func() error, error) {
		v, err := newVersion(algorithm)
		if err != nil {
			return nil, err
		}
		message := make([]byte, n)
		return func() error {
			_, err := v.Sign(message, keyring.SignOptions{})
			return err
		}, nil
	}
}

// fsyncBytes is about the length of an audit line.
const fsyncBytes = 256

// Fsync appends 256 bytes to a file in dir and syncs it, one call after another.
func Fsync(ctx context.Context, dir string, d time.Duration) (load.Result, error) {
	file, err := os.OpenFile(filepath.Join(dir, "fsync"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return load.Result{}, err
	}
	defer file.Close() //nolint:errcheck // what was written is of no use
	return load.Run(ctx, []load.Caller{syncer{file}}, load.Plan{Duration: d})
}

type syncer struct{ *os.File }

// Call implements load.Caller.
func (s syncer) Call(context.Context) error {
	var line [fsyncBytes]byte
	if _, err := s.Write(line[:]); err != nil {
		return err
	}
	return s.Sync()
}
