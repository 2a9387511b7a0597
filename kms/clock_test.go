package kms

import (
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
)

// A clock that is set forward, at once or step by step, must not destroy what its
// owner could still restore; one that runs evenly must.
func TestClockThatJumpsPausesDestruction(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{Policies: testPolicies})
	in.open()
	defer in.close()
	var passed time.Duration
	in.stopTime(&passed)
	in.namespace("pay")
	in.key("pay", "card", "")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	delay := 24 * time.Hour
	must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1, Delay: &delay}))
	state := func() VersionState {
		t.Helper()
		if err := in.runDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		return must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1))).State
	}

	in.advance(25 * time.Hour) // the clock alone
	if got := state(); got != DestroyScheduled {
		t.Fatalf("after a jump of the clock the version is %s", got)
	}
	if jumps := in.entries(audit.Filter{Action: "ClockJump"}); len(jumps) != 1 {
		t.Errorf("%d jumps are logged", len(jumps))
	}
	for range 90 { // a minute at a time, in no time: still a jump
		in.advance(50 * time.Second)
		if got := state(); got != DestroyScheduled {
			t.Fatalf("after many small jumps the version is %s", got)
		}
	}
	if !in.Health(t.Context()).DestructionPaused {
		t.Error("status does not tell that destruction is paused")
	}
	in.advance(clockSettle)
	passed += clockSettle
	if got := state(); got != Destroyed {
		t.Errorf("after an hour of even time the version is %s", got)
	}
}

// stopTime lets a test say how much time really passed.
func (in *testInstallation) stopTime(passed *time.Duration) {
	in.Service.clock.passed = func() time.Duration { return *passed }
	in.Service.clock.reset(in.now())
}
