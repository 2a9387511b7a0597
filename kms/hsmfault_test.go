package kms

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

// makers are the changes that have the token make a key.
var makers = map[string]func(in *testInstallation) error{
	"create": func(in *testInstallation) error {
		return second(in.CreateKey(context.Background(), admin(), CreateKeyRequest{Namespace: "pay", Key: "new", Protection: HSMLevel}))
	},
	"import parameters": func(in *testInstallation) error {
		return second(in.GetImportParameters(context.Background(), admin(), ImportParametersRequest{Namespace: "pay", Algorithm: "ED25519"}))
	},
	"import": func(in *testInstallation) error {
		return second(in.ImportKey(context.Background(), admin(), ImportKeyRequest{Namespace: "pay", Key: "new", Job: in.job.Job.String(), Wrapped: wrapFor(in.t, in.job, newRawKey(32))}))
	},
	"import a version": func(in *testInstallation) error {
		return second(in.ImportVersion(context.Background(), admin(), ImportVersionRequest{Namespace: "pay", Key: "card", Job: in.job.Job.String(), Wrapped: wrapFor(in.t, in.job, newRawKey(32))}))
	},
	"rotate": func(in *testInstallation) error {
		return second(in.RotateKey(context.Background(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	},
	"rotate by use": func(in *testInstallation) error {
		return second(in.Encrypt(context.Background(), admin(), &EncryptRequest{Namespace: "pay", Key: "spent", Plaintext: []byte("x")}))
	},
	"rotate by period": func(in *testInstallation) error {
		in.advance(25 * time.Hour)
		return in.runTokenDue(context.Background())
	},
}

func newHSMScene(t *testing.T) *testInstallation {
	in := newInstallation(t)
	in.namespace("pay")
	in.hsmKey("card", "AES_256_GCM", Rotation{})
	in.hsmKey("spent", "AES_256_GCM", Rotation{MaxUses: 100})
	in.hsmKey("period", "AES_256_GCM", Rotation{Period: 24 * time.Hour})
	in.key("pay", "soft", "")
	in.job = in.parameters("pay", "AES_256_GCM", HSMLevel)
	for range 100 {
		in.encrypt("pay", "spent", "x")
	}
	return in
}

// Whatever the token does when it is to make a key, the caller is told that the
// change was not made, nothing is left behind, not even of a reply that comes
// late, and the next try works.
func TestMakingOnTheTokenFails(t *testing.T) {
	codes := map[deviceFault]Code{replyLost: Unavailable, replyLate: Unavailable, tokenFull: ResourceExhausted}
	for name, do := range makers {
		for fault, code := range codes {
			t.Run(fmt.Sprintf("%s/%d", name, fault), func(t *testing.T) {
				t.Parallel()
				in := newHSMScene(t)
				before := len(in.device.keyIDs())
				in.device.setFault(fault)
				wantCode(t, do(in), code)
				if fault == replyLate {
					if err := in.removeOrphans(t.Context()); err != nil {
						t.Fatal(err)
					}
					in.device.arrive()
				}
				in.wantObjects()
				if got := len(in.device.keyIDs()); got != before {
					t.Errorf("%d keys are on the token, there were %d", got, before)
				}
				if err := do(in); err != nil {
					t.Fatal(err)
				}
				in.wantObjects()
				if got := len(in.device.keyIDs()); got != before+1 {
					t.Errorf("done again: %d keys are on the token, there were %d", got, before)
				}
				in.wantBracketed()
			})
		}
	}
}

// Whatever becomes of a commit of such a change, the n-th: the version and its key
// are both there, or neither is.
func TestMakingOnTheTokenWithFailedCommits(t *testing.T) {
	for name, do := range makers {
		for _, fault := range []storetest.Fault{storetest.Failed, storetest.Persisted, storetest.Lost} {
			for nth := 1; nth <= 2; nth++ {
				t.Run(fmt.Sprintf("%s/%d/%d", name, fault, nth), func(t *testing.T) {
					t.Parallel()
					in := newHSMScene(t)
					before := len(in.device.keyIDs())
					in.store.FailNth(nth, fault)
					wantCode(t, do(in), Unavailable)
					in.store.Heal()
					made := before
					if nth == 2 && fault == storetest.Persisted {
						made++
					}
					for range 2 {
						in.wantObjects()
						if got := len(in.device.keyIDs()); got != made {
							t.Errorf("%d keys are on the token, want %d", got, made)
						}
						in.close()
						in.open()
					}
					in.wantBracketed()
				})
			}
		}
	}
}

// While the token is away, what needs it says so; keys in memory go on, and so do
// signatures that are verified.
func TestTokenAwayFromHSMKeys(t *testing.T) {
	in := newHSMScene(t)
	in.hsmKey("sign", "ED25519", Rotation{})
	sealed := in.encrypt("pay", "card", "secret")
	signed := must[SignResponse](t)(in.Sign(t.Context(), admin(), &SignRequest{Namespace: "pay", Key: "sign", Message: []byte("m")}))
	in.close()
	in.open()
	soft := in.encrypt("pay", "soft", "soft")
	revision := must[store.Revision](t)(in.store.Revision(t.Context()))
	in.device.setAway(true)
	in.wantDecrypt(sealed, Unavailable, "HSM is not available")
	for name, do := range makers {
		if name == "rotate by period" {
			continue
		}
		if err := do(in); CodeOf(err) != Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	in.wantOpens("pay", soft, "soft")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "soft"}))
	if got, err := in.Verify(t.Context(), admin(), &VerifyRequest{Namespace: "pay", Key: "sign", Message: []byte("m"), Signature: signed.Signature}); err != nil || !got.Valid {
		t.Errorf("Verify = %v, %v", got.Valid, err)
	}
	v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if v.Token == nil || v.Token.Problem == "" || v.Token.Origin != (Origin{}) {
		t.Errorf("described as %+v", v.Token)
	}
	in.device.setAway(false)
	in.wantOpens("pay", sealed, "secret")
	in.wantObjects()
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})); k.LatestVersion != 1 {
		t.Errorf("the refused rotations left version %d, the store moved from %d", k.LatestVersion, revision)
	}
}

// A device that was opened anew, or a token without the key: it is found again, or
// the error names the version; others go on.
func TestKeyMissingOnTheToken(t *testing.T) {
	in := newHSMScene(t)
	first := in.encrypt("pay", "card", "first")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	second := in.encrypt("pay", "card", "second")
	in.device.reopen()
	in.wantOpens("pay", first, "first")
	in.wantOpens("pay", second, "second")
	id := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1))).Token.ID
	all := in.device.takeKeys()
	in.wantDecrypt(first, Unavailable, "version 1 of key pay/card", id.String())
	lost := all[id]
	delete(all, id)
	in.device.putKeys(all)
	in.wantDecrypt(first, Unavailable, "does not have the key", "version 1")
	in.wantOpens("pay", second, "second")
	v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if v.Token == nil || v.Token.Problem != "the token does not have the key" {
		t.Errorf("described as %+v", v.Token)
	}
	if err := in.checkObjects(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := in.Health(t.Context()).Objects; c.Missing != 1 || c.Unknown != 0 {
		t.Errorf("the comparison found %+v", c)
	}
	in.device.putKeys(map[ObjectID]softKey{id: lost})
	in.wantOpens("pay", first, "first")
	in.wantObjects()
}

// Another key in the place of a version's is not used.
func TestKeyExchangedOnTheToken(t *testing.T) {
	in := newHSMScene(t)
	in.hsmKey("a", "ED25519", Rotation{})
	in.hsmKey("b", "ED25519", Rotation{})
	id := func(key string) ObjectID {
		return must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref(key, 1))).Token.ID
	}
	a, b := id("a"), id("b")
	all := in.device.takeKeys()
	all[a], all[b] = all[b], all[a]
	in.device.putKeys(all)
	_, err := in.Sign(t.Context(), admin(), &SignRequest{Namespace: "pay", Key: "a", Message: []byte("m")})
	wantCode(t, err, DataLoss, "something else", "pay/a")
}

// Keys that the store does not know are reported and left alone: another
// installation may own them.
func TestUnknownKeysAreLeftAlone(t *testing.T) {
	in := newHSMScene(t)
	stranger := ObjectID{1, 2, 3}
	if _, err := in.device.GenerateKey(t.Context(), stranger, "AES_256_GCM"); err != nil {
		t.Fatal(err)
	}
	in.settle()
	if err := in.checkObjects(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := in.Health(t.Context()).Objects; c.Unknown != 1 || c.Missing != 0 {
		t.Errorf("the comparison found %+v", c)
	}
	if _, err := in.device.FindKey(t.Context(), stranger, ""); err != nil {
		t.Error("a key of somebody else was removed")
	}
}

// Who can write to the store cannot have keys in use removed from the token: a
// record of an orphan that is put back is not believed.
func TestOrphanPutBackIsNotBelieved(t *testing.T) {
	in := newHSMScene(t)
	in.hsmKey("victim", "AES_256_GCM", Rotation{})
	sealed := in.encrypt("pay", "victim", "secret")
	k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "victim"}))
	id := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("victim", 1))).Token.ID
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "pay"))
	put := func(doomed bool) {
		tx := &transaction{}
		tx.put(in.system, pathOrphan(id), 0, orphanRecord{objectRecord: objectRecord{Key: k.ID, Version: 1, Algorithm: k.Algorithm},
			Namespace: ns.ID, NamespaceName: ns.Name, Created: in.now(), Doomed: doomed})
		if err := tx.commit(t.Context(), in.Service); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if err := in.removeOrphans(t.Context()); CodeOf(err) != DataLoss {
			t.Errorf("%s: %v", what, err)
		}
		in.wantOpens("pay", sealed, "secret")
	}
	put(true)
	refused("the version's object is there")
	in.drop(pathObject(ns.ID, id))
	refused("the version itself is there")
	version := in.record(pathVersion(ns.ID, k.ID, 1))
	in.drop(version.Key)
	refused("the key had that version")
	in.drop(pathOrphan(id))
	in.hsmKey("other", "AES_256_GCM", Rotation{})
	put(false) // one that cannot be believed holds up no other
	in.device.setFault(replyLost)
	wantCode(t, makers["create"](in), Unavailable)
	in.advance(orphanGrace)
	for range 2 {
		if err := in.removeOrphans(t.Context()); CodeOf(err) != DataLoss {
			t.Error(err)
		}
		in.advance(orphanGrace + time.Second)
	}
	if left := in.list(prefixOrphan); len(left) != 1 || left[0].Key != pathOrphan(id) {
		t.Errorf("%d orphans are left", len(left))
	}
}

// drop removes a record behind the server's back.
func (in *testInstallation) drop(path string) {
	in.t.Helper()
	if _, err := in.store.Commit(context.Background(), store.Txn{Deletes: []string{path}}); err != nil {
		in.t.Fatal(err)
	}
}

// A version's transaction that comes after the key was given up for an orphan
// fails: no version gets a key that is about to go.
func TestLateTransactionGetsNoDoomedKey(t *testing.T) {
	in := newHSMScene(t)
	ctx := t.Context()
	ns := must[*namespace](t)(in.findNamespace(ctx, "pay"))
	k := must[*key](t)(in.findKey(ctx, ns, "card"))
	trace := in.jobTrace("RotateKey", "pay")
	done, err := in.prepareRotation(ctx, trace, &target{k}, func(keyRecord) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	record, d, err := in.current(ctx, &target{k})
	tx := &transaction{}
	if err == nil {
		_, err = in.planRotation(trace, tx, d, &target{k}, record)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := in.removeOrphans(ctx); err != nil || len(in.device.keyIDs()) != 5 {
		t.Fatalf("a key in the making was removed: %v, %d are left", err, len(in.device.keyIDs()))
	}
	done()
	in.settle()
	if err := tx.commit(ctx, in.Service); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the late transaction: %v", err)
	}
	if err := in.conclude(trace, err); err != nil {
		t.Error(err)
	}
	in.wantObjects()
}
