package hsm

import (
	"context"
	"fmt"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// maxSilent is how many requests for the token's information may fail in a row:
// fewer are noise.
const maxSilent = 2

// Probe implements Service.
func (d *Device) Probe(ctx context.Context) error {
	_, err := call(ctx, d, "probe", func(s *session) (struct{}, error) {
		return struct{}{}, d.probe(s)
	})
	return err
}

// probe runs the canary under one known root; without one it makes sure of the
// login at least.
func (d *Device) probe(s *session) error {
	if err := d.greet(s.TokenInfo()); err != nil {
		return err
	}
	return d.assure(s) // in random order: all get their turn
}

// sick makes a failed canary the device's fault, unless it has a reaction of its
// own.
func sick(err error) error {
	if classify("", err).Class != ClassCaller {
		return err
	}
	return fault(ClassDevice, err)
}

// greet judges the token's answer to the request for its information, and whether it
// is still the same token.
func (d *Device) greet(got cryptoki.Token, err error) error {
	if err == nil {
		d.health.silent.Store(0)
		if got.Serial != d.token.Serial {
			return fault(ClassDevice, fmt.Errorf("%w: serial %s in place of %s", ErrTokenNotFound, got.Serial, d.token.Serial))
		}
		return nil
	}
	if d.health.silent.Add(1) <= maxSilent {
		return nil
	}
	return fault(ClassDevice, err)
}
