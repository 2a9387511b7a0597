package kms

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

func ref(key string, version uint32) VersionRef {
	return VersionRef{Namespace: "pay", Key: key, Version: version}
}

func TestRotationKeepsOldVersionsUsable(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	var sealed [][]byte
	for n := range 5 {
		sealed = append(sealed, in.encrypt("pay", "card", fmt.Sprint(n)))
		rotated := must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
		if rotated.Version != uint32(n+2) || !rotated.Primary || rotated.State != Enabled {
			t.Fatalf("rotation %d made %+v", n, rotated)
		}
	}
	in.close()
	in.open()
	for n, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, fmt.Sprint(n))
	}
	versions, next, err := in.ListVersions(t.Context(), admin(), ListVersionsRequest{Namespace: "pay", Key: "card", PageSize: 4})
	if err != nil || len(versions) != 4 || next == "" {
		t.Fatalf("first page = %d versions, next %q, %v", len(versions), next, err)
	}
	versions, next, err = in.ListVersions(t.Context(), admin(), ListVersionsRequest{Namespace: "pay", Key: "card", PageSize: 4, PageToken: next})
	if err != nil || len(versions) != 2 || next != "" || !versions[1].Primary {
		t.Fatalf("second page = %+v, next %q, %v", versions, next, err)
	}
}

func TestVersionStates(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	open := func() error {
		_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: sealed})
		return err
	}
	_, err := in.DisableVersion(t.Context(), admin(), ref("card", 1))
	wantCode(t, err, FailedPrecondition, "primary", "rotate")
	_, err = in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1})
	wantCode(t, err, FailedPrecondition, "primary")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))

	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("card", 1)))
	wantCode(t, open(), FailedPrecondition, "version 1 is DISABLED")
	_, err = in.SetPrimaryVersion(t.Context(), admin(), ref("card", 1))
	wantCode(t, err, FailedPrecondition, "DISABLED")
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("card", 1)))
	if err := open(); err != nil {
		t.Fatalf("enabled again: %v", err)
	}

	delay := time.Hour
	scheduled := must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1, Delay: &delay}))
	if scheduled.State != DestroyScheduled || scheduled.DestroyTime.IsZero() {
		t.Fatalf("scheduled = %+v", scheduled)
	}
	wantCode(t, open(), FailedPrecondition, "DESTROY_SCHEDULED")
	_, err = in.EnableVersion(t.Context(), admin(), ref("card", 1))
	wantCode(t, err, FailedPrecondition, "restore")
	restored := must[KeyVersion](t)(in.RestoreVersion(t.Context(), admin(), ref("card", 1)))
	if restored.State != Disabled || !restored.DestroyTime.IsZero() {
		t.Fatalf("restored = %+v", restored)
	}
	in.advance(2 * time.Hour) // the destruction taken back must not happen
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("card", 1)))
	if err := open(); err != nil {
		t.Fatalf("restored and enabled: %v", err)
	}

	must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1, Delay: &delay}))
	in.advance(59 * time.Minute)
	in.runDue(t.Context())
	if v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1))); v.State != DestroyScheduled {
		t.Fatalf("a minute early: %s", v.State)
	}
	in.advance(2 * time.Minute)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, open(), FailedPrecondition, "DESTROYED")
	_, err = in.RestoreVersion(t.Context(), admin(), ref("card", 1))
	wantCode(t, err, FailedPrecondition, "gone")
	if record, err := in.readVersion(t.Context(), must[*key](t)(in.findKey(t.Context(), must[*namespace](t)(in.findNamespace(t.Context(), "pay")), "card")), 1); err != nil || record.value.Material != nil {
		t.Errorf("the destroyed version still has %d bytes of material, %v", len(record.value.Material), err)
	}
	if due, err := in.store.List(t.Context(), prefixDue, "", 0); err != nil || len(due.Records) != 0 {
		t.Errorf("%d jobs are left, %v", len(due.Records), err)
	}
}

func TestDeleteAndRestoreKey(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	first := in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	for range 120 { // more than one page of the final deletion
		must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	}
	delay := time.Hour
	remove := func(key string) Key {
		t.Helper()
		return must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: key, Delay: &delay}))
	}
	if k := remove("card"); k.State != KeyDeleteScheduled {
		t.Fatalf("deleted key is %s", k.State)
	}
	_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: sealed})
	wantCode(t, err, FailedPrecondition, "can be restored until")
	_, err = in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})
	wantCode(t, err, NotFound)

	second := in.key("pay", "card", "")
	if second.ID == first.ID {
		t.Fatal("an id was used twice")
	}
	_, err = in.RestoreKey(t.Context(), admin(), RestoreKeyRequest{Namespace: "pay", ID: first.ID})
	wantCode(t, err, AlreadyExists)
	remove("card")
	must[Key](t)(in.RestoreKey(t.Context(), admin(), RestoreKeyRequest{Namespace: "pay", ID: first.ID}))
	in.wantOpens("pay", sealed, "secret")

	remove("card")
	in.advance(2 * time.Hour)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "id:" + first.ID.String()}))
	if gone.State != KeyDeleted {
		t.Fatalf("after its time the key is %s", gone.State)
	}
	_, err = in.RestoreKey(t.Context(), admin(), RestoreKeyRequest{Namespace: "pay", ID: first.ID})
	wantCode(t, err, FailedPrecondition)
	page, err := in.store.List(t.Context(), prefixVersion, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	d := in.domain("pay")
	for _, record := range page.Records {
		if v := must[stored[versionRecord]](t)(decode[versionRecord](d, record)); v.value.Material != nil || v.value.State != Destroyed {
			t.Fatalf("version %d of a deleted key is %s and has material", v.value.Version, v.value.State)
		}
	}
}

func TestDestroyDelayBounds(t *testing.T) {
	for _, dev := range []bool{true, false} {
		in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
		in.initialize(InitOptions{DevMode: dev, Policies: testPolicies})
		in.open()
		in.namespace("pay")
		in.key("pay", "card", "")
		must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
		short := 23 * time.Hour
		_, err := in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1, Delay: &short})
		if dev != (err == nil) {
			t.Errorf("dev %v: a delay under a day gave %v", dev, err)
		}
		if !dev {
			wantCode(t, err, InvalidArgument, "delay", "24h")
		}
		in.close()
	}
}

func TestRotationByPeriod(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "card", Rotation: Rotation{Period: 24 * time.Hour}}))
	sealed := in.encrypt("pay", "card", "secret")
	for day := range 3 {
		in.advance(24*time.Hour + time.Second)
		for range 2 { // the second round must find nothing to do
			if err := in.runDue(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
		if k.PrimaryVersion != uint32(day+2) || !k.NextRotation.After(in.now()) {
			t.Fatalf("day %d: primary %d, next %s", day, k.PrimaryVersion, k.NextRotation)
		}
	}
	in.wantOpens("pay", sealed, "secret")
	none := Rotation{}
	must[Key](t)(in.UpdateKey(t.Context(), admin(), UpdateKeyRequest{Namespace: "pay", Key: "card", Rotation: &none}))
	in.advance(48 * time.Hour)
	in.runDue(t.Context())
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})); k.PrimaryVersion != 4 {
		t.Errorf("rotated without a period: primary %d", k.PrimaryVersion)
	}
}

func TestRotationByUseIsExact(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for _, a := range []string{"XAES_256_GCM", "AES_256_GCM"} {
		must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: a, Algorithm: a, Rotation: Rotation{MaxUses: 100}}))
		uses := map[uint32]int{}
		for range 350 {
			sealed := must[EncryptResponse](t)(in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: a, Plaintext: []byte("x")}))
			uses[sealed.Version]++
		}
		for version, n := range uses {
			if n > 100 || (n < 100 && version != 4) {
				t.Errorf("%s: version %d was used %d times", a, version, n)
			}
		}
	}
}

func TestNonceLimit(t *testing.T) {
	in := newInstallation(t)
	in.close()
	in.config.NonceLimit = 64
	in.open()
	in.namespace("pay")
	in.key("pay", "gcm", "AES_256_GCM")
	in.key("pay", "xaes", "XAES_256_GCM")
	for range 200 {
		in.encrypt("pay", "xaes", "x")
	}
	for n := range 64 {
		last := must[EncryptResponse](t)(in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "gcm", Plaintext: []byte("x")})).Version
		if n == 40 && len(in.jobs.rotate) == 0 && last == 1 {
			t.Error("half of the limit is used and no rotation is on its way")
		}
	}
	// Used up, whichever version is primary: nothing but a rotation helps.
	must[Key](t)(in.SetPrimaryVersion(t.Context(), admin(), ref("gcm", 1)))
	var err error
	for range 65 {
		if _, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "gcm", Plaintext: []byte("x")}); err != nil {
			break
		}
	}
	if err != nil {
		wantCode(t, err, ResourceExhausted, "rotate")
	} else if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "gcm"})); k.PrimaryVersion == 1 {
		t.Error("version 1 encrypted beyond its limit")
	}
}

// A crash must never make the server forget uses: the sum over all lives of a
// version stays within the limit.
func TestUseCountSurvivesCrashes(t *testing.T) {
	in := newInstallation(t)
	in.close()
	in.config.NonceLimit = 1000
	in.open()
	in.namespace("pay")
	in.key("pay", "gcm", "AES_256_GCM")
	used := 0
	for life := 0; used <= 1000; life++ {
		_, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "gcm", Plaintext: []byte("x")})
		if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "gcm"})); err != nil || k.PrimaryVersion != 1 {
			break
		}
		used++
		if life%3 == 0 {
			in.crash()
			in.open()
		}
	}
	if used > 1000 {
		t.Fatalf("version 1 was used %d times", used)
	}
	if used < 20 {
		t.Fatalf("only %d uses were possible: too many are wasted", used)
	}
}

func TestLastUsed(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	if v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 0))); !v.LastUsed.IsZero() {
		t.Errorf("never used, but last used %s", v.LastUsed)
	}
	in.encrypt("pay", "card", "x")
	want := in.now().UTC().Truncate(time.Hour)
	for _, restart := range []bool{false, true} {
		if restart {
			in.close()
			in.open()
		}
		if v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1))); !v.LastUsed.Equal(want) {
			t.Errorf("restart %v: last used %s, want %s", restart, v.LastUsed, want)
		}
	}
}

func TestIdempotency(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	create := CreateKeyRequest{Namespace: "pay", Key: "card", Idempotency: "once"}
	first := must[Key](t)(in.CreateKey(t.Context(), admin(), create))
	again := must[Key](t)(in.CreateKey(t.Context(), admin(), create))
	if first.ID != again.ID || !first.Created.Equal(again.Created) {
		t.Errorf("the same request gave %+v and %+v", first, again)
	}
	create.Key = "another"
	_, err := in.CreateKey(t.Context(), admin(), create)
	wantCode(t, err, AlreadyExists, "idempotency_key")
	_, err = in.CreateKey(t.Context(), as(policy.User, "operator"), create) // another principal's key is another key
	if err != nil {
		t.Errorf("another principal with the same key: %v", err)
	}
	rotate := KeyRef{Namespace: "pay", Key: "card", Idempotency: "r"}
	for range 3 {
		if v := must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), rotate)); v.Version != 2 {
			t.Errorf("repeated rotation made version %d", v.Version)
		}
	}
	remove := DestroyRequest{Namespace: "pay", Key: "card", Idempotency: "d"}
	for range 2 {
		must[Key](t)(in.DeleteKey(t.Context(), admin(), remove))
	}
	in.advance(idempotencyTTL + time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if page := must[int](t)(in.count(prefixIdempotent)); page != 0 {
		t.Errorf("%d outcomes are still remembered", page)
	}
}

func (in *testInstallation) count(prefix string) (int, error) {
	page, err := in.store.List(context.Background(), prefix, "", 0)
	return len(page.Records), err
}

func TestMutationsAreBracketed(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	call := admin()
	must[Key](t)(in.CreateKey(t.Context(), call, CreateKeyRequest{Namespace: "pay", Key: "card"}))
	entries := in.entries(audit.Filter{RequestID: call.RequestID})
	if len(entries) != 2 || entries[0].Phase != audit.PhaseIntent || entries[1].Phase != audit.PhaseOutcome ||
		entries[1].Intent != entries[0].Sequence || entries[1].Outcome != "OK" || entries[0].Details["key_id"] == "" {
		t.Fatalf("entries = %+v", entries)
	}
}
