package kms

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
)

// sealing opens the installation with on_loss: seal after a minute.
func (in *testInstallation) sealing() {
	in.t.Helper()
	in.close()
	in.config.OnLoss, in.config.OnLossAfter = OnLossSeal, time.Minute
	in.open()
}

// lose has the default token be away for that long, as its watcher sees it.
func (in *testInstallation) lose(d time.Duration) {
	in.device.setAway(true)
	in.probe(context.Background(), in.devices[DefaultToken])
	in.advance(d)
	in.probe(context.Background(), in.devices[DefaultToken])
}

func (in *testInstallation) regain() {
	in.device.setAway(false)
	in.probe(context.Background(), in.devices[DefaultToken])
}

func (in *testInstallation) events(action string) (details []string) {
	in.t.Helper()
	for _, e := range in.entries(audit.Filter{Action: action}) {
		details = append(details, fmt.Sprint(e.Details))
	}
	return details
}

func TestSealAfterLoss(t *testing.T) {
	in := newInstallation(t)
	in.sealing()
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	d := in.domain("pay")

	in.lose(30 * time.Second)
	in.wantOpens("pay", sealed, "secret") // not yet
	in.lose(time.Minute)

	since := time.Unix(0, in.devices[DefaultToken].away.Load()).UTC().Format(time.RFC3339)
	refused := func(what string, err error) {
		t.Helper()
		if CodeOf(err) != Unavailable || reasonOf(err) != "SEALED" || !strings.Contains(err.Error(), "sealed: the HSM has been away since "+since) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: sealed})
	refused("decrypt", err)
	_, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	refused("encrypt", err)
	refused("create a key", second(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "new"})))
	refused("create a namespace", second(in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "new"})))
	refused("create a token", second(in.CreateToken(t.Context(), admin(), CreateTokenRequest{Principal: "app"})))
	_, err = in.Encrypt(t.Context(), nobody(), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, PermissionDenied)

	// Nothing is left in memory.
	if n := in.cache.versions.Len() + in.cache.keys.Len() + in.cache.names.Len(); n != 0 || in.tokenSigner.key != nil {
		t.Errorf("%d keys and versions are left in memory, the token signer's key is %v", n, in.tokenSigner.key != nil)
	}
	if _, err := d.Seal("place", []byte("x")); err == nil {
		t.Error("who held the domain can still seal with it")
	}
	if record := in.system.Authenticate("path", 0, nil); record != nil {
		t.Error("records can still be authenticated")
	}

	// The server can be looked at, and says it.
	status := must[Status](t)(in.GetStatus(t.Context(), admin()))
	if status.Sealed.IsZero() || status.Tokens[0].Sealed.IsZero() || status.Tokens[0].Away.IsZero() || !strings.Contains(status.HSM.Problem, "sealed: the HSM has been away since "+since) {
		t.Errorf("status %+v", status)
	}
	must[[]audit.Entry](t)(in.ListAudit(t.Context(), admin(), audit.Filter{}))
	if got := in.events("Seal"); len(got) != 1 || !strings.Contains(got[0], since) {
		t.Errorf("sealing is logged as %v", got)
	}

	in.regain()
	in.wantOpens("pay", sealed, "secret")
	in.key("pay", "new", "")
	in.namespace("new")
	in.token(admin(), CreateTokenRequest{Principal: "app"})
	if status := in.Health(t.Context()); !status.Sealed.IsZero() || !status.HSM.Healthy || !status.Tokens[0].Away.IsZero() {
		t.Errorf("status %+v", status)
	}
	if got := in.events("Unseal"); len(got) != 1 {
		t.Errorf("unsealing is logged as %v", got)
	}
	in.wantBracketed()
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("the store is not what the log says: %+v", found.Differences)
	}
}

func TestServeOnLossIsTheDefault(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	sealed := in.encrypt("pay", "card", "secret")
	in.lose(1000 * time.Hour)
	in.wantOpens("pay", sealed, "secret")
}

// An audit key that is sealed under the root key is dropped and comes back too.
func TestSealedAuditKeyIsDropped(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.device.noSign = true
	in.initialize(InitOptions{DevMode: true, Policies: testPolicies})
	in.open()
	t.Cleanup(in.close)
	in.sealing()
	signer := in.checkpoints.current.Load().signer.(sealedSigner)
	in.lose(time.Minute)
	if !bytes.Equal(signer.key, make([]byte, len(signer.key))) {
		t.Error("the audit key is not zeroed")
	}
	if err := in.makeCheckpoint(t.Context()); err == nil {
		t.Error("a sealed server signs checkpoints")
	}
	in.regain()
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Error(err)
	}
}

// When the device is back but is another token, the server stays sealed.
func TestStaysSealedWithAnotherToken(t *testing.T) {
	in := newInstallation(t)
	in.sealing()
	in.namespace("pay")
	in.lose(time.Minute)
	in.device.lock.Lock()
	kept := in.device.roots
	in.device.roots = map[ObjectID][]byte{newObjectID(): make([]byte, 32)}
	in.device.lock.Unlock()
	in.regain()
	if !in.sealed() {
		t.Fatal("unsealed by a token without the root key")
	}
	in.device.lock.Lock()
	in.device.roots = kept
	in.device.lock.Unlock()
	in.probe(t.Context(), in.devices[DefaultToken])
	in.key("pay", "card", "")
}

// Sealed and unsealed again and again under load: each call has either the right
// answer or UNAVAILABLE, none is lost, and in the end all is served.
// What was begun before the keys were dropped, and needs them after, is told that the
// server is sealed.
func TestSealAmidAChange(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	_, k, err := in.keyResource(t.Context(), "pay", "card")
	if err != nil {
		t.Fatal(err)
	}
	d, err := in.domainOf(t.Context(), k.ns)
	if err != nil {
		t.Fatal(err)
	}
	d.Drop()
	err = in.putVersion(in.begin(admin(), "RotateKey"), &transaction{}, d, k.ns.ID, k.Key, k.algorithm, 2)
	wantCode(t, err, Unavailable, "sealed")
}

func TestSealUnderLoad(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.close()
	in.config.OnLoss, in.config.JobInterval = OnLossSeal, 10*time.Millisecond
	in.open()
	in.namespace("pay")
	sealed := map[string][]byte{}
	for i := range 8 {
		name := fmt.Sprint("key", i)
		in.key("pay", name, "")
		sealed[name] = in.encrypt("pay", name, name)
	}
	var running sync.WaitGroup
	var served, refused atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	judge := func(what string, err error) {
		if CodeOf(err) == Unavailable {
			refused.Add(1)
		} else if served.Add(1); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for w := range 4 {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprint("key", (w+n)%8)
				got, err := in.Decrypt(context.Background(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: sealed[name]})
				if judge("decrypt", err); err == nil && string(got.Plaintext) != name {
					t.Errorf("decrypted %q", got.Plaintext)
				}
				if n%7 == 0 {
					judge("rotate", second(in.RotateKey(context.Background(), admin(), KeyRef{Namespace: "pay", Key: name})))
				}
			}
		})
	}
	for range 10 {
		in.lose(time.Minute)
		if !in.sealed() {
			t.Error("not sealed")
		}
		time.Sleep(20 * time.Millisecond)
		in.regain()
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	running.Wait()
	in.regain()
	t.Logf("%d calls served, %d refused", served.Load(), refused.Load())
	for name, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, name)
	}
	if n := len(in.events("Seal")); n < 10 || n != len(in.events("Unseal")) || refused.Load() == 0 || served.Load() == 0 {
		t.Errorf("sealed %d times, unsealed %d times, %d calls refused, %d served", n, len(in.events("Unseal")), refused.Load(), served.Load())
	}
	in.wantBracketed()
}
