package kms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

// withEast opens an installation anew with a second token, "east", that has a root
// key.
func withEast(t testing.TB) (*testInstallation, *softDevice) {
	in, east := newInstallation(t), newDevice()
	in.close()
	in.config.Tokens = map[string]HSM{"east": east}
	in.open()
	_, err := in.CreateNamespace(context.Background(), admin(), CreateNamespaceRequest{Namespace: "early", Token: "east"})
	wantCode(t, err, FailedPrecondition, "token east has no root key yet", "keywright root rotate --token east")
	if made := in.rotateRoot("east"); made.Token != "east" || made.Version != 2 {
		t.Fatalf("made %+v", made)
	}
	return in, east
}

func (in *testInstallation) namespaceOn(name, token string) {
	in.t.Helper()
	must[Namespace](in.t)(in.CreateNamespace(context.Background(), admin(), CreateNamespaceRequest{Namespace: name, Token: token}))
}

func TestNamespaceBoundToAToken(t *testing.T) {
	in, east := withEast(t)
	in.wantStates(RootActive, RootActive)
	in.namespaceOn("there", "east")
	in.namespaceOn("here", DefaultToken)
	in.key("there", "card", "")
	in.key("here", "card", "")
	sealed := map[string][]byte{"there": in.encrypt("there", "card", "there"), "here": in.encrypt("here", "card", "here")}
	if got := in.roots(); got[1].Domains != 2 || got[2].Domains != 1 {
		t.Errorf("roots %+v", got)
	}
	in.close()
	in.open()

	// One token away: namespaces of the other go on, and the refusal says which.
	east.setAway(true)
	in.wantOpens("here", sealed["here"], "here")
	_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "there", Ciphertext: sealed["there"]})
	wantCode(t, err, Unavailable, `the HSM token "east" is not available`)
	in.namespace("more")
	in.probe(t.Context(), in.devices["east"])
	in.probe(t.Context(), in.devices["east"])
	status := in.Health(t.Context())
	if len(status.Tokens) != 2 || status.Tokens[0].Name != DefaultToken || !status.Tokens[0].HSM.Healthy || status.Tokens[1].HSM.Healthy || status.Tokens[1].Away.IsZero() || !status.HSM.Healthy {
		t.Errorf("tokens %+v", status.Tokens)
	}
	if got := in.events("HSMHealth"); len(got) != 1 || !strings.Contains(got[0], "east") {
		t.Errorf("logged %v", got)
	}
	east.setAway(false)
	in.wantOpens("there", sealed["there"], "there")

	// Rotating one token's root leaves the other's alone.
	in.rotateRoot("east")
	in.beginRekey("there")
	in.endRekeying("there")
	in.tendRootsNow()
	in.wantStates(RootActive, RootRetired, RootActive)
	in.close()
	in.open()
	in.wantOpens("there", sealed["there"], "there")
}

// A start goes on without a token that is away, and is refused with a wrong one, or
// with none that is needed.
func TestStartWithSeveralTokens(t *testing.T) {
	in, east := withEast(t)
	in.namespaceOn("there", "east")
	in.namespace("here")
	in.key("here", "card", "")
	in.key("there", "card", "")
	in.close()

	east.setAway(true)
	in.open()
	in.encrypt("here", "card", "x")
	_, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "there", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, Unavailable, `"east"`)
	east.setAway(false)
	in.encrypt("there", "card", "x")
	in.close()

	wantRefused := func(c map[string]HSM, parts ...string) error {
		t.Helper()
		in.config.Tokens = c
		_, err := Open(t.Context(), in.parts())
		in.closeParts()
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("error %v lacks %q", err, part)
			}
		}
		return err
	}
	other := newDevice()
	must[[]byte](t)(other.GenerateRoot(t.Context(), newObjectID()))
	if err := wantRefused(map[string]HSM{"east": other}, "token east"); !errors.Is(err, ErrWrongToken) {
		t.Errorf("another token: %v", err)
	}
	wantRefused(nil, "token east is not in the configuration", "1 namespaces")
	wantRefused(map[string]HSM{"east": serial{east, "7"}, "west": serial{newDevice(), "7"}}, "tokens east and west", "one and the same", "serial 7")
	wantRefused(map[string]HSM{DefaultToken: east}, "default")

	in.config.Tokens = map[string]HSM{"east": east}
	in.open()
	must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "there"}))
	in.close()
	in.config.Tokens = nil // it can be done without now
	in.open()
	in.encrypt("there", "card", "x")
}

// serial gives a device a serial number.
type serial struct {
	*softDevice
	number string
}

func (s serial) Status() HSMStatus {
	status := s.softDevice.Status()
	status.TokenSerial = s.number
	return status
}

// A token that comes back as another is not used, and nothing on other tokens
// suffers.
func TestAnotherTokenInItsPlace(t *testing.T) {
	in, east := withEast(t)
	in.namespaceOn("there", "east")
	in.namespace("here")
	in.key("there", "card", "")
	in.key("here", "card", "")
	in.close()
	in.open()
	in.Service.roots.Load().byVersion[2].found.Store(false) // as after a start while it was away
	east.lock.Lock()
	kept := east.roots
	east.roots = map[ObjectID][]byte{newObjectID(): make([]byte, 32)}
	east.lock.Unlock()
	_, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "there", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, Unavailable, `the HSM token "east" is not the one that the store remembers`)
	in.encrypt("here", "card", "x")
	east.lock.Lock()
	east.roots = kept
	east.lock.Unlock()
	in.encrypt("there", "card", "x")
}

func TestSealOneToken(t *testing.T) {
	in, east := withEast(t)
	in.sealing()
	in.namespaceOn("there", "east")
	in.namespace("here")
	in.key("there", "card", "")
	in.key("here", "card", "")
	there := in.encrypt("there", "card", "there")
	here := in.encrypt("here", "card", "here")
	east.setAway(true)
	in.probe(t.Context(), in.devices["east"])
	in.advance(time.Minute)
	in.probe(t.Context(), in.devices["east"])
	_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "there", Ciphertext: there})
	wantCode(t, err, Unavailable, `sealed: the HSM token "east" has been away since`)
	in.wantOpens("here", here, "here")
	in.key("here", "new", "")
	if status := in.Health(t.Context()); !status.Sealed.IsZero() || status.Tokens[1].Sealed.IsZero() || !status.Tokens[0].Sealed.IsZero() {
		t.Errorf("status %+v", status)
	}
	east.setAway(false)
	in.probe(t.Context(), in.devices["east"])
	in.wantOpens("there", there, "there")
}

func TestMigrateNamespace(t *testing.T) {
	in, east := withEast(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	migrate := MigrateNamespaceRequest{Namespace: "pay", Token: "east"}
	_, err := in.MigrateNamespace(t.Context(), nobody(), migrate)
	wantCode(t, err, PermissionDenied)
	_, err = in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: "west"})
	wantCode(t, err, InvalidArgument, "west", "default, east")
	_, err = in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "none", Token: "east"})
	wantCode(t, err, NotFound)
	east.setAway(true)
	_, err = in.MigrateNamespace(t.Context(), admin(), migrate)
	wantCode(t, err, Unavailable, `"east"`)
	in.wantOpens("pay", sealed, "secret")
	east.setAway(false)

	in.beginRekey("pay") // both generations move
	if moved := must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), migrate)); moved.Token != "east" {
		t.Errorf("moved %+v", moved)
	}
	if again := must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), migrate)); again.Token != "east" {
		t.Errorf("moved again %+v", again)
	}
	if got := in.roots(); got[1].Domains != 1 || got[2].Domains != 2 {
		t.Errorf("roots %+v", got)
	}
	in.wantOpens("pay", sealed, "secret")
	in.key("pay", "new", "")
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	in.close()
	in.open()
	in.device.setAway(true) // it depends on the other token alone
	in.wantOpens("pay", sealed, "secret")
	in.device.setAway(false)
	must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: DefaultToken}))
	in.wantOpens("pay", sealed, "secret")
	in.wantBracketed()
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("the store is not what the log says: %+v", found.Differences)
	}
}

// Keys that live in the token keep their namespace there.
func TestMigrationLeavesNoResidentKey(t *testing.T) {
	in, _ := withEast(t)
	in.namespace("pay")
	in.key("pay", "soft", "")
	k := in.key("pay", "hard", "")
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "pay"))
	d, path := in.domain("pay"), pathKey(ns.ID, k.ID)
	record := must[stored[keyRecord]](t)(read[keyRecord](t.Context(), in.Service, d, path))
	record.value.Protection = HSMLevel
	tx := &transaction{}
	tx.put(d, path, record.revision, record.value)
	if err := tx.commit(t.Context(), in.Service); err != nil {
		t.Fatal(err)
	}
	_, err := in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: "east"})
	wantCode(t, err, FailedPrecondition, "1 keys of protection level HSM", "hard")
	if n := in.describe("pay"); n.Token != "" {
		t.Errorf("moved to %s", n.Token)
	}
}

// A migration is one transaction: cut off anywhere, it is made or is not.
func TestMigrationIsWholeAfterACrash(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.Lost, storetest.Persisted} {
		in, _ := withEast(t)
		in.namespace("pay")
		in.key("pay", "card", "")
		sealed := in.encrypt("pay", "card", "secret")
		in.store.FailNth(1, fault)
		_, err := in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: "east", Idempotency: "once"})
		wantCode(t, err, Unavailable)
		in.store.Heal()
		in.wantOpens("pay", sealed, "secret")
		in.crash()
		in.open()
		in.wantOpens("pay", sealed, "secret")
		if n := in.describe("pay"); (n.Token == "east") != (fault == storetest.Persisted) {
			t.Errorf("fault %d: it is on token %q", fault, n.Token)
		}
		must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: "east", Idempotency: "once"}))
		in.wantOpens("pay", sealed, "secret")
		if n := in.describe("pay"); n.Token != "east" {
			t.Errorf("fault %d: sent again, it is on token %q", fault, n.Token)
		}
		in.wantBracketed()
	}
}

// A namespace moves to and fro under load without a call that fails.
func TestMigrateUnderLoad(t *testing.T) {
	t.Parallel()
	in, _ := withEast(t)
	in.close()
	in.config.NonceLimit, in.config.JobInterval = 200, 10*time.Millisecond
	in.open()
	sealed := in.furnishForRekey()
	ctx, stop := context.WithCancel(t.Context())
	load := &rekeyLoad{t: t, ctx: ctx, sealed: sealed}
	for w := range 3 {
		load.running.Go(func() { load.change(in.Service, fmt.Sprint("a", w)) })
		load.running.Go(func() { load.use(in.Service, w) })
	}
	for n := range 8 {
		token := []string{"east", DefaultToken}[n%2]
		must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: token}))
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	load.running.Wait()
	t.Logf("%d calls meanwhile", load.calls.Load())
	if load.calls.Load() < 50 {
		t.Error("too few calls to prove anything")
	}
	for text, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, text)
	}
}

// A program that knows of one root version only does not open, and so does not
// spoil, an installation that has had more.
func TestFormatOfManyRoots(t *testing.T) {
	in := newInstallation(t)
	format := func() int {
		record := must[store.Record](t)(in.store.Get(t.Context(), pathInstallation))
		return must[installationRecord](t)(peek[installationRecord](record)).Format
	}
	if format() != installationFormat {
		t.Errorf("a new installation is of format %d", format())
	}
	in.rotateRoot("")
	if format() != formatManyRoots {
		t.Errorf("after a rotation it is of format %d", format())
	}
}
