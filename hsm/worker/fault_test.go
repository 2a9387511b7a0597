package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// load keeps callers busy, and counts what they got.
type load struct {
	stop   context.CancelFunc
	group  sync.WaitGroup
	calls  atomic.Int64
	failed atomic.Int64
	mu     sync.Mutex
	errs   map[string]int
}

func startLoad(t testing.TB, s hsm.Service, blob []byte, callers int) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel, errs: map[string]int{}}
	for range callers {
		l.group.Go(func() {
			for ctx.Err() == nil {
				got, err := s.Unwrap(ctx, blob, []byte("aad"))
				if err == nil && !bytes.Equal(got, secret) {
					err = errors.New("unwrapped to something else")
				}
				l.calls.Add(1)
				if err != nil && ctx.Err() == nil {
					l.failed.Add(1)
					l.mu.Lock()
					l.errs[err.Error()]++
					l.mu.Unlock()
				}
			}
		})
	}
	return l
}

func (l *load) end() {
	l.stop()
	l.group.Wait()
}

// Calls that a killed worker had are made by the next one: no caller notices.
func TestKilledUnderLoad(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n, " workers"), func(t *testing.T) {
			s, journal, root := fresh(t, n)
			blob := wrap(t, s, root)
			l := startLoad(t, s, blob, 8)
			for range 3 {
				time.Sleep(300 * time.Millisecond)
				send(t, workers(t, s)[0], syscall.SIGKILL)
				restarts := s.Status().WorkerRestarts
				eventually(t, func() error {
					if s.Status().WorkerRestarts == restarts {
						return errors.New("no successor")
					}
					return nil
				})
			}
			time.Sleep(200 * time.Millisecond)
			l.end()
			if l.failed.Load() > 0 || l.calls.Load() < 100 {
				t.Errorf("%d of %d calls failed: %v", l.failed.Load(), l.calls.Load(), l.errs)
			}
			status := s.Status()
			if !status.Healthy || status.WorkerRestarts != 3 || status.Generation != uint64(n+3) {
				t.Errorf("status %+v", status)
			}
			if !strings.Contains(journal.String(), "signal: killed") {
				t.Error("the log does not say how the worker ended")
			}
		})
	}
}

// A worker that does not answer is killed within the timeout and the grace. Callers
// who came late enough are served by its successor.
func TestStoppedWorkerIsReplaced(t *testing.T) {
	config := configFor(softhsmtest.Token(t))
	config.HSM.Timeout = time.Second
	s, _ := supervise(t, config)
	root, err := s.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, s, root)
	stop(t, workers(t, s)[0])
	began := time.Now()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = s.Unwrap(short, blob, []byte("aad")) // leaves early, and is what tells that the worker hangs
	want(t, err, context.DeadlineExceeded, hsm.ClassCaller)
	time.Sleep(500*time.Millisecond - time.Since(began))
	unwraps(t, s, blob)
	if took := time.Since(began); took > config.HSM.Timeout+grace(config.HSM.Timeout)+10*time.Second {
		t.Errorf("served after %v", took)
	}
	if n := s.Status().WorkerRestarts; n != 1 {
		t.Errorf("%d restarts", n)
	}
}

// What makes an object is not asked twice, and the id under which it may be there is
// told.
func TestLostReplyAtGeneration(t *testing.T) {
	config := configFor(softhsmtest.Token(t))
	config.Command = []string{self, badCommand, "exit"}
	s, _ := supervise(t, config)
	root, err := s.GenerateRoot(t.Context())
	want(t, err, hsm.ErrUnknownOutcome, hsm.ClassUnknown)
	if root.ID == (hsm.KeyID{}) {
		t.Error("no id")
	}
	signer, err := s.GenerateSigner(t.Context())
	want(t, err, hsm.ErrUnknownOutcome, hsm.ClassUnknown)
	if signer.ID == (hsm.KeyID{}) {
		t.Error("no id")
	}
	_, err = s.GenerateKey(t.Context(), newID(), "AES_256_GCM")
	want(t, err, hsm.ErrUnknownOutcome, hsm.ClassUnknown)
}

// Workers that crash over and over are started less and less often, and callers are
// told at once meanwhile.
func TestCrashLoopBacksOff(t *testing.T) {
	config := configFor(softhsmtest.Token(t))
	config.Command = []string{self, badCommand, "exit"}
	s, journal := supervise(t, config)
	quick := 0
	for deadline := time.Now().Add(30 * time.Second); quick < 20 && time.Now().Before(deadline); {
		before := time.Now()
		_, err := s.Random(t.Context(), 8)
		want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
		if time.Since(before) < 5*time.Millisecond {
			quick++
		}
		time.Sleep(10 * time.Millisecond)
	}
	if quick < 20 {
		t.Errorf("%d callers were told at once", quick)
	}
	// At 0, 0.1, 0.2, 0.4 and 0.8 s, give or take a quarter: then the pause is longer
	// than callers wait for.
	if n := strings.Count(journal.String(), "HSM worker was lost"); n < 4 || n > 8 {
		t.Errorf("%d workers were lost until then", n)
	}
	if status := s.Status(); status.Healthy {
		t.Error("healthy")
	}
}

// counted counts how often the PIN is handed over: once for each C_Login.
func counted(pins ...string) (hsm.PINSource, *atomic.Int64) {
	var n atomic.Int64
	return func() (hsm.PIN, error) {
		i := min(int(n.Add(1)), len(pins)) - 1
		return hsm.NewPIN([]byte(pins[i])), nil
	}, &n
}

func TestWrongPINIsTriedOnce(t *testing.T) {
	config := configFor(softhsmtest.Token(t))
	config.Workers = 3
	source, n := counted("wrong-pin")
	config.HSM.PIN = source
	before := resources(t)
	_, err := Open(t.Context(), config)
	want(t, err, hsm.ErrPIN, hsm.ClassPIN)
	time.Sleep(500 * time.Millisecond)
	if n.Load() != 1 {
		t.Errorf("the PIN was tried %d times", n.Load())
	}
	before.same(t)
}

// After a refusal no worker is started any more, whichever was refused; those that
// have logged in before go on.
func TestRefusedPINStopsStarts(t *testing.T) {
	token := softhsmtest.Token(t)
	config := configFor(token)
	config.Workers = 3
	good := softhsmtest.PIN(t, token)
	source, n := counted(good, good, good, "wrong-pin")
	config.HSM.PIN = source
	s, _ := supervise(t, config)
	root, err := s.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, s, root)
	lost := workers(t, s)
	send(t, lost[0], syscall.SIGKILL)
	send(t, lost[1], syscall.SIGKILL)
	<-lost[1].reaped
	time.Sleep(700 * time.Millisecond)
	if n.Load() != 4 {
		t.Errorf("the PIN was tried %d times", n.Load())
	}
	unwraps(t, s, blob)
	send(t, lost[2], syscall.SIGKILL)
	<-lost[2].reaped
	_, err = s.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrPIN, hsm.ClassPIN)
	time.Sleep(300 * time.Millisecond)
	if n.Load() != 4 {
		t.Errorf("the PIN was tried %d times", n.Load())
	}
}

// A token that went away is served again when it is back, by a worker that logs in
// anew: a worker has its PIN for one login.
func TestTokenAwayAndBack(t *testing.T) {
	token := softhsmtest.Token(t)
	config := configFor(token)
	source, n := counted(softhsmtest.PIN(t, token))
	config.HSM.PIN = source
	s, _ := supervise(t, config)
	root, err := s.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, s, root)
	tokens := filepath.Join(token.Dir, "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if s.Probe(t.Context()) == nil {
			return errors.New("the token is well")
		}
		return nil
	})
	if s.Status().Healthy {
		t.Error("healthy without a token")
	}
	send(t, workers(t, s)[0], syscall.SIGKILL) // the next one finds no token, and must not serve
	time.Sleep(300 * time.Millisecond)
	_, err = s.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := s.Unwrap(t.Context(), blob, []byte("aad"))
		return err
	})
	if !s.Status().Healthy {
		t.Error("not healthy")
	}
	t.Logf("%d logins, status %+v", n.Load(), s.Status())
}

// Another token of the same label is not taken for the one that is lost.
func TestOtherTokenOfTheLabelIsRefused(t *testing.T) {
	token := softhsmtest.Token(t)
	s, _ := supervise(t, configFor(token))
	root, err := s.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, s, root)
	tokens := filepath.Join(token.Dir, "tokens")
	if err := errors.Join(os.Rename(tokens, tokens+".away"), os.Mkdir(tokens, 0o700)); err != nil {
		t.Fatal(err)
	}
	softhsmtest.Another(t, token, token.Label)
	send(t, workers(t, s)[0], syscall.SIGKILL)
	time.Sleep(time.Second)
	_, err = s.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	if err := errors.Join(os.RemoveAll(tokens), os.Rename(tokens+".away", tokens)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := s.Unwrap(t.Context(), blob, []byte("aad"))
		return err
	})
}
