package kms

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/keywright/keywright/kms/store/storetest"
)

// A token that makes no key, or does not say that it did, leaves nothing behind.
func TestRootThatCannotBeMade(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		in := newInstallation(t)
		in.close()
		parts := in.parts()
		device := &fullDevice{softDevice: in.device, carriedOut: carriedOut}
		parts.HSM = device
		in.Service = must[*Service](t)(Open(t.Context(), parts))
		_, err := in.RotateRoot(t.Context(), admin(), RotateRootRequest{Idempotency: "once"})
		wantCode(t, err, Unavailable, "token default could not make a root key", "CKR_DEVICE_MEMORY", "nothing was changed")
		in.wantStates(RootActive)
		in.wantNoOrphan(in.device)
		device.well = true
		if made := must[RootVersion](t)(in.RotateRoot(t.Context(), admin(), RotateRootRequest{Idempotency: "once"})); made.State != RootActive {
			t.Errorf("sent again: %+v", made)
		}
		again := must[RootVersion](t)(in.RotateRoot(t.Context(), admin(), RotateRootRequest{Idempotency: "once"}))
		in.wantStates(RootRetiring, RootActive)
		if again.Version != 2 {
			t.Errorf("sent a third time: %+v", again)
		}
		in.wantBracketed()
	}
}

// fullDevice makes no more keys, or says so of one that it made.
type fullDevice struct {
	*softDevice
	carriedOut, well bool
}

func (d *fullDevice) GenerateRoot(ctx context.Context, id ObjectID) ([]byte, error) {
	if d.well {
		return d.softDevice.GenerateRoot(ctx, id)
	}
	if d.carriedOut {
		_, _ = d.softDevice.GenerateRoot(ctx, id)
	}
	return nil, errors.New("CKR_DEVICE_MEMORY")
}

// Cut off at any of its commits, by a store that dies there and a server that dies
// then, a rotation is whole or has not been, and what it began is gone on with.
func TestRootRotationGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	faults := map[string]func(*storetest.FaultyStore, int){
		"failed":    func(s *storetest.FaultyStore, n int) { s.FailFrom(n, storetest.Failed) },
		"lost":      func(s *storetest.FaultyStore, n int) { s.FailFrom(n, storetest.Lost) },
		"persisted": func(s *storetest.FaultyStore, n int) { s.FailNth(n, storetest.Persisted) },
	}
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 20
			n := 1
			for ; n <= most; n++ {
				in := newInstallation(t)
				struck := testRotationCutOff(in, func() { fail(in.store, n) })
				in.close()
				if !struck || t.Failed() {
					break
				}
			}
			least := 6 // reserve, put in force, two pages, retire
			if name == "persisted" {
				least = 3 // the jobs get over the rest by themselves
			}
			if n < least || n > most {
				t.Errorf("a rotation made %d commits", n-1)
			}
		})
	}
}

func testRotationCutOff(in *testInstallation, fail func()) (struck bool) {
	t := in.t
	sealed := map[string][]byte{}
	for i := range rewrapPage + 5 {
		name := fmt.Sprint("ns", i)
		in.namespace(name)
		in.key(name, "card", "")
		sealed[name] = in.encrypt(name, "card", name)
	}
	wantServed := func() {
		t.Helper()
		for name, ciphertext := range sealed {
			in.wantOpens(name, ciphertext, name)
		}
	}
	fail()
	_, err := in.RotateRoot(t.Context(), admin(), RotateRootRequest{Idempotency: "once"})
	if err == nil {
		struck = in.tendRootsOnce(t.Context()) != nil
	}
	wantServed()
	in.store.Heal()
	in.crash()
	in.open()
	wantServed()
	must[RootVersion](t)(in.RotateRoot(t.Context(), admin(), RotateRootRequest{Idempotency: "once"}))
	in.tendRootsNow()
	in.tendRootsNow()
	in.wantStates(RootRetired, RootActive)
	in.wantNoOrphan(in.device)
	wantServed()
	in.wantBracketed()
	return struck || err != nil
}

// What a crash left PENDING is removed from the token and the store, whether or not
// the key was made.
func TestPendingRootIsRemoved(t *testing.T) {
	in := newInstallation(t)
	for _, made := range []bool{false, true} {
		in.head.lock.Lock()
		r := must[rootRef](t)(in.reserveRoot(t.Context(), DefaultToken))
		if made {
			must[[]byte](t)(in.device.GenerateRoot(t.Context(), r.ID))
		}
		in.head.lock.Unlock()
		in.crash()
		in.open()
		in.wantStates(RootActive, RootPending)
		in.tendRootsNow()
		in.wantStates(RootActive, RootPending) // it may be being made
		in.advance(pendingAge)
		in.tendRootsNow()
		in.wantStates(RootActive)
		in.wantNoOrphan(in.device)
	}
	in.wantBracketed()
}

// A version that another server abandons while it is being made is not put in force,
// and its key is removed.
func TestAbandonedWhileMade(t *testing.T) {
	in := newInstallation(t)
	in.close()
	parts := in.parts()
	device := &slowDevice{softDevice: in.device}
	parts.HSM = device
	in.Service = must[*Service](t)(Open(t.Context(), parts))
	other := in.secondServer()
	device.meanwhile = func() {
		other.head.lock.Lock()
		defer other.head.lock.Unlock()
		if err := errors.Join(other.loadHead(t.Context()), other.dropPending(t.Context(), "", 0)); err != nil {
			t.Error(err)
		}
	}
	_, err := in.RotateRoot(t.Context(), admin(), RotateRootRequest{})
	wantCode(t, err, Aborted)
	other.Close(t.Context())
	in.wantStates(RootActive)
	in.wantNoOrphan(in.device)
	in.namespace("pay")
}

// slowDevice does something else before it has made a key.
type slowDevice struct {
	*softDevice
	meanwhile func()
}

func (d *slowDevice) GenerateRoot(ctx context.Context, id ObjectID) ([]byte, error) {
	d.meanwhile()
	return d.softDevice.GenerateRoot(ctx, id)
}
