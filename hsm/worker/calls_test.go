package worker

import (
	"context"
	"errors"
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
