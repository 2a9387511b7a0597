package kms

import (
	"crypto/elliptic"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// parameters gets import parameters for any key of a namespace.
func (in *testInstallation) parameters(namespace, algorithm string, p Protection) ImportParameters {
	in.t.Helper()
	return must[ImportParameters](in.t)(in.GetImportParameters(in.t.Context(), admin(), ImportParametersRequest{Namespace: namespace, Algorithm: algorithm, Protection: p}))
}

func TestParametersAreRefused(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	long, short := 8*24*time.Hour, time.Millisecond
	for name, c := range map[string]struct {
		call   Call
		q      ImportParametersRequest
		code   Code
		expect string
	}{
		"no algorithm":           {admin(), ImportParametersRequest{}, InvalidArgument, "algorithm is missing"},
		"no algorithm, no key":   {admin(), ImportParametersRequest{Key: "new"}, InvalidArgument, "algorithm is missing"},
		"an unknown algorithm":   {admin(), ImportParametersRequest{Algorithm: "DES"}, InvalidArgument, "unknown"},
		"too long":               {admin(), ImportParametersRequest{Algorithm: "ED25519", TTL: &long}, InvalidArgument, "ttl is 192h"},
		"too short":              {admin(), ImportParametersRequest{Algorithm: "ED25519", TTL: &short}, InvalidArgument, "ttl"},
		"not on this token":      {admin(), ImportParametersRequest{Algorithm: "XAES_256_GCM", Protection: HSMLevel}, InvalidArgument, "AES_256_GCM"},
		"no right":               {appCall(), ImportParametersRequest{Algorithm: "ED25519"}, PermissionDenied, "ImportKey"},
		"no right, of a key":     {appCall(), ImportParametersRequest{Key: "id:0123456789abcdef", Algorithm: "ED25519"}, PermissionDenied, "ImportKey"},
		"an id of no key":        {admin(), ImportParametersRequest{Key: "id:0123456789abcdef", Algorithm: "ED25519"}, NotFound, "id:"},
		"a namespace that isn't": {admin(), ImportParametersRequest{Namespace: "none", Algorithm: "ED25519"}, NotFound, "none"},
	} {
		if c.q.Namespace == "" {
			c.q.Namespace = "pay"
		}
		t.Run(name, func(t *testing.T) {
			_, err := in.GetImportParameters(t.Context(), c.call, c.q)
			wantCode(t, err, c.code, c.expect)
		})
	}
	if n := len(in.device.keyIDs()); n != 0 {
		t.Errorf("%d keys on the token", n)
	}
}

func TestImportJobExpires(t *testing.T) {
	in := newInstallation(t)
	ctx := t.Context()
	in.namespace("pay")
	_, der := newECKey(t, elliptic.P256())
	p := in.parameters("pay", "ECDSA_P256_SHA256", Software)
	if n := len(in.device.keyIDs()); n != 1 {
		t.Fatalf("%d keys on the token", n)
	}
	in.advance(DefaultImportTTL + time.Second)
	for range 2 { // before and after the job has run
		_, err := importKey(t, in, p, "new", der)
		wantCode(t, err, FailedPrecondition, "expired at "+p.Expires.Format(time.RFC3339), "get new import parameters")
		if err := in.runDue(ctx); err != nil {
			t.Fatal(err)
		}
		if err := in.removeOrphans(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(in.device.keyIDs()); n != 0 {
		t.Errorf("the wrapping key is still on the token")
	}
	in.advance(importMemory + time.Hour)
	if err := in.runDue(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := importKey(t, in, p, "new", der)
	wantCode(t, err, NotFound, "does not exist")
	if n := in.countStore(); n != 0 {
		t.Errorf("%d records are left", n)
	}
	in.close()
	if found := in.verifyStore(); len(found.Differences) != 0 {
		t.Errorf("%+v", found.Differences)
	}
	in.open()
}

func TestSingleUse(t *testing.T) {
	in := newInstallation(t)
	ctx := t.Context()
	in.namespace("pay")
	_, der := newECKey(t, elliptic.P256())
	p := must[ImportParameters](t)(in.GetImportParameters(ctx, admin(), ImportParametersRequest{Namespace: "pay", Algorithm: "ECDSA_P256_SHA256", SingleUse: true}))
	q := ImportKeyRequest{Namespace: "pay", Key: "first", Job: p.Job.String(), Wrapped: wrapFor(t, p, der), Idempotency: "once"}
	first := must[Key](t)(in.ImportKey(ctx, admin(), q))
	if err := in.removeOrphans(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(in.device.keyIDs()); n != 0 {
		t.Errorf("%d keys on the token", n)
	}
	_, err := importKey(t, in, p, "second", der)
	wantCode(t, err, FailedPrecondition, "single use", "get new import parameters")
	if again := must[Key](t)(in.ImportKey(ctx, admin(), q)); again.ID != first.ID {
		t.Errorf("the same import sent again made %s beside %s", again.ID, first.ID)
	}
	in.advance(DefaultImportTTL + time.Hour)
	if err := in.runDue(ctx); err != nil { // it ended long before
		t.Fatal(err)
	}
	in.close()
	if found := in.verifyStore(); len(found.Differences) != 0 {
		t.Errorf("%+v", found.Differences)
	}
	in.open()
}

func TestTooManyImportJobs(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for range MaxImportJobs {
		in.parameters("pay", "ED25519", Software)
	}
	_, err := in.GetImportParameters(t.Context(), admin(), ImportParametersRequest{Namespace: "pay", Algorithm: "ED25519"})
	wantCode(t, err, ResourceExhausted, "100 import jobs")
	in.namespace("ops")
	in.parameters("ops", "ED25519", Software)
}

// A namespace's removal removes its wrapping keys from the token.
func TestNamespaceRemovalEndsImportJobs(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.parameters("pay", "ED25519", Software)
	now := time.Duration(0)
	must[Namespace](t)(in.DeleteNamespace(t.Context(), admin(), DeleteNamespaceRequest{Namespace: "pay", Delay: &now}))
	in.advance(time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "pay"))
	if err := in.removeNamespace(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	in.wantObjects()
	if got := in.device.keyIDs(); len(got) != 0 {
		t.Errorf("%d keys are on the token", len(got))
	}
}

// wrappedKey is a key to be imported, as a client sends it again and again.
type wrappedKey struct {
	Job     string
	Wrapped []byte
}

// putImports leaves wrapped keys beside the store, each for a single use, for
// toImport, also of another process.
func (in *testInstallation) putImports() {
	in.t.Helper()
	week := MaxImportTTL
	for algorithm, p := range map[string]Protection{"XAES_256_GCM": Software, "AES_256_GCM": HSMLevel} {
		parameters := must[ImportParameters](in.t)(in.GetImportParameters(in.t.Context(), admin(),
			ImportParametersRequest{Namespace: "pay", Algorithm: algorithm, Protection: p, TTL: &week, SingleUse: true}))
		b := must[[]byte](in.t)(json.Marshal(wrappedKey{parameters.Job.String(), wrapFor(in.t, parameters, newRawKey(32))}))
		if err := os.WriteFile(filepath.Join(in.dir, algorithm), b, 0o600); err != nil {
			in.t.Fatal(err)
		}
	}
}

func (in *testInstallation) toImport(algorithm string) (k wrappedKey) {
	in.t.Helper()
	b := must[[]byte](in.t)(os.ReadFile(filepath.Join(in.dir, algorithm)))
	if err := json.Unmarshal(b, &k); err != nil {
		in.t.Fatal(err)
	}
	return k
}
