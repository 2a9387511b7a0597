package kms

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

func (in *testInstallation) confirm(generation uint32) error {
	return second(in.ConfirmErasure(context.Background(), admin(), ConfirmErasureRequest{Namespace: "pay", Generation: generation}))
}

// destroy destroys a version at once.
func (in *testInstallation) destroy(key string, version uint32) {
	in.t.Helper()
	delay := time.Duration(0)
	must[KeyVersion](in.t)(in.DestroyVersion(context.Background(), admin(), DestroyRequest{Namespace: "pay", Key: key, Version: version, Delay: &delay}))
	in.advance(time.Second)
	if err := in.runDue(context.Background()); err != nil {
		in.t.Fatal(err)
	}
	if v := must[KeyVersion](in.t)(in.GetVersion(context.Background(), admin(), ref(key, version))); v.State != Destroyed {
		in.t.Fatalf("version %d is %s", version, v.State)
	}
}

// wantErased checks that a version is erased, as listed and as described, or not.
func (in *testInstallation) wantErased(key string, version uint32, erased bool, when string) {
	in.t.Helper()
	one := must[KeyVersion](in.t)(in.GetVersion(context.Background(), admin(), ref(key, version)))
	all, _, err := in.ListVersions(context.Background(), admin(), ListVersionsRequest{Namespace: "pay", Key: key})
	if err != nil {
		in.t.Fatal(err)
	}
	for _, v := range []KeyVersion{one, all[version-1]} {
		if v.ErasedTime.IsZero() == erased {
			in.t.Errorf("%s: version %d destroyed %s is erased since %s, want %v", when, version, v.DestroyTime, v.ErasedTime, erased)
		}
	}
}

// Nothing is called erased before it is: not by being destroyed, nor by a
// rekeying, nor what was destroyed after it began.
func TestErasedOnlyWhenItIs(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for range 4 {
		must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	}
	wantCode(t, in.confirm(0), InvalidArgument, "generation", "missing")
	wantCode(t, in.confirm(1), FailedPrecondition, "in use", "rekey the namespace first")
	in.destroy("card", 1)
	in.wantErased("card", 1, false, "destroyed")
	in.beginRekey("pay")
	in.destroy("card", 2) // while it is under way: a backup of now may hold both generations
	wantCode(t, in.confirm(1), FailedPrecondition, "still being replaced")
	in.endRekeying("pay")
	in.destroy("card", 3)
	in.wantErased("card", 1, false, "rekeyed, not confirmed")
	wantCode(t, in.confirm(2), FailedPrecondition, "in use")

	if err := in.confirm(1); err != nil {
		t.Fatal(err)
	}
	first := in.describe("pay").Erasures
	if len(first) != 1 || first[0].Through != 1 || first[0].Time.IsZero() {
		t.Fatalf("erasures = %+v", first)
	}
	in.wantErased("card", 1, true, "confirmed")
	in.wantErased("card", 2, false, "destroyed while the rekeying ran")
	in.wantErased("card", 3, false, "destroyed since")
	in.wantErased("card", 4, false, "in use")
	if err := in.confirm(1); err != nil || len(in.describe("pay").Erasures) != 1 {
		t.Errorf("confirmed again: %v, %+v", err, in.describe("pay").Erasures)
	}

	in.beginRekey("pay")
	in.endRekeying("pay")
	in.advance(time.Hour)
	if err := in.confirm(2); err != nil {
		t.Fatal(err)
	}
	in.close()
	in.open()
	in.wantErased("card", 2, true, "the second generation is erased")
	in.wantErased("card", 3, true, "the second generation is erased")
	in.wantErased("card", 4, false, "in use")
	v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if !v.ErasedTime.Equal(first[0].Time) {
		t.Errorf("a later erasure moved the first from %s to %s", first[0].Time, v.ErasedTime)
	}
}

func TestErasedKey(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	k := in.key("pay", "card", "")
	delay := time.Hour
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Delay: &delay}))
	erased := func() bool {
		t.Helper()
		one := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: idPrefix + k.ID.String()}))
		all, _, err := in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay", ShowDeleted: true})
		if err != nil || len(all) != 1 || all[0].ErasedTime != one.ErasedTime {
			t.Fatalf("listed %+v, described %+v, %v", all, one, err)
		}
		return !one.ErasedTime.IsZero()
	}
	in.beginRekey("pay")
	in.endRekeying("pay")
	if err := in.confirm(1); err != nil {
		t.Fatal(err)
	}
	in.advance(2 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if erased() {
		t.Error("a key removed in generation 2 counts as erased with generation 1")
	}
	in.beginRekey("pay")
	in.endRekeying("pay")
	if erased() {
		t.Error("erased without anybody having said so")
	}
	if err := in.confirm(2); err != nil {
		t.Fatal(err)
	}
	if !erased() {
		t.Error("confirmed, but not erased")
	}
}

// Whoever put an old secret back into the store made the declaration false.
func TestErasureIsRefusedWhileASecretIsThere(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	n := in.describe("pay")
	old := in.list(pathDomain(n.ID, 1))[0]
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.overwrite(old.Key, old.Value)
	wantCode(t, in.confirm(1), FailedPrecondition, "still holds the secret of generation 1", old.Key)
	if got := in.describe("pay").Erasures; len(got) != 0 {
		t.Errorf("erasures = %+v", got)
	}
}

func TestWhoMayEraseAndRekey(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	operator := as(policy.User, "operator")
	for _, name := range []string{"pay", "none"} {
		for what, err := range map[string]error{
			"rekey":   second(in.RekeyNamespace(t.Context(), operator, NamespaceRef{Namespace: name})),
			"confirm": second(in.ConfirmErasure(t.Context(), operator, ConfirmErasureRequest{Namespace: name, Generation: 1})),
			"delete":  second(in.DeleteNamespace(t.Context(), operator, DeleteNamespaceRequest{Namespace: name})),
			"restore": second(in.RestoreNamespace(t.Context(), operator, NamespaceRef{Namespace: name})),
		} {
			if CodeOf(err) != PermissionDenied {
				t.Errorf("%s of %s by an operator: %v", what, name, err)
			}
		}
	}
	_, err := in.RekeyNamespace(t.Context(), admin(), NamespaceRef{Namespace: "none"})
	wantCode(t, err, NotFound)
}

// A namespace remembers a bounded number of erasures; what it forgets is told to
// be erased later than it was, never earlier.
func TestErasuresAreBounded(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	in.destroy("card", 1)
	for generation := range uint32(maxErasures + 3) {
		in.beginRekey("pay")
		in.endRekeying("pay")
		in.advance(time.Hour)
		if err := in.confirm(generation + 1); err != nil {
			t.Fatal(fmt.Errorf("generation %d: %w", generation+1, err))
		}
	}
	all := in.describe("pay").Erasures
	if len(all) != maxErasures || all[0].Through != 4 {
		t.Fatalf("%d erasures, the first %+v", len(all), all[0])
	}
	v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if !v.ErasedTime.Equal(all[0].Time) {
		t.Errorf("erased since %s, want %s", v.ErasedTime, all[0].Time)
	}
}
