package hsm_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
)

func TestSessionsClosedElsewhere(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	for range 3 {
		o := newOutsider(t, token)
		o.must(o.p11.CloseAllSessions(o.slot))
		unwraps(t, d, blob, "secret")
	}
}

// Somebody else in the process ends the module, and takes it into use again: every
// session and handle is stale then.
func TestModuleFinalisedElsewhere(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	o := newOutsider(t, token)
	o.must(o.p11.Finalize())
	unwraps(t, d, blob, "secret")

	o.must(o.p11.Finalize())
	o.must(o.p11.Initialize())
	eventually(t, func() error { // within the back-off of the first time
		_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
		return err
	})
	unwraps(t, d, blob, "secret")
}

// One device initialises the module anew; the others on it follow.
func TestOtherDeviceFollowsReinitialisation(t *testing.T) {
	d, token, root := withRoot(t)
	other := open(t, configFor(token))
	if _, err := other.FindRoot(t.Context(), root.ID, root.CheckValue); err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, d, root, "secret")
	generation := d.Status().Generation
	restore := hide(t, token)
	if _, err := d.Unwrap(t.Context(), blob, []byte("aad")); err == nil {
		t.Fatal("unwrapped without a token")
	}
	restore()
	eventually(t, func() error { return d.Probe(t.Context()) })
	unwraps(t, other, blob, "secret")
	if got := other.Status().Generation; got <= generation {
		t.Fatalf("generation %d, was %d", got, generation)
	}
}

func TestConcurrentUse(t *testing.T) {
	d, _, root := withRoot(t)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 20 {
				unwraps(t, d, wrap(t, d, root, "secret"), "secret")
				if _, err := d.Sign(t.Context(), signer.ID, []byte("x")); err != nil {
					t.Error(err)
				}
				_ = d.Status()
			}
		})
	}
	wg.Wait()
	if s := d.Status(); s.SessionsInUse != 0 || !s.Healthy {
		t.Errorf("status = %+v", s)
	}
}

// Recovery while many callers are inside: all of them see success or
// unavailability, never a wrong answer, and the device comes back.
func TestConcurrentUseWhileTokenComesAndGoes(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := d.Unwrap(t.Context(), blob, []byte("aad"))
				if err == nil && string(got) != "secret" || err != nil && !errors.Is(err, hsm.ErrUnavailable) {
					t.Errorf("Unwrap: %v", err)
					return
				}
			}
		})
	}
	for range 3 {
		restore := hide(t, token)
		time.Sleep(150 * time.Millisecond)
		restore()
		eventually(t, func() error { return d.Probe(t.Context()) })
	}
	cancel()
	wg.Wait()
	unwraps(t, d, blob, "secret")
}

func TestCloseWithCallsInFlight(t *testing.T) {
	for range 5 {
		t.Run("", func(t *testing.T) {
			d, _, root := withRoot(t)
			blob := wrap(t, d, root, "secret")
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for {
						if _, err := d.Unwrap(t.Context(), blob, []byte("aad")); err != nil {
							if !errors.Is(err, hsm.ErrClosed) {
								t.Errorf("Unwrap: %v", err)
							}
							return
						}
					}
				})
			}
			time.Sleep(5 * time.Millisecond)
			if err := d.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			wg.Wait()
		})
	}
}
