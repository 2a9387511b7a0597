package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// small opens a device with a root on a fresh token, with a small pool.
func small(t *testing.T) (*Device, Root) {
	t.Helper()
	token := softhsmtest.Token(t)
	d, err := Open(t.Context(), Config{
		Module: token.Module, TokenLabel: token.Label, PIN: PINFromFile(token.PINFile),
		MaxSessions: 2, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	root, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d, root
}

// impatient is small with a short timeout, for calls that do not make keys:
// SoftHSM2 syncs those to disk, which may take long on a busy machine.
func impatient(t *testing.T) (*Device, Root) {
	t.Helper()
	d, root := small(t)
	d.config.Timeout = time.Second
	d.patience.Stop()
	d.patience = wait.NewPatience(d.config.Timeout)
	return d, root
}

// hang occupies a place in the pool, as a call does that hangs inside the module,
// until the function that it returns is called.
func hang(t *testing.T, d *Device) (release func()) {
	t.Helper()
	entered, stuck := make(chan struct{}), make(chan struct{})
	ctx, leave := context.WithCancel(t.Context())
	returned := make(chan error)
	go func() {
		_, err := call(ctx, d, "hang", func(*session) (struct{}, error) {
			close(entered)
			<-stuck
			return struct{}{}, nil
		})
		returned <- err
	}()
	<-entered
	leave()
	if err := <-returned; !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller was not let go: %v", err)
	}
	return func() { close(stuck) }
}

func TestHungCallDoesNotHoldTheCaller(t *testing.T) {
	d, _ := impatient(t)
	stuck := make(chan struct{})
	defer close(stuck)
	begun := time.Now()
	_, err := call(t.Context(), d, "hang", func(*session) (struct{}, error) {
		<-stuck
		return struct{}{}, nil
	})
	var e *Error
	if !errors.As(err, &e) || e.Class != ClassDevice || !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error = %v, want one of class device", err)
	}
	if took := time.Since(begun); took > 3*d.config.Timeout {
		t.Fatalf("the caller waited %v", took)
	}
	if n := d.Status().SessionsInUse; n != 1 {
		t.Fatalf("%d places in use; the hung call holds one", n)
	}
}

// With one call hung the others go on, without a new initialisation, because the
// canary tells that the token is well.
func TestOthersGoOnBesideHungCall(t *testing.T) {
	d, root := impatient(t)
	generation := d.Status().Generation
	stuck := make(chan struct{})
	_, err := call(t.Context(), d, "hang", func(*session) (struct{}, error) {
		<-stuck
		return struct{}{}, nil
	})
	if !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.Status().Generation; got != generation {
		t.Fatalf("generation %d, was %d", got, generation)
	}
	close(stuck)
	waitIdle(t, d)
}

func waitIdle(t *testing.T, d *Device) {
	t.Helper()
	for begun := time.Now(); d.Status().SessionsInUse != 0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 5*time.Second {
			t.Fatalf("places still in use: %+v", d.Status())
		}
	}
}

func TestPoolExhausted(t *testing.T) {
	d, root := impatient(t)
	releases := []func(){hang(t, d), hang(t, d)}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := d.Wrap(ctx, root.ID, 1, []byte("x"), nil)
	if !errors.Is(err, ErrExhausted) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error = %v, want ErrExhausted by the caller's deadline", err)
	}
	_, err = d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil)
	if !errors.Is(err, ErrExhausted) {
		t.Fatalf("error = %v, want ErrExhausted after the timeout", err)
	}
	if s := d.Status(); s.SessionsInUse != 2 || !s.Healthy || s.LastErrorClass != ClassExhausted {
		t.Fatalf("status = %+v", s)
	}
	for _, release := range releases {
		release()
	}
	waitIdle(t, d)
	if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if n := d.conn.Load().Idle(); n != 1 {
		t.Fatalf("%d idle sessions: those of abandoned calls must not come back", n)
	}
}

// A module is not finalised under a call in flight.
func TestNoReinitialisationUnderHungCall(t *testing.T) {
	d, root := impatient(t)
	release := hang(t, d)
	ctx, cancel := wait.Bounded(t.Context(), d.config.Timeout)
	defer cancel()
	generation := d.module.Current()
	if err := d.module.Reinitialise(ctx, generation); err == nil || d.module.Current() != generation {
		t.Fatal("initialised anew under a call in flight")
	}
	if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err != nil {
		t.Fatalf("the refused attempt did harm: %v", err)
	}
	release()
	waitIdle(t, d)
	if err := d.module.Reinitialise(t.Context(), generation); err != nil || d.module.Current() != generation+1 {
		t.Fatalf("reinitialise = %v, generation %d", err, d.module.Current())
	}
	if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
}

func TestCloseUnderHungCall(t *testing.T) {
	d, _ := impatient(t)
	release := hang(t, d)
	begun := time.Now()
	var e *Error
	if err := d.Close(); !errors.As(err, &e) || e.Class != ClassDevice {
		t.Fatalf("Close = %v, want an error of class device", err)
	}
	if took := time.Since(begun); took > 3*d.config.Timeout {
		t.Fatalf("Close took %v", took)
	}
	if _, err := Open(t.Context(), d.config); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("Open while a call is stuck: error = %v, want ErrUnavailable", err)
	}
	release()
	again, err := Open(t.Context(), d.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// failing returns a function for call that fails with a code a number of times.
func failing(code uint, times int32) (fn func(*session) (struct{}, error), calls *atomic.Int32) {
	calls = new(atomic.Int32)
	return func(*session) (struct{}, error) {
		if calls.Add(1) <= times {
			return struct{}{}, pkcs11.Error(code)
		}
		return struct{}{}, nil
	}, calls
}

func TestEachClassHasItsReaction(t *testing.T) {
	d, _ := impatient(t)
	generation := d.Status().Generation
	cases := []struct {
		code  uint
		class Class
		calls int32 // of a function that always fails; 0 if they are many
	}{
		{pkcs11.CKR_DATA_LEN_RANGE, ClassCaller, 1},
		{pkcs11.CKR_SESSION_HANDLE_INVALID, ClassSession, 2},
		{pkcs11.CKR_KEY_HANDLE_INVALID, ClassHandle, 2},
		{pkcs11.CKR_USER_NOT_LOGGED_IN, ClassLogin, 2},
		{pkcs11.CKR_DEVICE_ERROR, ClassDevice, 2},
		{pkcs11.CKR_VENDOR_DEFINED + 7, ClassDevice, 2},
		{pkcs11.CKR_SESSION_COUNT, ClassExhausted, 0},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%#x", c.code), func(t *testing.T) {
			fn, calls := failing(c.code, 1<<30)
			_, err := call(t.Context(), d, "test", fn)
			var e *Error
			if !errors.As(err, &e) || e.Class != c.class || e.Code != c.code || e.Op != "test" {
				t.Fatalf("error = %+v, want class %s and code %#x", e, c.class, c.code)
			}
			if got := calls.Load(); c.calls != 0 && got != c.calls || got > 100 {
				t.Fatalf("called %d times", got)
			}
			if c.class == ClassCaller {
				return
			}
			fn, _ = failing(c.code, 1)
			if _, err := call(t.Context(), d, "test", fn); err != nil {
				t.Fatalf("not tried again: %v", err)
			}
		})
	}
	if got := d.Status().Generation; got != generation {
		t.Fatalf("generation %d, was %d, though the canary was well all the time", got, generation)
	}
}

func TestSessionThatFailedIsNotKept(t *testing.T) {
	d, _ := small(t)
	idle := func() int { return d.conn.Load().Idle() }
	if idle() != 1 {
		t.Fatalf("%d idle sessions", idle())
	}
	fn, _ := failing(pkcs11.CKR_DATA_LEN_RANGE, 1<<30)
	if _, err := call(t.Context(), d, "test", fn); err == nil || idle() != 1 {
		t.Fatalf("%d idle sessions after the caller's error %v", idle(), err)
	}
	fn, _ = failing(pkcs11.CKR_SESSION_HANDLE_INVALID, 1<<30)
	if _, err := call(t.Context(), d, "test", fn); err == nil || idle() != 0 {
		t.Fatalf("%d idle sessions after %v", idle(), err)
	}
}

// The token makes the key, but the reply is lost: the same key is found, no second
// one is made.
func TestLostReplyAtKeyGeneration(t *testing.T) {
	d, _ := small(t)
	id := newKeyID()
	var attempts atomic.Int32
	root, err := create(t.Context(), d, "generate root", func(s *session, sent *atomic.Bool) (Root, error) {
		root, err := s.generateRoot(id, sent)
		if attempts.Add(1) == 1 && err == nil {
			err = pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
		}
		return root, err
	})
	if err != nil || root.ID != id || attempts.Load() != 2 {
		t.Fatalf("%v after %d attempts", err, attempts.Load())
	}
	if n := countObjects(t, d, id); n != 1 {
		t.Fatalf("%d objects under the id", n)
	}
}

func TestUnknownOutcomeOfKeyGeneration(t *testing.T) {
	d, _ := small(t)
	id := newKeyID()
	_, err := create(t.Context(), d, "generate root", func(s *session, sent *atomic.Bool) (Root, error) {
		_, err := s.generateRoot(id, sent)
		return Root{}, errors.Join(err, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR))
	})
	var e *Error
	if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrUnavailable) || !errors.As(err, &e) || e.Class != ClassUnknown {
		t.Fatalf("error = %v, want ErrUnknownOutcome", err)
	}
	if err := d.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if n := countObjects(t, d, id); n != 0 {
		t.Fatalf("%d objects left", n)
	}
}

func TestGenerationRefusesIDInUse(t *testing.T) {
	d, root := small(t)
	_, err := create(t.Context(), d, "generate root", func(s *session, sent *atomic.Bool) (Root, error) {
		return s.generateRoot(root.ID, sent)
	})
	if !errors.Is(err, ErrDuplicateObject) || errors.Is(err, ErrUnknownOutcome) {
		t.Fatalf("error = %v, want ErrDuplicateObject", err)
	}
}

func countObjects(t *testing.T, d *Device, id KeyID) int {
	t.Helper()
	n, err := call(t.Context(), d, "count", func(s *session) (int, error) {
		found, err := s.Search(10, pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]))
		return len(found), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A handle that went stale within a generation is looked up again.
func TestStaleHandle(t *testing.T) {
	d, root := small(t)
	c := d.conn.Load()
	c.Remember(rootObject(root.ID), 0xdead)
	if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if d.conn.Load() != c {
		t.Fatal("the connection was replaced for a stale handle")
	}
}

// Handles of an older generation may name other keys: they are dropped.
func TestReinitialisationDropsHandlesAndSessions(t *testing.T) {
	d, root := small(t)
	old := d.conn.Load()
	if old.Idle() != 1 {
		t.Fatalf("%d idle sessions", old.Idle())
	}
	if err := d.module.Reinitialise(t.Context(), d.module.Current()); err != nil {
		t.Fatal(err)
	}
	if err := old.Within(func() error { return nil }); err == nil {
		t.Fatal("a connection of an older generation lets calls in")
	}
	if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	if d.conn.Load() == old || old.Idle() != 0 {
		t.Fatal("the old connection is still in use")
	}
}

// Few failed requests for the token's information are noise.
func TestProbeToleratesNoise(t *testing.T) {
	d, _ := small(t)
	probe := func() error {
		_, err := call(t.Context(), d, "probe", func(*session) (struct{}, error) {
			return struct{}{}, d.greet(cryptoki.Token{}, pkcs11.Error(pkcs11.CKR_SLOT_ID_INVALID))
		})
		return err
	}
	for range maxSilent {
		if err := probe(); err != nil {
			t.Fatalf("noise was taken for a failure: %v", err)
		}
	}
	if err := probe(); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error = %v, want ErrUnavailable", err)
	}
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := probe(); err != nil {
		t.Fatalf("a good answer did not end the row: %v", err)
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	var b backoff
	if err := b.open(); err != nil {
		t.Fatal("a new circuit is open")
	}
	cause := errors.New("cause")
	for range 20 {
		b.begin()
		if b.open() == nil {
			t.Fatal("the circuit is closed after an attempt")
		}
		b.failed(cause)
		if !errors.Is(b.open(), cause) {
			t.Fatal("the circuit hides its cause")
		}
	}
	if b.pause != maxBackoff || time.Until(b.until) > maxBackoff {
		t.Fatalf("pause %v, until %v", b.pause, time.Until(b.until))
	}
}
