package kms

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store/storetest"
)

func (in *testInstallation) deleteNamespace(name string, delay time.Duration) Namespace {
	in.t.Helper()
	return must[Namespace](in.t)(in.DeleteNamespace(context.Background(), admin(), DeleteNamespaceRequest{Namespace: name, Delay: &delay}))
}

// usesOf are uses and changes of a namespace and its keys.
func (in *testInstallation) usesOf(call Call, ciphertext []byte) map[string]error {
	ctx := context.Background()
	ref := KeyRef{Namespace: "pay", Key: "card"}
	uses := map[string]error{
		"encrypt":          second(in.Encrypt(ctx, call, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})),
		"decrypt":          second(in.Decrypt(ctx, call, &DecryptRequest{Namespace: "pay", Ciphertext: ciphertext})),
		"reencrypt":        second(in.ReEncrypt(ctx, call, &ReEncryptRequest{Namespace: "pay", Ciphertext: ciphertext})),
		"data key":         second(in.GenerateDataKey(ctx, call, &GenerateDataKeyRequest{Namespace: "pay", Key: "card"})),
		"random":           second(in.GenerateRandom(ctx, call, &GenerateRandomRequest{Namespace: "pay", Size: 1})),
		"create":           second(in.CreateKey(ctx, call, CreateKeyRequest{Namespace: "pay", Key: "new"})),
		"rotate":           second(in.RotateKey(ctx, call, ref)),
		"update namespace": second(in.UpdateNamespace(ctx, call, UpdateNamespaceRequest{Namespace: "pay", Labels: &map[string]string{}})),
		"rekey":            second(in.RekeyNamespace(ctx, call, NamespaceRef{Namespace: "pay"})),
		"put policy":       second(in.PutPolicy(ctx, call, PutPolicyRequest{Namespace: "pay", Name: "new", Text: `permit (principal == User::"x", action, resource in Namespace::"pay");`})),
	}
	return uses
}

func TestDeletedNamespaceRefusesUseUntilRestored(t *testing.T) {
	in := newInstallation(t)
	in.close()
	counter := &alarmCounter{}
	in.config.Observer = counter
	in.open()
	in.namespace("pay")
	in.key("pay", "card", "")
	in.key("pay", "sign", "ED25519")
	must[Key](t)(in.UpdateKey(t.Context(), admin(), UpdateKeyRequest{Namespace: "pay", Key: "sign", Rotation: &Rotation{Period: 24 * time.Hour}}))
	sealed := in.encrypt("pay", "card", "secret")
	deleted := in.deleteNamespace("pay", 48*time.Hour)
	if deleted.State != NamespaceDeleteScheduled || deleted.DestroyTime.Before(in.now().Add(47*time.Hour)) {
		t.Fatalf("deleted = %+v", deleted)
	}
	date := deleted.DestroyTime.Format(time.RFC3339)
	for what, err := range in.usesOf(admin(), sealed) {
		if CodeOf(err) != FailedPrecondition || !strings.Contains(fmt.Sprint(err), date) || !strings.Contains(fmt.Sprint(err), "restored") {
			t.Errorf("%s: %v, want the date %s and what to do", what, err, date)
		}
	}
	for what, err := range in.usesOf(nobody(), sealed) {
		if CodeOf(err) != PermissionDenied {
			t.Errorf("%s by nobody: %v", what, err)
		}
	}
	if got := counter.alarms.Load(); got != 5 {
		t.Errorf("%d alarms, want one for each of 5 uses", got)
	}
	if events := in.entries(audit.Filter{Action: "ScheduledUse"}); len(events) == 0 || events[0].Namespace != "pay" || events[0].Reason != reasonNamespaceScheduled || events[0].Principal != `User::"root"` {
		t.Errorf("alarms in the log: %+v", events)
	}
	// It can still be looked at, and its name is taken.
	if n := in.describe("pay"); n.State != NamespaceDeleteScheduled || !n.DestroyTime.Equal(deleted.DestroyTime) {
		t.Errorf("described as %+v", n)
	}
	if err := listed(in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay"})); err != nil {
		t.Errorf("ListKeys: %v", err)
	}
	_, err := in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "pay"})
	wantCode(t, err, AlreadyExists, "deleted", date)
	_, err = in.DeleteNamespace(t.Context(), admin(), DeleteNamespaceRequest{Namespace: "pay"})
	wantCode(t, err, FailedPrecondition, date)

	in.close()
	in.open()
	restored := must[Namespace](t)(in.RestoreNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"}))
	if restored.State != NamespaceActive || !restored.DestroyTime.IsZero() {
		t.Fatalf("restored = %+v", restored)
	}
	_, err = in.RestoreNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"})
	wantCode(t, err, FailedPrecondition, "nothing is to be restored")
	in.wantOpens("pay", sealed, "secret")
	in.advance(72 * time.Hour) // the deletion taken back must not happen
	if err := in.runDue(t.Context()); err != nil || !in.tendAll() {
		t.Fatal(err)
	}
	in.wantOpens("pay", sealed, "secret")
	if left := in.list(prefixDue); len(left) != 1 || !strings.Contains(left[0].Key, dueRotate) {
		t.Errorf("%d jobs are left, want that of the next rotation", len(left))
	}
}

// What is due while a namespace is scheduled for deletion is done all the same: a
// restored namespace is as if nothing had been.
func TestJobsGoOnInANamespaceToBeDeleted(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "card", Rotation: Rotation{Period: 24 * time.Hour}}))
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	delay := time.Hour
	must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1, Delay: &delay}))
	in.deleteNamespace("pay", 1000*time.Hour)
	for day := range uint32(2) {
		in.advance(25 * time.Hour)
		if err := in.runDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
		if k.PrimaryVersion != 3+day || !k.NextRotation.After(in.now()) {
			t.Errorf("day %d: primary %d, next rotation %s", day, k.PrimaryVersion, k.NextRotation)
		}
		must[Namespace](t)(in.RestoreNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"}))
		in.deleteNamespace("pay", 1000*time.Hour)
	}
	if v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1))); v.State != Destroyed {
		t.Errorf("the version to be destroyed is %s", v.State)
	}
}

// furnishForRemoval makes a namespace with more of everything than a page, beside
// another one.
func (in *testInstallation) furnishForRemoval() (id ID, sealed []byte) {
	ctx := context.Background()
	for _, ns := range []string{"pay", "other"} {
		in.namespace(ns)
		in.key(ns, "card", "")
		put := PutPolicyRequest{Namespace: ns, Name: "own", Text: fmt.Sprintf(`permit (principal == User::"guest", action, resource in Namespace::%q);`, ns)}
		must[Policy](in.t)(in.PutPolicy(ctx, admin(), put))
	}
	in.key("pay", "periodic", "")
	must[Key](in.t)(in.UpdateKey(ctx, admin(), UpdateKeyRequest{Namespace: "pay", Key: "periodic", Rotation: &Rotation{Period: 24 * 365 * time.Hour}}))
	for range removePage + 5 {
		must[KeyVersion](in.t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "card"}))
	}
	return in.describe("pay").ID, in.encrypt("pay", "card", "secret")
}

// wantRemoved checks that nothing is left of the namespace pay, and that a new one
// of its name is another.
func (in *testInstallation) wantRemoved(id ID, sealed []byte) {
	in.t.Helper()
	ctx := context.Background()
	for _, record := range in.list("") {
		if strings.Contains(record.Key, id.String()) || strings.HasPrefix(record.Key, prefixPolicies("pay")) || record.Key == pathNamespace("pay") {
			in.t.Errorf("%s is left", record.Key)
		}
	}
	_, err := in.GetNamespace(ctx, admin(), "pay")
	wantCode(in.t, err, NotFound)
	_, err = in.RestoreNamespace(ctx, admin(), NamespaceRef{Namespace: "pay"})
	wantCode(in.t, err, NotFound)
	in.namespace("pay")
	in.key("pay", "card", "")
	if n := in.describe("pay"); n.ID == id || n.State != NamespaceActive {
		in.t.Errorf("the new namespace is %+v", n)
	}
	_, err = in.Decrypt(ctx, admin(), &DecryptRequest{Namespace: "pay", Ciphertext: sealed})
	wantCode(in.t, err, InvalidArgument, "decryption failed")
	_, err = in.GetNamespace(ctx, as(policy.User, "guest"), "pay")
	wantCode(in.t, err, PermissionDenied) // the old one's policies are gone
	if _, err := in.GetNamespace(ctx, as(policy.User, "guest"), "other"); err != nil {
		in.t.Errorf("another namespace's policy is gone: %v", err)
	}
	in.encrypt("other", "card", "x")
	in.encrypt("pay", "card", "x")
	in.advance(2 * 365 * 24 * time.Hour) // jobs of the old one's keys have nothing to do
	if err := in.runDue(ctx); err != nil {
		in.t.Fatal(err)
	}
	if left := in.list(prefixDue); len(left) != 0 {
		in.t.Errorf("%d jobs are left, the first %s", len(left), left[0].Key)
	}
	in.wantBracketed()
}

func TestNamespaceIsRemovedAtItsTime(t *testing.T) {
	in := newInstallation(t)
	id, sealed := in.furnishForRemoval()
	in.beginRekey("pay") // and not ended: both secrets go
	in.deleteNamespace("pay", time.Hour)
	if err := in.runDue(t.Context()); err != nil || !in.tendAll() || in.describe("pay").State != NamespaceDeleteScheduled {
		t.Fatal("removed before its time")
	}
	in.advance(2 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := in.describe("pay"); n.State != NamespaceDeleted || len(in.list(prefixDomains(id))) != 0 {
		t.Fatalf("at its time the namespace is %+v", n)
	}
	for what, err := range in.usesOf(admin(), sealed) {
		if CodeOf(err) != FailedPrecondition {
			t.Errorf("%s while it is being removed: %v", what, err)
		}
	}
	wantCode(t, second(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})), FailedPrecondition)
	wantCode(t, second(in.RestoreNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"})), FailedPrecondition, "nothing brings it back")
	if !in.tendAll() {
		t.Fatal("the removal failed")
	}
	in.wantRemoved(id, sealed)
}

// A removal that is cut off at any of its commits is gone on with.
func TestRemovalGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.Lost, storetest.Persisted} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			t.Parallel()
			const most = 20
			n := 1
			for struck := true; struck && n <= most && !t.Failed(); n++ {
				in := newInstallation(t)
				id, sealed := in.furnishForRemoval()
				in.deleteNamespace("pay", 0)
				in.advance(time.Second)
				commits := in.store.Commits()
				in.store.FailFrom(n, fault)
				_ = in.runDue(t.Context()) // its failures are logged
				in.tendAll()
				struck = in.store.Commits()-commits >= n
				in.store.Heal()
				in.crash()
				in.open()
				for range 2 {
					if err := in.runDue(t.Context()); err != nil {
						t.Fatal(err)
					}
					in.tendAll()
				}
				in.wantRemoved(id, sealed)
				in.close()
			}
			if n < 6 || n > most {
				t.Errorf("the removal made %d commits", n-2)
			}
		})
	}
}

// A change that was planned before the removal began must leave nothing behind.
func TestNothingIsWrittenIntoARemovedNamespace(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	n, d := in.describe("pay"), in.domain("pay")
	tx := &transaction{}
	tx.put(d, pathKeyName(n.ID, "late"), 0, keyNameRecord{ID: 1})
	in.deleteNamespace("pay", 0)
	in.advance(time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tx.commit(t.Context(), in.Service); !isConflict(err) {
		t.Fatalf("commit while it is removed: %v", err)
	}
	in.tendAll()
	if err := tx.commit(t.Context(), in.Service); !isConflict(err) {
		t.Fatalf("commit after it was removed: %v", err)
	}
}

// A damaged record keeps no namespace from being removed.
func TestDamagedNamespaceIsRemoved(t *testing.T) {
	in := newInstallation(t)
	id, sealed := in.furnishForRemoval()
	for _, prefix := range append(ownPrefixes(id), prefixDomains(id)) {
		in.overwrite(in.list(prefix)[0].Key, []byte("damaged"))
	}
	in.close()
	in.open()
	in.deleteNamespace("pay", 0)
	in.advance(time.Second)
	if err := in.runDue(t.Context()); err != nil || !in.tendAll() {
		t.Fatalf("not removed: %v", err)
	}
	in.wantRemoved(id, sealed)
}

func TestNamespaceDeletionBoundsAndClock(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{Policies: testPolicies})
	in.open()
	defer in.close()
	var passed time.Duration
	in.stopTime(&passed)
	in.namespace("pay")
	short := 23 * time.Hour
	_, err := in.DeleteNamespace(t.Context(), admin(), DeleteNamespaceRequest{Namespace: "pay", Delay: &short})
	wantCode(t, err, InvalidArgument, "delay", "24h")
	n := must[Namespace](t)(in.DeleteNamespace(t.Context(), admin(), DeleteNamespaceRequest{Namespace: "pay"}))
	if left := n.DestroyTime.Sub(in.now()); left < 29*24*time.Hour || left > 31*24*time.Hour {
		t.Errorf("by default it is removed in %s", left)
	}
	state := func() NamespaceState {
		t.Helper()
		if err := in.runDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		return in.describe("pay").State
	}
	in.advance(31 * 24 * time.Hour) // the clock alone
	if got := state(); got != NamespaceDeleteScheduled {
		t.Fatalf("after a jump of the clock the namespace is %s", got)
	}
	in.advance(clockSettle)
	passed += clockSettle
	if got := state(); got != NamespaceDeleted {
		t.Errorf("after an hour of even time the namespace is %s", got)
	}
}

func TestQuotasAreKept(t *testing.T) {
	in := newInstallation(t)
	made := must[Namespace](t)(in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "pay", Quotas: Quotas{MaxKeys: 3, RequestsPerSecond: 100}}))
	if made.Quotas != (Quotas{3, 100}) {
		t.Errorf("made with %+v", made.Quotas)
	}
	labels := map[string]string{"a": "b"}
	must[Namespace](t)(in.UpdateNamespace(t.Context(), admin(), UpdateNamespaceRequest{Namespace: "pay", Labels: &labels}))
	must[Namespace](t)(in.UpdateNamespace(t.Context(), admin(), UpdateNamespaceRequest{Namespace: "pay", Quotas: &Quotas{MaxKeys: 4}}))
	in.close()
	in.open()
	if n := in.describe("pay"); n.Quotas != (Quotas{MaxKeys: 4}) || n.Labels["a"] != "b" {
		t.Errorf("after a restart: %+v", n)
	}
}
