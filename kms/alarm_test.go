package kms

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// alarmCounter counts the alarms that an operator would see.
type alarmCounter struct {
	noObserver
	alarms atomic.Int64
}

func (c *alarmCounter) ScheduledUse(policy.Action) { c.alarms.Add(1) }

func TestUseOfWhatIsScheduledRaisesAnAlarm(t *testing.T) {
	in := newInstallation(t)
	in.close()
	counter := &alarmCounter{}
	in.config.Observer = counter
	in.open()
	in.namespace("pay")
	k := in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	open := func() error {
		_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: sealed})
		return err
	}
	want := func(n int64, when string) {
		t.Helper()
		if got := counter.alarms.Load(); got != n {
			t.Errorf("%s: %d alarms, want %d", when, got, n)
		}
	}

	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("card", 1)))
	wantCode(t, open(), FailedPrecondition)
	want(0, "a disabled version")
	delay := time.Hour
	must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1, Delay: &delay}))
	wantCode(t, open(), FailedPrecondition)
	want(1, "a version scheduled for destruction")
	_, err := in.EnableVersion(t.Context(), admin(), ref("card", 1))
	wantCode(t, err, FailedPrecondition)
	want(1, "a change, which is no use")
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Delay: &delay}))
	wantCode(t, open(), FailedPrecondition)
	want(2, "a key scheduled for deletion")
	_, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: idPrefix + k.ID.String(), Plaintext: []byte("x")})
	wantCode(t, err, FailedPrecondition)
	want(3, "a key scheduled for deletion, by its id")
	events := in.entries(audit.Filter{Action: "ScheduledUse"})
	if len(events) == 0 || len(events) > 3 || events[0].Version != 1 || events[0].KeyID != uint64(k.ID) || events[0].Phase != audit.PhaseEvent ||
		events[0].Details["use"] != "Decrypt" || events[0].Principal != `User::"root"` || events[0].RequestID == "" {
		t.Errorf("alarms in the log: %+v", events)
	}
}
