package kms

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/badger"
	"github.com/keywright/keywright/kms/store/storetest"
)

// installation is a whole one, on a real store and a real audit log.
type testInstallation struct {
	t      testing.TB
	dir    string
	device *softDevice
	clock  atomic.Int64 // offset to the real time
	frozen atomic.Int64 // what the real time stands at, Unix nanoseconds; 0: it goes on
	config Config       // what a test changes before open
	log    audit.Options
	store  *storetest.FaultyStore
	audit  *audit.Log
	job    ImportParameters // of a scene
	*Service
}

var testPolicies = []policy.Policy{{Name: "all", Text: `
	permit (principal == User::"root", action, resource);
	permit (principal == User::"operator", action in Action::"operator", resource);
	permit (principal == Token::"app", action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"pay");
	permit (principal == Token::"one", action in [Action::"encrypter", Action::"decrypter"], resource == Key::"pay/card");
`}}

func newInstallation(t testing.TB) *testInstallation {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{DevMode: true, Policies: testPolicies, Secrets: map[string][]byte{"extra": []byte("kept")}})
	in.open()
	t.Cleanup(in.close)
	return in
}

func (in *testInstallation) now() time.Time {
	now := time.Now()
	if at := in.frozen.Load(); at != 0 {
		now = time.Unix(0, at)
	}
	return now.Add(time.Duration(in.clock.Load()))
}

// freeze stops the clock, so that a test's own slowness changes nothing.
func (in *testInstallation) freeze() { in.frozen.Store(time.Now().UnixNano()) }

func (in *testInstallation) advance(d time.Duration) { in.clock.Add(int64(d)) }

func (in *testInstallation) parts() Config {
	inner := unlocked(in.t, func() (*badger.Store, error) { return badger.Open(badger.Options{Dir: filepath.Join(in.dir, "store")}) })
	in.store = storetest.Faulty(inner)
	in.device.reopen()
	in.audit = unlocked(in.t, func() (*audit.Log, error) { return audit.Open(filepath.Join(in.dir, "audit"), in.log) })
	c := in.config
	c.Store, c.Audit, c.HSM, c.Clock = in.store, in.audit, in.device, in.now
	if c.JobInterval == 0 {
		c.JobInterval = time.Hour // tests run the jobs themselves
	}
	return c
}

// unlocked opens what a moment ago was closed: a child that another test is just
// starting may still hold its lock, between fork and exec.
func unlocked[A any](t testing.TB, open func() (A, error)) A {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		opened, err := open()
		locked := errors.Is(err, store.ErrLocked) || errors.Is(err, audit.ErrLocked) ||
			err != nil && strings.Contains(err.Error(), "Another process is using this Badger database")
		if !locked || time.Now().After(deadline) {
			return must[A](t)(opened, err)
		}
	}
}

func (in *testInstallation) initialize(o InitOptions) {
	in.t.Helper()
	if _, err := Initialize(context.Background(), in.parts(), o); err != nil {
		in.t.Fatal(err)
	}
	in.closeParts()
}

func (in *testInstallation) open() {
	in.t.Helper()
	in.Service = must[*Service](in.t)(Open(context.Background(), in.parts()))
}

func (in *testInstallation) closeParts() {
	in.t.Helper()
	if err := errors.Join(in.store.Close(), in.audit.Close()); err != nil {
		in.t.Fatal(err)
	}
}

func (in *testInstallation) close() {
	if in.Service == nil {
		return
	}
	in.Service.Close(context.Background())
	in.Service = nil
	in.closeParts()
}

// crash ends the service without letting it write anything more.
func (in *testInstallation) crash() {
	in.Service.stopJobs()
	in.Service = nil
	in.closeParts()
}

func as(principal policy.PrincipalType, id string) Call {
	var request [8]byte
	rand.Read(request[:])
	return Call{Caller: &policy.Caller{Type: principal, ID: id, Method: "internal"}, RequestID: hex.EncodeToString(request[:])}
}

func admin() Call   { return as(policy.User, "root") }
func nobody() Call  { return as(policy.User, "nobody") }
func appCall() Call { return as(policy.Token, "app") }

func (in *testInstallation) namespace(name string) {
	in.t.Helper()
	must[Namespace](in.t)(in.CreateNamespace(context.Background(), admin(), CreateNamespaceRequest{Namespace: name}))
}

func (in *testInstallation) domain(name string) *domain.Domain {
	in.t.Helper()
	ns := must[*namespace](in.t)(in.findNamespace(context.Background(), name))
	return must[*domain.Domain](in.t)(in.domainOf(context.Background(), ns))
}

func (in *testInstallation) key(namespace, name, algorithm string) Key {
	in.t.Helper()
	return must[Key](in.t)(in.CreateKey(context.Background(), admin(), CreateKeyRequest{Namespace: namespace, Key: name, Algorithm: algorithm}))
}

func (in *testInstallation) encrypt(namespace, name, text string) []byte {
	in.t.Helper()
	return must[EncryptResponse](in.t)(in.Encrypt(context.Background(), admin(),
		&EncryptRequest{Namespace: namespace, Key: name, Plaintext: []byte(text)})).Ciphertext
}

func (in *testInstallation) wantOpens(namespace string, ciphertext []byte, text string) {
	in.t.Helper()
	got, err := in.Decrypt(context.Background(), admin(), &DecryptRequest{Namespace: namespace, Ciphertext: ciphertext})
	if err != nil || string(got.Plaintext) != text {
		in.t.Fatalf("Decrypt = %q, %v, want %q", got.Plaintext, err, text)
	}
}

// wantCode fails unless err is a kms error of that code whose message has all
// the given parts.
func wantCode(t testing.TB, err error, code Code, parts ...string) {
	t.Helper()
	if CodeOf(err) != code {
		t.Fatalf("error %v, want code %s", err, code)
	}
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}

func (in *testInstallation) entries(f audit.Filter) []audit.Entry {
	in.t.Helper()
	var entries []audit.Entry
	err := in.audit.Scan(context.Background(), f, func(e audit.Entry) error {
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		in.t.Fatal(err)
	}
	return entries
}
