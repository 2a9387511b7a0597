package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// CommandName is the argument with which a Supervisor runs its own program.
const CommandName = "hsm-worker"

// socketFD is the worker's end of the socket pair: the first of exec.Cmd.ExtraFiles.
const socketFD = 3

// Run is the whole of a worker process: it takes the configuration from its
// Supervisor, opens the token, and serves until the Supervisor closes the socket.
// harden keeps the process's memory to itself; stderr gets the log, in JSON. The
// error is ErrByHand, or says why the worker cannot go on. The socket stays open until
// the process ends, which is what the Supervisor takes its end for.
func Run(stderr io.Writer, harden func(*slog.Logger) error) error {
	conn, err := inherited(socketFD)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	if err := isolate(); err != nil {
		return err
	}
	if err := harden(log); err != nil {
		return err
	}
	return newServer(conn, log).run()
}

// inherited returns the socket pair's end, or ErrByHand if there is none.
func inherited(fd int) (net.Conn, error) {
	name, err := unix.Getsockname(fd)
	if _, ok := name.(*unix.SockaddrUnix); err != nil || !ok {
		return nil, ErrByHand
	}
	f := os.NewFile(uintptr(fd), "supervisor")
	defer f.Close()
	return net.FileConn(f)
}

// gcPercent keeps the collector from running all the time over a heap that is tiny.
const gcPercent = 800

// isolate makes the worker end with its Supervisor and with nothing else: signals
// that a terminal or a service manager sends to all processes are the server's to
// act on, which drains first.
func isolate() error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	debug.SetGCPercent(gcPercent)
	return dieWithParent()
}

// begin handles what comes before the first call: it opens the token, or makes one.
// A nil device without an error means that there is nothing to serve.
func (s *server) begin() (*hsm.Device, error) {
	first, err := s.frames.Next()
	if err != nil {
		return nil, err
	}
	switch first.Kind {
	case wire.InitToken:
		return nil, s.tell(initToken(first.Body))
	case wire.Hello:
		device, err := s.open(first.Body)
		if device == nil {
			return nil, s.tell(err)
		}
		return device, err
	}
	return nil, fmt.Errorf("%w: kind %d before the start", wire.ErrNonsense, first.Kind)
}

// tell reports the outcome of what came before the first call.
func (s *server) tell(err error) error {
	if errors.Is(err, wire.ErrNonsense) {
		return err
	}
	if err == nil {
		return s.sender.Send(wire.Ready, 0, nil)
	}
	return s.sender.Send(wire.Failed, 0, func(to []byte) []byte { return appendError(to, err) })
}

func (s *server) open(body []byte) (*hsm.Device, error) {
	b := wire.NewBody(body)
	c := readSettings(b)
	if err := b.Done(); err != nil {
		return nil, err
	}
	next, err := s.frames.Next()
	if err != nil {
		return nil, err
	}
	if next.Kind != wire.PIN {
		return nil, fmt.Errorf("%w: kind %d where the PIN belongs", wire.ErrNonsense, next.Kind)
	}
	defer clear(next.Body)
	device, err := hsm.Open(context.Background(), hsm.Config{Module: c.module, InitArgs: c.initArgs, TokenLabel: c.label, TokenSerial: c.serial,
		PIN: once(next.Body), MaxSessions: c.maxSessions, Timeout: c.timeout, Logger: s.log})
	if err != nil {
		return nil, err
	}
	status := device.Status()
	return device, s.sender.Send(wire.Ready, 0, func(to []byte) []byte { return appendStatus(to, status) })
}

// once gives a PIN away once. The device asks from one goroutine at a time.
func once(pin []byte) hsm.PINSource {
	return func() (hsm.PIN, error) {
		if pin == nil {
			return hsm.PIN{}, errPINUsed
		}
		given := hsm.NewPIN(pin)
		clear(pin)
		pin = nil
		return given, nil
	}
}

func initToken(body []byte) error {
	b := wire.NewBody(body)
	module, label, soPIN, pin, timeout := b.String(), b.String(), b.String(), b.String(), b.Duration()
	if err := b.Done(); err != nil {
		return err
	}
	ctx, cancel := wait.Bounded(context.Background(), timeout)
	defer cancel()
	return hsm.InitToken(ctx, module, label, soPIN, pin)
}
