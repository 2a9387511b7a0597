package worker

import (
	"context"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// InitToken is hsm.InitToken in a worker process, with the environment of DefaultEnv.
func InitToken(ctx context.Context, module, label, soPIN, pin string) (err error) {
	onThreadOfItsOwn(func() { err = initTokenHere(ctx, module, label, soPIN, pin) })
	return err
}

func initTokenHere(ctx context.Context, module, label, soPIN, pin string) error {
	const op = "initialise token"
	c, err := Config{HSM: hsm.Config{PIN: func() (hsm.PIN, error) { return hsm.PIN{}, nil }}, Env: DefaultEnv()}.withDefaults()
	if err != nil {
		return own(op, err)
	}
	p, err := spawn(c)
	if err != nil {
		return unavailable(op, err)
	}
	_ = p.sender.Send(wire.InitToken, 0, func(to []byte) []byte { // a worker that is lost is seen below
		for _, text := range []string{module, label, soPIN, pin} {
			to = wire.AppendBytes(to, text)
		}
		return wire.AppendDuration(to, c.HSM.Timeout)
	})
	ctx, cancel := wait.Bounded(ctx, c.HSM.Timeout+startGrace)
	defer cancel()
	body, err := p.awaitOpen(ctx)
	if err == nil {
		err = body.Done()
	}
	if err != nil {
		p.kill(err)
		return err
	}
	return p.finish(endGrace)
}
