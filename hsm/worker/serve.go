package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// service is what a worker serves.
type service interface {
	GenerateRootAs(ctx context.Context, id hsm.KeyID) (hsm.Root, error)
	GenerateSignerAs(ctx context.Context, id hsm.KeyID) (hsm.Signer, error)
	hsm.Service
}

// server is the worker's side of the socket.
type server struct {
	conn   net.Conn
	log    *slog.Logger
	frames *wire.Reader
	sender *wire.Sender

	calls    sync.WaitGroup
	underWay atomic.Int64
}

func newServer(conn net.Conn, log *slog.Logger) *server {
	return &server{conn: conn, log: log, frames: wire.NewReader(conn), sender: wire.NewSender()}
}

// run serves from the first frame to the end of the stream.
func (s *server) run() error {
	written := make(chan error, 1)
	go func() { written <- s.sender.Run(s.conn) }()
	err := s.serve()
	s.sender.Close()
	return errors.Join(err, <-written)
}

func (s *server) serve() error {
	device, err := s.begin()
	if err != nil || device == nil {
		return err
	}
	return errors.Join(s.loop(device), device.Close())
}

// loop starts calls until the Supervisor wants no more.
func (s *server) loop(device service) error {
	defer s.calls.Wait()
	for {
		f, err := s.frames.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && f.Kind != wire.Request {
			err = fmt.Errorf("%w: kind %d amid calls", wire.ErrNonsense, f.Kind)
		}
		if err == nil {
			err = s.start(device, f)
		}
		if err != nil {
			return err
		}
	}
}

// start runs a call in a goroutine of its own. There is no way to cancel one: what
// is in the module cannot be interrupted, and the Supervisor sends no more calls
// than there are sessions, so that none waits here.
func (s *server) start(device service, f wire.Frame) error {
	body := wire.NewBody(f.Body)
	asked := method(body.Byte())
	handler, ok := handlers[asked]
	if !ok {
		return fmt.Errorf("%w: unknown method %d", wire.ErrNonsense, asked)
	}
	perform, err := handler(body)
	if err != nil {
		return fmt.Errorf("method %d: %w", asked, err)
	}
	if s.underWay.Add(1) > maxSessions {
		return fmt.Errorf("%w: more than %d calls at a time", wire.ErrNonsense, maxSessions)
	}
	s.calls.Go(func() {
		// The device bounds each call by the timeout, and the Supervisor all of it.
		answer, err := perform(context.Background(), device)
		s.underWay.Add(-1)
		s.reply(f.Call, answer, err)
	})
	return nil
}

// reply sends an answer, or in its place an error.
func (s *server) reply(call uint64, answer result, err error) {
	if err == nil {
		err = s.sender.Send(wire.Answer, call, answer)
	}
	if err != nil { // of a connection that is closed nobody learns, nor has to
		_ = s.sender.Send(wire.Refusal, call, func(to []byte) []byte { return appendError(to, err) })
	}
}
