package kms

import (
	"slices"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

// A domain record that is damaged holds up no other, and its root version is kept.
func TestDamagedDomainKeepsItsRoot(t *testing.T) {
	in := newInstallation(t)
	in.namespace("bad")
	in.namespace("good")
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "bad"))
	path := pathDomain(ns.ID, 1)
	record := must[store.Record](t)(in.store.Get(t.Context(), path))
	broken := slices.Clone(record.Value)
	broken[len(broken)-1] ^= 1
	must[store.Revision](t)(in.store.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: path, Value: broken}}}))
	in.rotateRoot("")
	wantCode(t, in.tendRootsOnce(t.Context()), DataLoss, path)
	in.wantStates(RootRetiring, RootActive)
	if got := in.roots(); got[1].Domains != 1 || in.Health(t.Context()).Rewrap.Problem == "" {
		t.Errorf("roots %+v, status %+v", got, in.Health(t.Context()).Rewrap)
	}
	delay := time.Second
	_, err := in.DestroyRoot(t.Context(), admin(), DestroyRootRequest{Version: 1, Delay: &delay})
	wantCode(t, err, FailedPrecondition, "still wraps 1 domain secrets, of namespaces bad", in.roots()[1].ID.String())
	destroyed := must[RootVersion](t)(in.DestroyRoot(t.Context(), admin(), DestroyRootRequest{Version: 1, Delay: &delay, ConfirmLoss: in.roots()[1].ID.String()}))
	if destroyed.State != RootDestroyScheduled {
		t.Errorf("destroyed by name: %+v", destroyed)
	}
}

func TestDestroyRoot(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	for _, key := range []string{"sealed", "vault"} {
		if key == "vault" {
			in.hsmKey(key, "AES_256_GCM", Rotation{})
		} else {
			in.key("pay", key, "")
		}
		must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key}))
		in.destroy(key, 1)
	}
	in.wantObjects()
	old := in.roots()[1].ID
	delay := time.Hour
	destroy := DestroyRootRequest{Version: 1, Delay: &delay}
	_, err := in.DestroyRoot(t.Context(), admin(), destroy)
	wantCode(t, err, FailedPrecondition, "in force", "rotate")
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.rotateRoot("")
	_, err = in.DestroyRoot(t.Context(), admin(), destroy)
	wantCode(t, err, FailedPrecondition, "wait")
	_, err = in.DestroyRoot(t.Context(), admin(), DestroyRootRequest{Version: 1, Delay: &delay, ConfirmLoss: old.String()})
	wantCode(t, err, FailedPrecondition, "the installation itself")
	in.tendRootsNow()
	_, err = in.DestroyRoot(t.Context(), nobody(), destroy)
	wantCode(t, err, PermissionDenied)
	_, err = in.DestroyRoot(t.Context(), admin(), DestroyRootRequest{Version: 7})
	wantCode(t, err, NotFound)
	_, err = in.DestroyRoot(t.Context(), admin(), DestroyRootRequest{})
	wantCode(t, err, InvalidArgument, "version")
	if r := must[RootVersion](t)(in.DestroyRoot(t.Context(), admin(), destroy)); r.State != RootDestroyScheduled || r.DestroyTime.IsZero() {
		t.Errorf("scheduled: %+v", r)
	}
	_, err = in.DestroyRoot(t.Context(), admin(), destroy)
	wantCode(t, err, FailedPrecondition, "DESTROY_SCHEDULED")
	if r := must[RootVersion](t)(in.RestoreRoot(t.Context(), admin(), RootRef{Version: 1})); r.State != RootRetired || !r.DestroyTime.IsZero() {
		t.Errorf("restored: %+v", r)
	}
	_, err = in.RestoreRoot(t.Context(), admin(), RootRef{Version: 1})
	wantCode(t, err, FailedPrecondition, "RETIRED")
	must[RootVersion](t)(in.DestroyRoot(t.Context(), admin(), destroy))
	in.tendRootsNow()
	in.wantStates(RootDestroyScheduled, RootActive)
	if n := in.describe("pay").erasedThrough(); n != 0 {
		t.Errorf("erased through generation %d before the root is destroyed", n)
	}
	in.advance(2 * time.Hour)
	in.tendRootsNow()
	in.wantStates(RootDestroyed, RootActive)
	in.tendRootsNow()
	in.device.lock.Lock()
	if _, there := in.device.roots[old]; there {
		t.Error("the destroyed root is still on the token")
	}
	in.device.lock.Unlock()
	// Generation 1 was only ever wrapped by the version that is destroyed.
	if n := in.describe("pay").erasedThrough(); n != 1 {
		t.Errorf("erased through generation %d, want 1", n)
	}
	in.wantErased("sealed", 1, true, "its root is destroyed")
	in.wantErased("vault", 1, false, "its root is destroyed, but it never was under it")
	if err := in.confirm(1); err != nil {
		t.Fatal(err)
	}
	in.wantErased("vault", 1, true, "confirmed for copies of the token")
	in.close()
	in.open()
	in.wantOpens("pay", sealed, "secret")
	in.wantBracketed()
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("the store is not what the log says: %+v", found.Differences)
	}
}

// A destruction that was cut off after it was begun is gone on with.
func TestDestructionGoesOnAfterACrash(t *testing.T) {
	for n := 1; n <= 2; n++ {
		in := newInstallation(t)
		in.rotateRoot("")
		in.tendRootsNow()
		delay := time.Second
		must[RootVersion](t)(in.DestroyRoot(t.Context(), admin(), DestroyRootRequest{Version: 1, Delay: &delay}))
		in.advance(time.Minute)
		in.store.FailFrom(n, storetest.Failed)
		if err := in.tendRootsOnce(t.Context()); err == nil {
			t.Errorf("commit %d failed, and nobody noticed", n)
		}
		in.store.Heal()
		in.crash()
		in.open()
		in.tendRootsNow()
		in.wantStates(RootDestroyed, RootActive)
		in.wantNoOrphan(in.device)
		in.wantBracketed()
	}
}
