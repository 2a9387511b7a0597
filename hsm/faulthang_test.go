package hsm_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
)

// hangFaults are calls that outlast the deadline. What hangs keeps its place, so that
// callers may find the pool exhausted too.
func hangFaults() []fault {
	hang := func(functions ...string) func(*rig) { return inject(hsmtest.Fault{Do: hsmtest.Hang}, functions...) }
	away := func(name string, begin func(*rig)) fault {
		return fault{name: name, begin: begin, want: hsm.ErrUnavailable, class: hsm.ClassDevice, or: hsm.ErrExhausted,
			health: fallsSick, logins: loginsOfRecovery, killed: true, prepare: hurried}
	}
	return []fault{
		away("decryption hangs", hang("C_Decrypt")),
		away("everything hangs", func(r *rig) { r.module.InjectAll(hsmtest.Fault{Do: hsmtest.Hang}) }),
		away("login hangs after a lost login", together(hang("C_Login"), func(r *rig) { r.module.Logout(1) })),
		{name: "one signature hangs", begin: inject(hsmtest.Fault{Do: hsmtest.Hang, Times: 1}, "C_Sign"),
			call: (*rig).hungOnce, beside: (*rig).unwrap, health: mayVary, logins: loginsOfRecovery, killed: true, prepare: hurried},
	}
}

// hungOnce signs; the first call gets no answer, the others go on beside it.
func (r *rig) hungOnce() error {
	fired := r.module.Fired("C_Sign")
	err := r.sign()
	if fired == 0 && r.module.Fired("C_Sign") == 1 {
		return noError(err)
	}
	return err
}

// The device is closed while calls hang, in the call itself or in its own last calls:
// Close gives up in time and says so; once the module answers nothing is left, and the
// token can be opened again.
func TestFaultHangDuringShutdown(t *testing.T) {
	for name, function := range map[string]string{"a call": "C_Decrypt", "closing a session": "C_CloseSession", "C_Finalize": "C_Finalize"} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w way) {
				r := newRig(t, w, hurried)
				r.probes.end()
				r.module.Inject(function, hsmtest.Fault{Do: hsmtest.Hang})
				var caller error
				if function == "C_Decrypt" {
					caller = r.unwrap()
					want(t, caller, hsm.ErrUnavailable, hsm.ClassDevice)
				}
				r.unclosed = true
				began := time.Now()
				err := r.Close()
				took := time.Since(began)
				if took > slower*3*faultTimeout || !w.worker && err == nil {
					t.Errorf("Close = %v after %v", err, took)
				}
				r.module.Reset()
				r.leavesNothing()
				eventually(t, func() error { // what was let go may still be on its way
					again, err := w.open(t, r.config)
					if err == nil {
						r.Service = again
					}
					return err
				})
				defer func() { _ = r.Close() }()
				r.report(observation{fault: "shutdown while " + name + " hangs", callers: told(caller),
					health: fmt.Sprintf("Close gave up after %.1f s", took.Seconds()), recovery: "a new Open works"})
			})
		})
	}
}

// The token is opened while a login hangs: Open gives up in time, the PIN was tried
// once, and nothing is left once the login answers.
func TestFaultHangAtOpen(t *testing.T) {
	r := newRig(t, inProcess, hurried)
	r.probes.end()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	logins := r.module.Calls("C_Login")
	r.module.Inject("C_Login", hsmtest.Fault{Do: hsmtest.Hang})
	began := time.Now()
	_, err := hsm.Open(t.Context(), r.config)
	want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
	if took := time.Since(began); took > slower*3*faultTimeout {
		t.Errorf("Open took %v", took)
	}
	if n := r.module.Calls("C_Login") - logins; n != 1 {
		t.Errorf("%d logins", n)
	}
	r.module.Reset()
	eventually(t, func() error {
		if n, _ := r.module.Sessions(); n != 0 || r.module.Inside() != 0 {
			return fmt.Errorf("%d sessions, %d calls inside", n, r.module.Inside())
		}
		return nil
	})
	r.open()
	if err := r.findRoot(); err != nil {
		t.Fatal(err)
	}
	r.report(observation{fault: "login hangs at Open", callers: told(err), health: "Open gave up in time", recovery: "a new Open works"})
}

// Hung calls keep their threads until the module lets them go, and no longer: many
// rounds need no more threads than one.
func TestFaultHangsLeaveNoThreads(t *testing.T) {
	r := newRig(t, inProcess, hurried)
	r.probes.end()
	round := func() int {
		r.module.Inject("C_Sign", hsmtest.Fault{Do: hsmtest.Hang})
		var wg sync.WaitGroup
		for range r.config.MaxSessions {
			wg.Go(func() { _ = r.sign() })
		}
		wg.Wait()
		r.module.Reset()
		eventually(t, r.all)
		r.leavesNothing()
		return threads(t)
	}
	first := max(round(), round())
	last := 0
	for range 3 {
		last = round()
	}
	if last > first+2 {
		t.Errorf("%d threads after the last round, %d after the first", last, first)
	}
	r.report(observation{fault: "five rounds of hung calls", callers: "ErrUnavailable/device",
		health: fmt.Sprintf("threads %d→%d", first, last), recovery: "after each"})
}

// Every place of the pool is taken by a call that hangs: others are told so in time,
// and nobody waits longer than the own deadline.
func TestFaultPoolExhausted(t *testing.T) {
	r := newRig(t, inProcess, func(_ *hsmtest.Module, c *hsm.Config) { c.MaxSessions, c.Timeout = 2, faultTimeout })
	r.probes.end()
	r.module.Inject("C_GenerateRandom", hsmtest.Fault{Do: hsmtest.Hang})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { _, _ = r.Random(t.Context(), 1) })
	}
	eventually(t, func() error { return unless(r.module.Inside() == 2, errors.New("not inside yet")) })
	err := r.unwrap()
	want(t, err, hsm.ErrExhausted, hsm.ClassExhausted)
	wg.Wait()
	r.module.Reset()
	eventually(t, r.all)
	r.leavesNothing()
	r.report(observation{fault: "pool exhausted", callers: told(err), health: "no change", recovery: "at once"})
}

// The token allows fewer sessions than the pool has places, and says nothing of it:
// callers wait for each other, and all are served.
func TestFaultSessionLimitBelowPool(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, func(m *hsmtest.Module, _ *hsm.Config) { m.LimitSessions(4) })
		var wg sync.WaitGroup
		failed := 0
		var mu sync.Mutex
		for range 16 {
			wg.Go(func() {
				for range 20 {
					if err := errors.Join(r.unwrap(), r.sign()); err != nil {
						mu.Lock()
						failed++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		if _, most := r.module.Sessions(); failed != 0 || most > 4 {
			t.Errorf("%d of 320 callers failed, %d sessions at most", failed, most)
		}
		r.leavesNothing()
		r.report(observation{fault: "session limit below the pool's size", callers: "ok", health: "well", recovery: "not needed"})
	})
}

// Open tries a PIN that is refused once, and the next Open may try another.
func TestFaultPINRefusedAtOpen(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for _, code := range []uint{pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED} {
			logins := r.module.Calls("C_Login")
			r.module.Inject("C_Login", hsmtest.Fault{Do: hsmtest.Refuse, Code: code})
			_, err := w.open(t, r.config)
			want(t, err, hsm.ErrPIN, hsm.ClassPIN)
			time.Sleep(100 * time.Millisecond)
			if n := r.module.Calls("C_Login") - logins; n != 1 {
				t.Errorf("%d logins after code %#x, want 1", n, code)
			}
		}
		r.before = r.traces()
		r.report(observation{fault: "PIN refused at Open", callers: "ErrPIN/pin", health: "Open fails", recovery: "by a new Open only"})
	})
}
