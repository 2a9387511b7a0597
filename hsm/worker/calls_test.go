package worker

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// A worker that has lost its login says so in its last answer, and is ended for it
// before the caller looks: the caller learns what the worker said, not that the outcome
// is unknown, also where he has left by then.
func TestLastAnswerCounts(t *testing.T) {
	const rounds = 100 // of two things that have happened, a select takes either
	for range rounds {
		ctx, leave := context.WithCancel(t.Context())
		p := &process{config: Config{HSM: hsm.Config{Timeout: time.Minute}}, sender: wire.NewSender(),
			places: make(chan struct{}, 1), calls: map[uint64]*asked{}, dead: make(chan struct{})}
		err := p.ask(ctx, query{op: "generate", once: true, body: func(to []byte) []byte {
			said := appendError(nil, &hsm.Error{Class: hsm.ClassDevice, Err: errPINUsed})
			reason := p.deliver(wire.Frame{Kind: wire.Refusal, Call: p.last, Body: said})
			if !errors.Is(reason, errPINUsed) {
				t.Errorf("the answer is not the end of its worker: %v", reason)
			}
			p.lost.Store(&reason)
			close(p.dead)
			leave()
			return to
		}})
		var lost *lostError
		if !errors.As(err, &lost) || lost.sent {
			t.Fatalf("ask = %v, want that nothing was done", err)
		}
	}
}

// A worker without a login is ended by the caller who hears of it first: asked again at
// once, it would take the call with it, whose outcome would be told as unknown.
func TestWorkerWithoutLoginIsNotAskedAgain(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	mine, theirs := net.Pipe()
	defer theirs.Close()
	p := &process{config: Config{HSM: hsm.Config{Timeout: time.Minute}}, sender: wire.NewSender(), cmd: cmd, conn: mine,
		places: make(chan struct{}, 1), calls: map[uint64]*asked{}, dead: make(chan struct{})}
	generate := query{op: "generate", once: true, body: func(to []byte) []byte {
		said := appendError(nil, &hsm.Error{Class: hsm.ClassDevice, Err: errPINUsed})
		_ = p.deliver(wire.Frame{Kind: wire.Refusal, Call: p.last, Body: said})
		return to
	}}
	for range 2 {
		var lost *lostError
		if err := p.ask(t.Context(), generate); !errors.As(err, &lost) || lost.sent {
			t.Fatalf("ask = %v, want that nothing was done", err)
		}
		if p.lost.Load() == nil {
			t.Fatal("the worker may be asked again")
		}
		generate.body = nil
	}
	_ = cmd.Wait() // it was killed
}
