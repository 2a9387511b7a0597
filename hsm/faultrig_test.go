package hsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// Bounds of a call in tests of faults: patience is for calls that are answered, however
// busy the machine and its disk; faultTimeout is for calls that hang, which end soon.
const (
	patience     = 20 * time.Second
	faultTimeout = time.Second
)

// hurried makes calls that hang end soon.
func hurried(_ *hsmtest.Module, c *hsm.Config) { c.Timeout = faultTimeout }

// A way is how a test reaches the token.
type way struct {
	name string
	open func(*testing.T, hsm.Config) (hsm.Service, error)
	// worker tells that a process of its own uses the module: it can be killed.
	worker bool
}

// ways are all of them; each fault is tested in each.
func ways() []way { return []way{inProcess, throughWorker} }

var inProcess = way{name: "in process", open: func(t *testing.T, c hsm.Config) (hsm.Service, error) {
	d, err := hsm.Open(t.Context(), c)
	if err != nil {
		return nil, err
	}
	return d, nil
}}

// throughWorker starts the test binary again as a worker (TestMain).
var throughWorker = way{name: "worker", worker: true, open: func(t *testing.T, c hsm.Config) (hsm.Service, error) {
	s, err := worker.Open(t.Context(), worker.Config{HSM: c, Env: append(worker.DefaultEnv(), "GORACE", "GOCOVERDIR")})
	if err != nil {
		return nil, err
	}
	return s, nil
}}

// eachWay runs a test once for each way.
func eachWay(t *testing.T, test func(*testing.T, way)) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) { test(t, w) })
	}
}

// rig is a token in use through the fault module: one root, one signer, one blob.
type rig struct {
	*testing.T
	hsm.Service
	way    way
	module *hsmtest.Module
	token  *softhsm.Token
	config hsm.Config
	root   hsm.Root
	signer hsm.Signer
	blob   []byte
	probes *prober
	before traces

	unclosed bool // the test closes the service while calls hang
}

// newRig opens a token; prepare may set the module up before, and move the token.
func newRig(t *testing.T, w way, prepare func(*hsmtest.Module, *hsm.Config), move ...func(*rig)) *rig {
	t.Helper()
	token := softhsmtest.Token(t)
	r := &rig{T: t, way: w, token: token, module: hsmtest.New(t, token.Module), config: configFor(token)}
	r.config.Module, r.config.Timeout, r.config.MaxSessions = r.module.Path, patience, 8
	r.config.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	if prepare != nil {
		prepare(r.module, &r.config)
	}
	for _, fn := range move {
		fn(r)
	}
	r.open()
	r.makeKeys()
	eventually(r, r.all) // a busy disk may hold up the first calls
	r.before = r.traces()
	r.probes = r.probe()
	return r
}

// open opens the service, which is closed when the test ends.
func (r *rig) open() {
	r.Helper()
	var service hsm.Service
	eventually(r, func() (err error) { // a busy machine may take longer than a call may that hangs
		service, err = r.way.open(r.T, r.config)
		return err
	})
	r.Service = service
	r.Cleanup(func() {
		r.module.Reset() // what hangs lets Close go on
		if err := service.Close(); err != nil && !r.unclosed {
			r.Errorf("Close: %v", err)
		}
	})
}

// makeKeys makes what the rig works with. A disk that is busy with something else may
// keep a key from being made in time.
func (r *rig) makeKeys() {
	r.Helper()
	eventually(r, func() (err error) {
		if r.root, err = r.GenerateRoot(r.Context()); err != nil {
			err = errors.Join(err, r.Destroy(r.Context(), r.root.ID))
		}
		return err
	})
	eventually(r, func() (err error) {
		if r.signer, err = r.GenerateSigner(r.Context()); err != nil {
			err = errors.Join(err, r.Destroy(r.Context(), r.signer.ID))
		}
		return err
	})
	eventually(r, func() (err error) {
		r.blob, err = r.Wrap(r.Context(), r.root.ID, 1, []byte("secret"), []byte("aad"))
		return err
	})
}

func (r *rig) unwrap() error {
	got, err := r.Unwrap(r.Context(), r.blob, []byte("aad"))
	if err == nil && string(got) != "secret" {
		err = errors.New("unwrapped to something else")
	}
	return err
}

func (r *rig) wrap() error {
	_, err := r.Wrap(r.Context(), r.root.ID, 1, []byte("x"), nil)
	return err
}

func (r *rig) sign() error {
	_, err := r.Sign(r.Context(), r.signer.ID, []byte("message"))
	return err
}

func (r *rig) generate() error {
	_, err := r.GenerateRoot(r.Context())
	return err
}

func (r *rig) generateSigner() error {
	_, err := r.GenerateSigner(r.Context())
	return err
}

func (r *rig) findRoot() error {
	_, err := r.FindRoot(r.Context(), r.root.ID, r.root.CheckValue)
	return err
}

// findAnew looks for a key that this device does not know yet.
func (r *rig) findAnew() error {
	_, err := r.FindSigner(r.Context(), hsm.KeyID{1})
	if errors.Is(err, hsm.ErrSignerNotFound) {
		return nil
	}
	return err
}

func (r *rig) probeNow() error { return r.Probe(r.Context()) }

// all does everything that a sound token can do, and makes nothing.
func (r *rig) all() error {
	if err := errors.Join(r.unwrap(), r.wrap(), r.sign(), r.findRoot(), r.probeNow()); err != nil {
		return err
	}
	found, err := r.FindSigner(r.Context(), r.signer.ID)
	if err == nil && !samePublicKey(found.PublicKey, r.signer.PublicKey) {
		err = errors.New("another key stands under the signer's id")
	}
	if err == nil && !r.Status().Healthy {
		err = errors.New("status says that the token is sick")
	}
	return err
}

func samePublicKey(a, b any) bool { return fmt.Sprintf("%v", a) == fmt.Sprintf("%v", b) }

// traces are what a fault may leave behind.
type traces struct {
	keys, logins, goroutines, descriptors, sessions, inside, process int

	generation uint64
}

func (r *rig) traces() traces {
	r.Helper()
	sessions, _ := r.module.Sessions()
	return traces{
		keys:        r.keys(),
		logins:      r.module.Calls("C_Login"),
		goroutines:  goroutines(),
		descriptors: descriptors(r),
		sessions:    sessions,
		inside:      r.module.Inside(),
		process:     r.module.Process(),
		generation:  r.Status().Generation,
	}
}

// keys counts the objects on the token, as its own files tell: SoftHSM2 keeps one
// file for each, and one for the token.
func (r *rig) keys() int {
	r.Helper()
	files, err := filepath.Glob(filepath.Join(r.token.Dir, "tokens", "*", "*.object"))
	if err != nil {
		r.Fatal(err)
	}
	n := 0
	for _, file := range files {
		if filepath.Base(file) != "token.object" {
			n++
		}
	}
	return n
}

// leavesNothing waits until nothing of the fault is left but sessions that are kept
// for the next calls.
func (r *rig) leavesNothing() {
	r.Helper()
	r.probes.end()
	eventually(r, func() error {
		now := r.traces()
		switch {
		case now.inside != 0:
			return fmt.Errorf("%d calls are inside the module, each with a thread", now.inside)
		case now.goroutines > r.before.goroutines:
			return fmt.Errorf("%d goroutines, %d before:\n%s", now.goroutines, r.before.goroutines, stacks())
		case now.descriptors > r.before.descriptors:
			return fmt.Errorf("%d descriptors, %d before", now.descriptors, r.before.descriptors)
		case now.sessions > r.config.MaxSessions+2:
			return fmt.Errorf("%d sessions open", now.sessions)
		case r.Status().SessionsInUse != 0 && !r.unclosed:
			return fmt.Errorf("%d places of the pool in use", r.Status().SessionsInUse)
		}
		return nil
	})
}

// goroutines counts them, without those that are kept idle for the next calls, which
// go after the device's timeout.
func goroutines() int {
	n := 0
	for _, one := range bytes.Split(stacks(), []byte("\n\n")) {
		_, top, _ := bytes.Cut(one, []byte("\n"))
		if !bytes.HasPrefix(top, []byte("github.com/keywright/keywright/hsm/internal/wait.(*Patience).attend(")) {
			n++
		}
	}
	return n
}

func stacks() []byte {
	text := make([]byte, 1<<20)
	return text[:runtime.Stack(text, true)]
}

// prober probes the token as the server does, only more often.
type prober struct {
	stop context.CancelFunc
	done chan struct{}
	last atomic.Pointer[error]
}

func (r *rig) probe() *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				err := r.Probe(ctx)
				p.last.Store(&err)
			}
		}
	}()
	r.Cleanup(p.end)
	return p
}

func (p *prober) end() {
	p.stop()
	<-p.done
}

// observation is the line that make faults prints.
type observation struct {
	fault, callers, health, recovery string
	keys, logins                     string
}

func (o observation) String() string {
	return strings.Join([]string{"fault: " + o.fault, "callers: " + o.callers, "health: " + o.health,
		"recovery: " + o.recovery, "keys: " + o.keys, "logins: " + o.logins}, " | ")
}

// told is an error in few words.
func told(err error) string {
	if err == nil {
		return "ok"
	}
	var e *hsm.Error
	if !errors.As(err, &e) {
		return "ERROR"
	}
	for _, s := range []struct {
		name string
		err  error
	}{
		{"ErrUnknownOutcome", hsm.ErrUnknownOutcome}, {"ErrPIN", hsm.ErrPIN}, {"ErrExhausted", hsm.ErrExhausted},
		{"ErrWrongRoot", hsm.ErrWrongRoot}, {"ErrRootNotFound", hsm.ErrRootNotFound}, {"ErrTokenNotFound", hsm.ErrTokenNotFound},
		{"ErrUnwrap", hsm.ErrUnwrap}, {"ErrDecrypt", hsm.ErrDecrypt}, {"ErrDuplicateObject", hsm.ErrDuplicateObject}, {"ErrUnavailable", hsm.ErrUnavailable},
	} {
		if errors.Is(err, s.err) {
			return s.name + "/" + e.Class.String()
		}
	}
	return e.Class.String()
}

// report prints what was observed.
func (r *rig) report(o observation) {
	r.Helper()
	now := r.traces()
	o.keys = fmt.Sprintf("%d→%d", r.before.keys, now.keys)
	o.logins = fmt.Sprintf("+%d", now.logins-r.before.logins)
	o.fault += " (" + r.way.name + ")"
	r.Log(o)
}

// hidesPIN makes sure that an error does not show the PIN.
func (r *rig) hidesPIN(err error) {
	r.Helper()
	if err != nil && bytes.Contains([]byte(err.Error()), []byte(softhsmtest.PIN(r, r.token))) {
		r.Errorf("the error shows the PIN: %v", err)
	}
}

// reopen closes the service and opens another on what the token holds.
func (r *rig) reopen() {
	r.Helper()
	r.probes.end()
	if err := r.Close(); err != nil {
		r.Fatal(err)
	}
	r.open()
	if err := errors.Join(r.findRoot(), noSigner(r.FindSigner(r.Context(), r.signer.ID)), r.all()); err != nil {
		r.Fatal(err)
	}
}

func noSigner(_ hsm.Signer, err error) error { return err }
