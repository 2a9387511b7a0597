package worker

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// badCommand makes the test binary a worker that does not do as it should.
const badCommand = "bad-hsm-worker"

// garbage is what the bad workers send in place of an answer.
var garbage = map[string]func(net.Conn, *wire.Sender, wire.Frame){
	"bytes": func(c net.Conn, _ *wire.Sender, _ wire.Frame) { _, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) },
	"version": func(c net.Conn, _ *wire.Sender, _ wire.Frame) {
		_, _ = c.Write([]byte("\x00\x00\x00\x0a\x02\x06\x00\x00\x00\x00\x00\x00\x00\x01"))
	},
	"length": func(c net.Conn, _ *wire.Sender, _ wire.Frame) {
		_, _ = c.Write([]byte("\xff\xff\xff\xff\x01\x06\x00\x00\x00\x00\x00\x00\x00\x01"))
	},
	"call": func(_ net.Conn, s *wire.Sender, f wire.Frame) {
		_ = s.Send(wire.Answer, f.Call+1000, nil)
	},
	"twice": func(_ net.Conn, s *wire.Sender, f wire.Frame) {
		for range 2 {
			_ = s.Send(wire.Refusal, f.Call, func(to []byte) []byte { return appendError(to, hsm.ErrUnwrap) })
		}
	},
	"kind": func(_ net.Conn, s *wire.Sender, f wire.Frame) { _ = s.Send(wire.PIN, f.Call, nil) },
	"short": func(_ net.Conn, s *wire.Sender, f wire.Frame) {
		_ = s.Send(wire.Answer, f.Call, func(to []byte) []byte { return wire.AppendBytes(to, make([]byte, 31)) })
	},
	"error": func(_ net.Conn, s *wire.Sender, f wire.Frame) {
		_ = s.Send(wire.Refusal, f.Call, func(to []byte) []byte { return append(to, "what?"...) })
	},
	"stuck": func(_ net.Conn, s *wire.Sender, f wire.Frame) { refuse(s, f, wait.ErrStuck) },
	"login": func(_ net.Conn, s *wire.Sender, f wire.Frame) { refuse(s, f, errPINUsed) },
	"exit":  func(net.Conn, *wire.Sender, wire.Frame) { os.Exit(7) },
	"panic": func(net.Conn, *wire.Sender, wire.Frame) { panic("as a module that aborts") },
	"":      func(net.Conn, *wire.Sender, wire.Frame) {}, // hangs
}

func refuse(s *wire.Sender, f wire.Frame, cause error) {
	_ = s.Send(wire.Refusal, f.Call, func(to []byte) []byte {
		return appendError(to, &hsm.Error{Class: hsm.ClassDevice, Err: cause})
	})
}

// brief is the kind of a bad worker that says that it is ready, and ends.
const brief = "brief"

// bad is a worker that starts as it should and answers with garbage.
func bad(kind string) {
	conn, err := inherited(socketFD)
	if err != nil {
		os.Exit(3)
	}
	if kind == brief {
		ready, err := wire.Append(nil, wire.Ready, 0, nil)
		if err == nil {
			_, err = conn.Write(ready)
		}
		if err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	frames, sender := wire.NewReader(conn), wire.NewSender()
	go func() { _ = sender.Run(conn) }()
	for {
		f, err := frames.Next()
		switch {
		case err != nil:
			os.Exit(0)
		case f.Kind == wire.PIN:
			_ = sender.Send(wire.Ready, 0, func(to []byte) []byte { return appendStatus(to, hsm.Status{SessionsMax: 4}) })
		case f.Kind == wire.Request:
			garbage[kind](conn, sender, f)
		}
	}
}

// A worker that answers nonsense, crashes or does not answer is killed and replaced;
// the caller learns that the token is away.
func TestNonsenseIsTheEndOfAWorker(t *testing.T) {
	for kind := range garbage {
		t.Run("kind="+kind, func(t *testing.T) {
			config := configFor(softhsmtest.Token(t))
			config.Command = []string{self, badCommand, kind}
			config.HSM.Timeout = 300 * time.Millisecond
			s, journal := supervise(t, config)
			began := time.Now()
			_, err := s.Random(t.Context(), 32)
			if kind != "twice" { // of which the first may be true
				want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("the caller was told after %v", took)
			}
			eventually(t, func() error {
				if s.Status().WorkerRestarts == 0 {
					return errors.New("no worker was replaced")
				}
				return nil
			})
			if log := journal.String(); !strings.Contains(log, "HSM worker was lost") {
				t.Errorf("the log does not say why:\n%s", log)
			}
		})
	}
}

// What a worker says last is heard, also when it has ended before anybody listens.
func TestLastWordsAreHeard(t *testing.T) {
	config := configFor(softhsmtest.Token(t))
	config.HSM.Logger, _ = newJournal(t)
	config.Command = []string{self, badCommand, brief}
	config, err := config.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // who waits for the end may be quicker than who reads
	onThreadOfItsOwn(func() {
		for range 20 {
			p, err := spawn(config)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = p.awaitOpen(t.Context())
			if err != nil {
				t.Error(err)
			}
			p.kill(errors.New("the test is over"))
		}
	})
}

// A worker that does not answer does not keep its Supervisor from closing.
func TestCloseKillsWhatHangs(t *testing.T) {
	before := resources(t)
	config := configFor(softhsmtest.Token(t))
	config.Command = []string{self, badCommand, ""}
	config.HSM.Timeout = 300 * time.Millisecond
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Random(t.Context(), 8)
		ended <- err
	}()
	eventually(t, func() error {
		if s.Status().SessionsInUse == 0 {
			return errors.New("no call is under way")
		}
		return nil
	})
	want(t, s.Close(), hsm.ErrUnavailable, hsm.ClassDevice)
	if err := <-ended; err == nil {
		t.Error("a call that nobody answered succeeded")
	}
	before.same(t)
}
