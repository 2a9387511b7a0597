package worker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// journal keeps a log, and shows it when the test fails. Safe for concurrent use.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newJournal(t testing.TB) (*slog.Logger, *journal) {
	j := &journal{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", j)
		}
	})
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})), j
}

// configFor is the configuration of a test's Supervisor on a token.
func configFor(token *softhsm.Token) Config {
	return Config{Env: append(DefaultEnv(), "GORACE", "GOCOVERDIR"),
		HSM: hsm.Config{Module: token.Module, TokenLabel: token.Label, PIN: hsm.PINFromFile(token.PINFile)}}
}

// supervise opens a Supervisor that is closed when the test ends, and sees to it that
// nothing is left of it then.
func supervise(t testing.TB, config Config) (*Supervisor, *journal) {
	t.Helper()
	log, journal := newJournal(t)
	config.HSM.Logger = log
	before := resources(t)
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		before.same(t)
	})
	eventually(t, func() error {
		if n := s.Status().Workers; n != s.config.Workers {
			return fmt.Errorf("%d workers", n)
		}
		return nil
	})
	return s, journal
}

// leaks counts what a Supervisor might leave behind.
type leaks struct{ goroutines, descriptors int }

func resources(t testing.TB) leaks {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return leaks{runtime.NumGoroutine(), len(entries)}
}

// same fails the test if more is there than before, or a child is left.
func (l leaks) same(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		now := resources(t)
		if now.goroutines > l.goroutines || now.descriptors > l.descriptors {
			buffer := make([]byte, 1<<20)
			return fmt.Errorf("before %+v, after %+v\n%s", l, now, buffer[:runtime.Stack(buffer, true)])
		}
		return nil
	})
	if left := children(t); len(left) > 0 {
		t.Errorf("processes are left: %q", left)
	}
}

// children lists this process's children, zombies too.
func children(t testing.TB) (found []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == fmt.Sprint(os.Getpid()) {
			found = append(found, string(text))
		}
	}
	return found
}

// eventually repeats op until it succeeds.
func eventually(t testing.TB, op func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := op()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still failing: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// workers waits until all are there, none is starting, and returns them. A token may
// then be killed safely: SoftHSM2 can lose its files only while one logs in.
func workers(t testing.TB, s *Supervisor) []*process {
	t.Helper()
	eventually(t, func() error {
		if n := s.Status().Workers; n != s.config.Workers {
			return fmt.Errorf("%d workers", n)
		}
		return nil
	})
	return *s.live.Load()
}

// send sends a signal to a worker.
func send(t testing.TB, p *process, signal syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// want checks an error's sentinel and class.
func want(t testing.TB, err, sentinel error, class hsm.Class) {
	t.Helper()
	var e *hsm.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) || e.Class != class {
		t.Fatalf("error = %v; want %v of class %s", err, sentinel, class)
	}
}

// fresh is a Supervisor of n workers on a token of its own, with a root key.
func fresh(t testing.TB, n int) (*Supervisor, *journal, hsm.Root) {
	t.Helper()
	config := configFor(softhsmtest.Token(t))
	config.Workers = n
	s, journal := supervise(t, config)
	root, err := s.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, journal, root
}

var secret = []byte("a domain secret of 32 bytes ....")

func wrap(t testing.TB, s hsm.Service, root hsm.Root) []byte {
	t.Helper()
	blob, err := s.Wrap(t.Context(), root.ID, 7, secret, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func unwraps(t testing.TB, s hsm.Service, blob []byte) {
	t.Helper()
	got, err := s.Unwrap(t.Context(), blob, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, secret) {
		t.Fatal("unwrapped to something else")
	}
}

// stop stops a worker, and waits until all its threads have stopped.
func stop(t testing.TB, p *process) {
	t.Helper()
	send(t, p, syscall.SIGSTOP)
	eventually(t, func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		if _, rest, _ := strings.Cut(string(text), ") "); err == nil && !strings.HasPrefix(rest, "T") {
			err = errors.New("not stopped")
		}
		return err
	})
}
