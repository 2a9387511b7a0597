package hsm

import (
	"context"
	"fmt"
)

// Random implements Service.
func (d *Device) Random(ctx context.Context, n int) ([]byte, error) {
	if n < 1 || n > MaxRandom {
		return nil, classify("random", fmt.Errorf("%w: %d random bytes, want 1 to %d", ErrInvalidArgument, n, MaxRandom))
	}
	return call(ctx, d, "random", func(s *session) ([]byte, error) {
		random, err := s.Random(n)
		if err == nil && len(random) != n {
			err = fault(ClassDevice, fmt.Errorf("token returned %d random bytes, want %d", len(random), n))
		}
		return random, err
	})
}

// Destroy implements Service. A sick token finds nothing to destroy, so it is asked
// for one of its roots before "nothing" is believed.
func (d *Device) Destroy(ctx context.Context, id KeyID) error {
	_, err := call(ctx, d, "destroy", func(s *session) (struct{}, error) {
		removed, err := s.destroyRoot(id) // whatever it is
		if err == nil && removed == 0 {
			err = d.assure(s, id)
		}
		return struct{}{}, err
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.roots, id)
	delete(d.signers, id)
	delete(d.keys, id)
	return nil
}
