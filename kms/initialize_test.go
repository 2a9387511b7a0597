package kms

import (
	"context"
	"errors"
	"testing"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

// moody is a device of which one call fails, the failAt-th that makes or uses
// something. The call may have been carried out nevertheless.
type moody struct {
	*softDevice
	calls, failAt int
	carriedOut    bool
}

var errMood = errors.New("reply lost")

func (d *moody) fails() bool {
	d.calls++
	return d.calls == d.failAt
}

func (d *moody) GenerateRoot(ctx context.Context, id ObjectID) ([]byte, error) {
	if d.fails() {
		if !d.carriedOut {
			return nil, errMood
		}
		_, err := d.softDevice.GenerateRoot(ctx, id)
		return nil, errors.Join(err, errMood)
	}
	return d.softDevice.GenerateRoot(ctx, id)
}

func (d *moody) GenerateSigner(ctx context.Context) (Signer, error) {
	if d.fails() {
		if !d.carriedOut {
			return Signer{}, errMood
		}
		signer, err := d.softDevice.GenerateSigner(ctx)
		return Signer{ID: signer.ID}, errors.Join(err, errMood)
	}
	return d.softDevice.GenerateSigner(ctx)
}

func (d *moody) Wrap(ctx context.Context, root ObjectID, version uint32, secret, aad []byte) ([]byte, error) {
	if d.fails() {
		return nil, errMood
	}
	return d.softDevice.Wrap(ctx, root, version, secret, aad)
}

func (d *moody) Random(ctx context.Context, n int) ([]byte, error) {
	if d.fails() {
		return nil, errMood
	}
	return d.softDevice.Random(ctx, n)
}

// blank is what there is before Initialize.
func blank(t *testing.T) (*testInstallation, Config) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	return in, in.parts()
}

func (in *testInstallation) wantNothingMade(what string) {
	in.t.Helper()
	if n := in.device.objects(); n != 0 {
		in.t.Errorf("%s: %d objects are left on the token", what, n)
	}
	if n := must[int](in.t)(in.count("")); n != 0 {
		in.t.Errorf("%s: %d records are left in the store", what, n)
	}
}

// An Initialize that fails, wherever, leaves nothing on the token and nothing in
// the store, and can be done again.
func TestFailedInitializeLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, carriedOut := range []bool{false, true} {
		failAt := 1
		for ; failAt < 20; failAt++ {
			in, c := blank(t)
			device := &moody{softDevice: in.device, failAt: failAt, carriedOut: carriedOut}
			c.HSM = device
			_, err := Initialize(t.Context(), c, InitOptions{})
			if err == nil {
				in.closeParts()
				break
			}
			if !errors.Is(err, errMood) {
				t.Errorf("call %d failed: %v", failAt, err)
			}
			in.wantNothingMade("a call of the device failed")
			must[Installation](t)(Initialize(t.Context(), c, InitOptions{}))
			in.closeParts()
		}
		if failAt < 4 || failAt == 20 {
			t.Errorf("Initialize made %d calls of the device", failAt-1)
		}
	}
}

func TestInitializeOnFailingStoreAndLog(t *testing.T) {
	in, c := blank(t)
	in.store.FailNth(1, storetest.Failed)
	if _, err := Initialize(t.Context(), c, InitOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Initialize = %v", err)
	}
	in.wantNothingMade("the store failed")
	bad := InitOptions{Policies: []policy.Policy{{Name: "bad", Text: "permit everything"}}}
	if _, err := Initialize(t.Context(), c, bad); err == nil {
		t.Error("Initialize accepted a policy that does not parse")
	}
	in.wantNothingMade("a policy was bad")
	if err := in.audit.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Initialize(t.Context(), c, InitOptions{}); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Initialize = %v without a log", err)
	}
	in.wantNothingMade("the log failed")
	if err := in.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// When it is not known whether the installation was stored, the token keeps what
// it may need.
func TestInitializeWithUnknownOutcome(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Persisted, storetest.Lost} {
		in, c := blank(t)
		in.store.FailNth(1, fault)
		if _, err := Initialize(t.Context(), c, InitOptions{Policies: testPolicies}); !errors.Is(err, store.ErrUnknown) {
			t.Fatalf("Initialize = %v", err)
		}
		if _, err := Initialize(t.Context(), c, InitOptions{Policies: testPolicies}); errors.Is(err, ErrInitialized) != (fault == storetest.Persisted) {
			t.Errorf("Initialize again = %v", err)
		}
		in.closeParts()
		in.open()
		in.namespace("pay")
		in.close()
	}
}

// afterCommit does something once a commit has happened.
type afterCommit struct {
	store.Store
	then func()
}

func (a afterCommit) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	revision, err := a.Store.Commit(ctx, txn)
	a.then()
	return revision, err
}

// From the commit on, the installation exists, even if its last audit line cannot
// be written: its root key must not be taken back.
func TestInitializeKeepsRootOfStoredInstallation(t *testing.T) {
	in, c := blank(t)
	c.Store = afterCommit{in.store, func() { _ = in.audit.Close() }}
	if _, err := Initialize(t.Context(), c, InitOptions{Policies: testPolicies}); !errors.Is(err, audit.ErrClosed) {
		t.Fatalf("Initialize = %v without a log", err)
	}
	if err := in.store.Close(); err != nil {
		t.Fatal(err)
	}
	in.open()
	defer in.close()
	in.namespace("pay")
	in.key("pay", "card", "")
	in.wantOpens("pay", in.encrypt("pay", "card", "secret"), "secret")
}

func TestInitializeTwice(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	in.close()
	c := in.parts()
	objects, revision := in.device.objects(), must[store.Revision](t)(in.store.Revision(t.Context()))
	if _, err := Initialize(t.Context(), c, InitOptions{}); !errors.Is(err, ErrInitialized) {
		t.Errorf("Initialize = %v, want ErrInitialized", err)
	}
	if in.device.objects() != objects || must[store.Revision](t)(in.store.Revision(t.Context())) != revision {
		t.Error("the second Initialize changed something")
	}
	in.closeParts()
	in.open()
	in.wantOpens("pay", sealed, "secret")
}

// Two that start at once make one installation; the loser takes his objects back.
func TestInitializeAtOnce(t *testing.T) {
	in, c := blank(t)
	defer in.closeParts()
	const contenders = 4
	errs := make(chan error, contenders)
	for range contenders {
		go func() { errs <- second(Initialize(t.Context(), c, InitOptions{})) }()
	}
	made := 0
	for range contenders {
		switch err := <-errs; {
		case err == nil:
			made++
		case !errors.Is(err, ErrInitialized):
			t.Errorf("Initialize = %v, want ErrInitialized", err)
		}
	}
	if made != 1 || in.device.objects() != 2 {
		t.Errorf("%d installations were made, %d objects are on the token", made, in.device.objects())
	}
}

// A token without a signing mechanism gets a signer sealed under its root.
func TestSealedSigner(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.device.noSign = true
	made := must[Installation](t)(Initialize(t.Context(), in.parts(), InitOptions{Policies: testPolicies}))
	in.closeParts()
	if made.SignerProtection != signerSealed || in.device.objects() != 1 {
		t.Errorf("the signer is %s, %d objects are on the token", made.SignerProtection, in.device.objects())
	}
	in.open()
	defer in.close()
	status := in.Health(t.Context())
	if status.SignerProtection != signerSealed || status.SignerAlgorithm != "ED25519" {
		t.Errorf("status says the signer is %s, %s", status.SignerAlgorithm, status.SignerProtection)
	}
	if seed := must[[]byte](t)(in.SystemSecret(t.Context(), in.installation.Signer.Secret)); len(seed) != 32 {
		t.Errorf("the sealed signer has %d bytes", len(seed))
	}
}

// A store of another format is left alone, and its reader is told.
func TestAnotherFormatIsRefused(t *testing.T) {
	in := newInstallation(t)
	older := in.installation
	older.Format = 1
	tx := &transaction{}
	record := in.record(pathInstallation)
	tx.put(in.system, pathInstallation, record.Revision, older)
	in.head.lock.Lock()
	if err := tx.commit(t.Context(), in.Service); err != nil {
		t.Fatal(err)
	}
	in.head.lock.Unlock()
	in.crash()
	parts := in.parts()
	defer in.closeParts()
	if _, err := Open(t.Context(), parts); !errors.Is(err, store.ErrFormat) {
		t.Errorf("Open = %v", err)
	}
}
