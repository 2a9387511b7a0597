package hsm_test

import (
	"errors"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
)

// deathFaults kill the process that has the module.
func deathFaults() []fault {
	once := func(do hsmtest.Action, function string) func(*rig) {
		return inject(hsmtest.Fault{Do: do, Times: 1}, function)
	}
	dies := func(name string, begin func(*rig)) fault {
		return fault{name: name, begin: begin, deadly: true, killed: true, health: mayVary, logins: loginsOfRecovery}
	}
	stays := func(name string, begin func(*rig)) fault {
		f := dies(name, begin)
		f.want, f.class, f.health, f.prepare = hsm.ErrUnavailable, hsm.ClassDevice, fallsSick, hurried
		return f
	}
	always := func(do hsmtest.Action, functions ...string) func(*rig) {
		return inject(hsmtest.Fault{Do: do}, functions...)
	}
	return []fault{
		dies("module aborts in one decryption", once(hsmtest.Abort, "C_Decrypt")),
		dies("module crashes in one decryption", once(hsmtest.Crash, "C_Decrypt")),
		dies("SIGKILL after one decryption", once(hsmtest.KillAfter, "C_Decrypt")),
		stays("module crashes in every decryption", always(hsmtest.Crash, "C_Decrypt")),
		stays("module crashes when it is initialised", together(always(hsmtest.Crash, "C_Initialize"), once(hsmtest.Kill, "C_Decrypt"))),
		dies("SIGKILL at one login", together(once(hsmtest.Kill, "C_Login"), (*rig).loginAnew)),
		dies("SIGKILL after one login", together(once(hsmtest.KillAfter, "C_Login"), (*rig).loginAnew)),
		stays("SIGKILL at every login", together(always(hsmtest.Kill, "C_Login"), func(r *rig) { r.module.Logout(1) })),
	}
}

// loginAnew waits until a fault of one login is over.
func (r *rig) loginAnew() {
	r.Helper()
	r.module.Logout(1)
	eventually(r, func() error {
		return errors.Join(unless(r.module.Fired("C_Login") == 1, errors.New("no login yet")), r.probeNow())
	})
}

// The worker dies while it makes a key, before or after the token has done it: the
// error says that the outcome is unknown and names the id, under which there is one
// key or none, and which Destroy clears.
func TestFaultDeathAtKeyGeneration(t *testing.T) {
	r := newRig(t, throughWorker, nil)
	r.probes.end()
	for function, create := range map[string]func() (hsm.KeyID, error){
		"C_GenerateKey":     func() (hsm.KeyID, error) { root, err := r.GenerateRoot(t.Context()); return root.ID, err },
		"C_GenerateKeyPair": func() (hsm.KeyID, error) { signer, err := r.GenerateSigner(t.Context()); return signer.ID, err },
	} {
		for action, when := range map[hsmtest.Action]string{hsmtest.Kill: "before", hsmtest.KillAfter: "after"} {
			eventually(t, r.all)
			keys, process := r.keys(), r.module.Process()
			r.module.Inject(function, hsmtest.Fault{Do: action, Times: 1})
			id, err := create()
			want(t, err, hsm.ErrUnknownOutcome, hsm.ClassUnknown)
			if id == (hsm.KeyID{}) {
				t.Errorf("%s %s: the error names no key", when, function)
			}
			made := r.keys() - keys
			if (made != 0) != (action == hsmtest.KillAfter) || r.module.Fired(function) != 1 {
				t.Errorf("%d objects made, %s fired %d times", made, function, r.module.Fired(function))
			}
			eventually(t, func() error { return r.Destroy(t.Context(), id) })
			eventually(t, r.all)
			if r.keys() != keys || r.module.Process() == process {
				t.Errorf("%d objects, %d before; worker %d, %d before", r.keys(), keys, r.module.Process(), process)
			}
		}
	}
	r.leavesNothing()
	r.report(observation{fault: "SIGKILL while keys are made", callers: "ErrUnknownOutcome/unknown", health: "sick", recovery: "a new worker"})
}
