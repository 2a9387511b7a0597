package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

func (in *testInstallation) rotateRoot(token string) RootVersion {
	in.t.Helper()
	return must[RootVersion](in.t)(in.RotateRoot(context.Background(), admin(), RotateRootRequest{Token: token}))
}

// roots lists the versions by state.
func (in *testInstallation) roots() map[uint32]RootVersion {
	in.t.Helper()
	all := map[uint32]RootVersion{}
	for _, r := range must[[]RootVersion](in.t)(in.ListRoots(context.Background(), admin())) {
		all[r.Version] = r
	}
	return all
}

func (in *testInstallation) wantStates(want ...RootState) {
	in.t.Helper()
	var got []RootState
	for _, r := range must[[]RootVersion](in.t)(in.ListRoots(context.Background(), admin())) {
		got = append(got, r.State)
	}
	if !slices.Equal(got, want) {
		in.t.Fatalf("roots are %v, want %v", got, want)
	}
}

func (in *testInstallation) tendRootsNow() {
	in.t.Helper()
	if err := in.tendRootsOnce(context.Background()); err != nil {
		in.t.Fatal(err)
	}
}

// wantRoots fails unless the token holds just the roots that the store knows to be
// there.
func (in *testInstallation) wantNoOrphan(device *softDevice) {
	in.t.Helper()
	known := map[ObjectID]bool{}
	for _, r := range in.roots() {
		if r.State != RootDestroyed {
			known[r.ID] = true
		}
	}
	device.lock.Lock()
	defer device.lock.Unlock()
	for id := range device.roots {
		if !known[id] {
			in.t.Errorf("root %s is on the token, and the store does not know it", id)
		}
	}
	if len(device.roots) < 1 {
		in.t.Error("the token has no root key")
	}
}

func TestRotateRoot(t *testing.T) {
	in := newInstallation(t)
	sealed := map[string][]byte{}
	for i := range 2*rewrapPage + 3 {
		name := fmt.Sprint("ns", i)
		in.namespace(name)
		in.key(name, "card", "")
		sealed[name] = in.encrypt(name, "card", name)
	}
	first := in.roots()[1]
	made := in.rotateRoot("")
	if made.Version != 2 || made.State != RootActive || made.ID == first.ID {
		t.Fatalf("rotated to %+v", made)
	}
	in.wantStates(RootRetiring, RootActive)
	if n := in.roots()[1].Domains; n != uint64(len(sealed)+1) { // and `system`
		t.Errorf("the old version wraps %d domain secrets, want %d", n, len(sealed)+1)
	}
	in.namespace("new") // under the new one
	in.device.lock.Lock()
	unwraps := in.device.unwraps
	in.device.lock.Unlock()
	in.tendRootsNow()
	in.wantStates(RootRetired, RootActive)
	if got := in.roots(); got[1].Domains != 0 || got[2].Domains != uint64(len(sealed)+2) || got[1].Replaced.IsZero() || got[1].Retired.IsZero() {
		t.Errorf("roots %+v", got)
	}
	status := in.Health(t.Context())
	if status.RootVersion != 2 || status.RootKeyID != made.ID.String() || status.Rewrap != (RewrapStatus{}) {
		t.Errorf("status %+v", status)
	}
	for name, ciphertext := range sealed {
		in.wantOpens(name, ciphertext, name)
		in.encrypt(name, "card", "more")
		must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: name, Key: "card"}))
	}
	in.device.lock.Lock()
	if n := in.device.unwraps - unwraps; n != len(sealed)+1 { // one for each, none of namespaces in use again
		t.Errorf("%d unwraps, want %d", n, len(sealed)+1)
	}
	in.device.lock.Unlock()
	in.close()
	in.open()
	for name, ciphertext := range sealed {
		in.wantOpens(name, ciphertext, name)
	}
	in.wantBracketed()
	in.wantNoOrphan(in.device)
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("the store is not what the log says: %+v", found.Differences)
	}
}

// A start needs each version that still wraps something, and no other.
func TestStartFindsTheRootsThatAreNeeded(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	old := in.roots()[1].ID
	in.rotateRoot("")
	in.close()
	in.device.lock.Lock()
	kept := in.device.roots[old]
	delete(in.device.roots, old)
	in.device.lock.Unlock()
	_, err := Open(t.Context(), in.parts())
	if !errors.Is(err, ErrWrongToken) {
		t.Errorf("without a version that is needed: %v", err)
	}
	in.closeParts()
	in.device.lock.Lock()
	in.device.roots[old] = kept
	in.device.lock.Unlock()
	in.open()
	in.tendRootsNow()
	in.wantStates(RootRetired, RootActive)
	in.close()
	in.device.lock.Lock()
	delete(in.device.roots, old)
	in.device.lock.Unlock()
	in.open()
	in.key("pay", "card", "")
}

func TestRotateRootIsRefused(t *testing.T) {
	in := newInstallation(t)
	_, err := in.RotateRoot(t.Context(), nobody(), RotateRootRequest{})
	wantCode(t, err, PermissionDenied)
	_, err = in.RotateRoot(t.Context(), as(policy.User, "operator"), RotateRootRequest{})
	wantCode(t, err, PermissionDenied)
	_, err = in.RotateRoot(t.Context(), admin(), RotateRootRequest{Token: "west"})
	wantCode(t, err, InvalidArgument, "west", "it has default")
	_, err = in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "a", Token: "west"})
	wantCode(t, err, InvalidArgument, "west")
	in.device.setAway(true)
	_, err = in.RotateRoot(t.Context(), admin(), RotateRootRequest{})
	wantCode(t, err, Unavailable, "the HSM is not available")
	in.device.setAway(false)
	in.wantStates(RootActive)
	in.wantNoOrphan(in.device)
}

// The root is rotated again and again under load without a call that fails, while
// another server uses and changes the same keys and a namespace is rekeyed.
func TestRotateRootUnderLoad(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.close()
	in.config.NonceLimit = 200
	in.config.CacheBytes = 40_000
	in.config.JobInterval = 10 * time.Millisecond
	in.open()
	sealed := in.furnishForRekey()
	other := in.secondServer()
	ctx, stop := context.WithCancel(t.Context())
	load := &rekeyLoad{t: t, ctx: ctx, sealed: sealed}
	for w := range 3 {
		load.running.Go(func() { load.change(in.Service, fmt.Sprint("a", w)) })
		load.running.Go(func() { load.use(in.Service, w) })
	}
	load.running.Go(func() { load.use(other, 2) })
	load.running.Go(func() { load.change(other, "b") })
	for range 3 {
		before := load.calls.Load()
		in.rotateRoot("")
		in.beginRekey("pay")
		unfinished := func() bool {
			return in.describe("pay").rekeying() || slices.ContainsFunc(in.Service.roots.Load().sorted(), func(r *rootVersion) bool { return r.state() == RootRetiring })
		}
		for deadline := time.Now().Add(60 * time.Second); unfinished() && time.Now().Before(deadline) && !t.Failed(); time.Sleep(5 * time.Millisecond) {
		}
		for deadline := time.Now().Add(20 * time.Second); load.calls.Load()-before < 50 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		}
		t.Logf("%d calls meanwhile", load.calls.Load()-before)
	}
	stop()
	load.running.Wait()
	in.wantStates(RootRetired, RootRetired, RootRetired, RootActive)
	other.Close(t.Context())
	for text, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, text)
	}
}

// Putting the installation's record back is noticed, as of all that the head covers.
func TestRootVersionsAreFresh(t *testing.T) {
	in := newInstallation(t)
	before := must[store.Record](t)(in.store.Get(t.Context(), pathInstallation))
	in.rotateRoot("")
	in.tendRootsNow()
	in.close()
	parts := in.parts()
	must[store.Revision](t)(in.store.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: pathInstallation, Value: before.Value}}}))
	if _, err := Open(t.Context(), parts); CodeOf(err) != DataLoss {
		t.Errorf("opened with the root versions of before: %v", err)
	}
	in.closeParts()
}

func TestRotateRootIsAudited(t *testing.T) {
	in := newInstallation(t)
	made := in.rotateRoot("")
	in.tendRootsNow()
	var states []string
	for _, e := range in.entries(audit.Filter{Action: "RotateRoot"}) {
		if e.Phase == audit.PhaseOutcome {
			states = append(states, e.Principal+" "+e.Details["root_version"]+e.Details["state"]+e.Details["domains"])
		}
	}
	want := []string{internalPrincipal + " PENDING", `User::"root" 1 -> 2`, internalPrincipal + " 1", internalPrincipal + " 1RETIRED"}
	if !slices.Equal(states, want) {
		t.Errorf("the log says %q, want %q of %s", states, want, made.ID)
	}
}
