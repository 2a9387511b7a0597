package hsm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// The directory of the token is gone for a while: calls fail as the device's
// fault, nothing is made, and all is well by itself once it is back.
func TestTokenAwayAndBack(t *testing.T) {
	d, token, root := withRoot(t)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, d, root, "secret")
	generation := d.Status().Generation

	restore := hide(t, token)
	eventually(t, func() error { // SoftHSM2 serves from memory until something fails
		if err := d.Probe(t.Context()); err == nil {
			return errors.New("probe does not notice")
		}
		return nil
	})
	for range 3 {
		_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
		want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	}
	_, err = d.GenerateRoot(t.Context())
	want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	_, err = d.FindRoot(t.Context(), root.ID, root.CheckValue)
	want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	if s := d.Status(); s.Healthy || s.LastErrorClass != hsm.ClassDevice {
		t.Fatalf("status hides it: %+v", s)
	}
	if _, err := os.Stat(filepath.Join(token.Dir, "tokens")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("something was made while the token was away: %v", err)
	}

	restore()
	eventually(t, func() error { return d.Probe(t.Context()) })
	unwraps(t, d, blob, "secret")
	if _, err := d.Sign(t.Context(), signer.ID, []byte("message")); err != nil {
		t.Fatal(err)
	}
	if s := d.Status(); !s.Healthy || s.Generation <= generation {
		t.Fatalf("status after recovery: %+v", s)
	}
	if n := len(newOutsider(t, token).find()); n != 3 {
		t.Fatalf("%d objects on the token, want one root and one key pair", n)
	}
}

// Another token of the same label stands in for the one remembered: it is never
// used.
func TestTokenReplaced(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	restore := hide(t, token)
	if err := mkdir(token); err != nil {
		t.Fatal(err)
	}
	softhsmtest.Another(t, token, token.Label)
	_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	eventually(t, func() error { // the reason, once the module was initialised anew
		if err := d.Probe(t.Context()); !errors.Is(err, hsm.ErrTokenNotFound) {
			return errors.Join(errors.New("probe"), err)
		}
		return nil
	})
	if err := os.RemoveAll(filepath.Join(token.Dir, "tokens")); err != nil {
		t.Fatal(err)
	}
	restore()
	eventually(t, func() error { return d.Probe(t.Context()) })
	unwraps(t, d, blob, "secret")
}

func TestRootDeletedElsewhere(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	newOutsider(t, token).destroyAll(root.ID)
	for range 3 {
		_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
		want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
		if !errors.Is(err, hsm.ErrRootNotFound) {
			t.Fatalf("error %v does not say what is missing", err)
		}
	}
	if n := len(newOutsider(t, token).find(idAttribute(root.ID))); n != 0 {
		t.Fatalf("%d objects: a root was made because none was found", n)
	}
}

// The root was deleted and another key was made under its id.
func TestRootReplacedElsewhere(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	o := newOutsider(t, token)
	o.destroyAll(root.ID)
	o.aes(root.ID, false)
	for range 3 {
		_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
		want(t, err, hsm.ErrWrongRoot, hsm.ClassDevice)
		if _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); err == nil {
			t.Fatal("wrapped under an impostor")
		}
	}
}

func TestExternalLogout(t *testing.T) {
	d, token, root := withRoot(t)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, d, root, "secret")
	o := newOutsider(t, token)
	generation := d.Status().Generation
	calls := map[string]func() error{
		"unwrap":    func() error { _, err := d.Unwrap(t.Context(), blob, []byte("aad")); return err },
		"wrap":      func() error { _, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil); return err },
		"sign":      func() error { _, err := d.Sign(t.Context(), signer.ID, []byte("x")); return err },
		"find root": func() error { _, err := d.FindRoot(t.Context(), root.ID, root.CheckValue); return err },
		"generate":  func() error { _, err := d.GenerateRoot(t.Context()); return err },
		"destroy":   func() error { return d.Destroy(t.Context(), hsm.KeyID{1}) },
		"probe":     func() error { return d.Probe(t.Context()) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			o.must(o.p11.Logout(o.session))
			if err := call(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if got := d.Status().Generation; got != generation {
		t.Errorf("the module was initialised anew for a lost login (generation %d, was %d)", got, generation)
	}
}

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
