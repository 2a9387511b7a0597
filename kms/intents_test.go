package kms

import (
	"context"
	"testing"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// A server that dies between intent and outcome leaves the log open; the next
// start closes it, and tells truly whether the change was made.
func TestOpenIntentsAreResolvedAtStart(t *testing.T) {
	for name, committed := range map[string]bool{"committed": true, "not committed": false} {
		t.Run(name, func(t *testing.T) {
			in := newInstallation(t)
			in.namespace("pay")
			trace := in.begin(admin(), policy.UpdateKey)
			tx := &transaction{}
			tx.put(in.system, prefixSecret+"probe", 0, secretRecord{})
			if err := in.auditIntent(trace, tx); err != nil {
				t.Fatal(err)
			}
			if committed {
				if err := tx.commit(t.Context(), in.Service); err != nil {
					t.Fatal(err)
				}
			}
			in.crash()
			in.open()
			want := map[bool]string{true: "OK", false: "ABORTED"}[committed]
			for range 2 { // resolved once, and not again at the next start
				outcomes := in.outcomesOf(trace.intent.sequence)
				if len(outcomes) != 1 || outcomes[0].Outcome != want || outcomes[0].Reason != reasonResolved ||
					outcomes[0].Action != "UpdateKey" || outcomes[0].Principal != `User::"root"` {
					t.Fatalf("outcomes = %+v, want one %s", outcomes, want)
				}
				in.crash()
				in.open()
			}
			if n := must[int](t)(in.count(prefixIntent)); n != 0 {
				t.Errorf("%d marks are left", n)
			}
		})
	}
}

func (in *testInstallation) outcomesOf(intent uint64) []audit.Entry {
	var found []audit.Entry
	for _, e := range in.entries(audit.Filter{}) {
		if e.Phase == audit.PhaseOutcome && e.Intent == intent {
			found = append(found, e)
		}
	}
	return found
}

// Marks go once their outcomes are written, and a start looks no further back
// than it must.
func TestMarksAreSettled(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for range settlePage + 5 {
		must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	}
	if n := must[int](t)(in.count(prefixIntent)); n < settlePage {
		t.Errorf("%d marks before they are settled: changes do not leave theirs", n)
	}
	if err := in.settleIntents(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := must[int](t)(in.count(prefixIntent)); n != 0 {
		t.Errorf("%d marks are left", n)
	}
	if below, next := in.intents.stored.value.Below, in.audit.Next(); below != next {
		t.Errorf("a start would look from %d on, though all before %d is settled", below, next)
	}
	in.crash()
	in.open()
	for _, e := range in.entries(audit.Filter{}) {
		if e.Reason == reasonResolved {
			t.Errorf("an intent that had an outcome was resolved: %+v", e)
		}
	}
}

// While an intent is open, a start must look back to it, whatever is settled since.
func TestAnOpenIntentIsNotPassedOver(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	trace := in.begin(admin(), policy.UpdateKey)
	tx := &transaction{}
	tx.put(in.system, prefixSecret+"probe", 0, secretRecord{})
	if err := in.auditIntent(trace, tx); err != nil {
		t.Fatal(err)
	}
	in.key("pay", "card", "")
	if err := in.settleIntents(context.Background()); err != nil {
		t.Fatal(err)
	}
	if below := in.intents.stored.value.Below; below > trace.intent.sequence {
		t.Fatalf("a start would look from %d on and miss intent %d", below, trace.intent.sequence)
	}
	in.crash()
	in.open()
	if outcomes := in.outcomesOf(trace.intent.sequence); len(outcomes) != 1 {
		t.Errorf("outcomes = %+v", outcomes)
	}
}

// A change that was held up between taking its floor and beginning must not have
// a start look further back than marks are kept, and miss them.
func TestALateIntentDoesNotLookFurtherBack(t *testing.T) {
	in := newInstallation(t)
	floor := in.audit.Next()
	in.namespace("pay")
	if err := in.settleIntents(t.Context()); err != nil {
		t.Fatal(err)
	}
	below := in.intents.stored.value.Below
	late := in.intents.begin(floor)
	in.namespace("hr")
	in.advance(anchorInterval)
	if err := in.settleIntents(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := in.intents.stored.value.Below; now < below {
		t.Errorf("a start would look from %d on, marks before %d are gone", now, below)
	}
	in.intents.end(late, false)
	in.crash()
	in.open()
}
