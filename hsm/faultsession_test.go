package hsm_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
)

// Every operation survives that somebody else logged out before it: with one login,
// on the same generation of the module.
func TestFaultExternalLogoutBeforeEachOperation(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		calls := map[string]func() error{
			"unwrap": r.unwrap, "wrap": r.wrap, "sign": r.sign, "find root": r.findRoot, "probe": r.probeNow,
			"generate": r.generate, "generate signer": r.generateSigner,
			"destroy": func() error { return r.Destroy(t.Context(), hsm.KeyID{1}) },
		}
		for name, call := range calls {
			eventually(t, r.all) // a worker that was just replaced takes its time
			logins := r.module.Calls("C_Login")
			r.module.Logout(1)
			err := call()
			// A worker has the PIN for one login, so that another one makes the next:
			// what makes a key is not asked twice, and many lost logins within seconds
			// are answered by pauses.
			if err != nil && !(w.worker && errors.Is(err, hsm.ErrUnavailable)) {
				t.Errorf("%s: %v", name, err)
			}
			eventually(t, r.all)
			if n := r.module.Calls("C_Login") - logins; n != 1 {
				t.Errorf("%s: %d logins", name, n)
			}
		}
		if got := r.Status().Generation; got != r.before.generation && !w.worker {
			t.Errorf("the module was initialised anew for a lost login (generation %d, was %d)", got, r.before.generation)
		}
		r.leavesNothing()
		r.report(observation{fault: "external logout before each operation", callers: "ok", health: "well", recovery: "not needed"})
	})
}

// After the module was initialised anew an old handle names another key: it is not
// used any more.
func TestFaultStaleHandleAfterReinitialise(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, func(m *hsmtest.Module, _ *hsm.Config) { m.Renumber() })
		second, err := r.GenerateRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		other, err := r.Wrap(t.Context(), second.ID, 1, []byte("other secret"), nil)
		if err != nil {
			t.Fatal(err)
		}
		before := r.handleOwners()
		refuseAll(pkcs11.CKR_DEVICE_ERROR)(r)
		want(t, r.unwrap(), hsm.ErrUnavailable, hsm.ClassDevice)
		r.module.Reset()
		eventually(t, r.all)
		for range 10 {
			got, err := r.Unwrap(t.Context(), other, nil)
			if err != nil || string(got) != "other secret" {
				t.Errorf("Unwrap = %q, %v", got, err)
			}
			if err := r.all(); err != nil {
				t.Error(err)
			}
		}
		renumbered := 0
		for handle, id := range r.handleOwners() {
			if was, ok := before[handle]; ok && was != id {
				renumbered++
			}
		}
		if !w.worker && renumbered < 2 {
			t.Errorf("%d handles name another key: this proves nothing", renumbered)
		}
		r.before.keys++
		r.leavesNothing()
		r.report(observation{fault: "stale handle after re-initialise", callers: "ok after the device error",
			health: fmt.Sprintf("%d old handles name another key", renumbered), recovery: "with the device"})
	})
}

// handleOwners tells which key each handle names, in the module as it is now. In
// another process it cannot be asked.
func (r *rig) handleOwners() map[pkcs11.ObjectHandle]string {
	r.Helper()
	owners := map[pkcs11.ObjectHandle]string{}
	if r.way.worker {
		return owners
	}
	token := *r.token
	token.Module = r.module.Path
	o := newOutsider(r, &token)
	defer func() { _ = o.p11.CloseSession(o.session) }()
	for _, handle := range o.find() {
		owners[handle] = fmt.Sprintf("%x %x", o.attribute(handle, pkcs11.CKA_CLASS), o.attribute(handle, pkcs11.CKA_ID))
	}
	return owners
}

// The reply to the making of a key is lost for good: the error says that the outcome
// is unknown and names the key, of which there is one, and which can be destroyed.
func TestFaultUnknownOutcome(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		for function, create := range map[string]func() (hsm.KeyID, error){
			"C_GenerateKey":     func() (hsm.KeyID, error) { root, err := r.GenerateRoot(t.Context()); return root.ID, err },
			"C_GenerateKeyPair": func() (hsm.KeyID, error) { signer, err := r.GenerateSigner(t.Context()); return signer.ID, err },
		} {
			lose := hsmtest.Fault{Do: hsmtest.Lose, Code: pkcs11.CKR_DEVICE_ERROR}
			r.module.Inject(function, lose)
			r.module.Inject("C_FindObjectsInit", hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_ERROR, After: 1})
			id, err := create()
			want(t, err, hsm.ErrUnknownOutcome, hsm.ClassUnknown)
			if id == (hsm.KeyID{}) || r.module.Fired(function) != 1 {
				t.Errorf("%s: id %s, made %d times", function, id, r.module.Fired(function))
			}
			r.module.Reset()
			if n := r.keys() - r.before.keys; n < 1 {
				t.Errorf("%s made nothing: this proves nothing", function)
			}
			eventually(t, func() error { return r.Destroy(t.Context(), id) })
			if n := r.keys() - r.before.keys; n != 0 {
				t.Errorf("%s: %d objects left", function, n)
			}
		}
		eventually(t, r.all)
		r.leavesNothing()
		r.report(observation{fault: "reply lost and token away while a key is made", callers: "ErrUnknownOutcome/unknown", health: "sick", recovery: "by Destroy of the id"})
	})
}

// Many open the token at once: each logs in once, and all are served.
func TestFaultManyOpenAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		const many = 6
		services, failures := make(chan hsm.Service, many), make(chan error, many)
		for range many {
			go func() {
				service, err := w.open(r.T, r.config)
				if err == nil {
					_, err = service.FindRoot(t.Context(), r.root.ID, r.root.CheckValue)
					services <- service
				}
				failures <- err
			}()
		}
		for range many {
			if err := <-failures; err != nil {
				t.Error(err)
			}
		}
		logins := r.module.Calls("C_Login") - r.before.logins
		if logins > many {
			t.Errorf("%d logins for %d openings", logins, many)
		}
		close(services)
		for service := range services {
			if err := errors.Join(service.Probe(t.Context()), service.Close()); err != nil {
				t.Error(err)
			}
		}
		eventually(t, r.all)
		r.leavesNothing()
		r.report(observation{fault: fmt.Sprintf("%d openings at once", many), callers: "ok", health: "well", recovery: "not needed"})
	})
}
