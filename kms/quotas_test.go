package kms

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

func TestBucket(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, perSecond := range []uint64{1, 3, 10, 1000, 1_000_000_000} {
		b := &bucket{}
		taken := func(at time.Time, tries int) (n uint64) {
			for range tries {
				if b.take(at, perSecond) {
					n++
				}
			}
			return n
		}
		burst := min(perSecond, 2000)
		if n := taken(now, 2000); n != burst {
			t.Errorf("%d a second: %d at once", perSecond, n)
		}
		if perSecond > 2000 {
			continue
		}
		if b.take(now, perSecond) {
			t.Errorf("%d a second: one too many", perSecond)
		}
		total := uint64(0)
		for tick := range 100 { // ten seconds
			total += taken(now.Add(time.Duration(tick+1)*100*time.Millisecond), 2000)
		}
		if total < 10*perSecond-1 || total > 10*perSecond+1 {
			t.Errorf("%d a second: %d in ten", perSecond, total)
		}
		if !b.take(now.Add(-time.Hour), perSecond) {
			t.Errorf("%d a second: held up by a clock that was set back", perSecond)
		}
	}
}

func TestBucketCountsConcurrently(t *testing.T) {
	b, now := &bucket{}, time.Now()
	var taken atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 500 {
				if b.take(now, 1000) {
					taken.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if n := taken.Load(); n != 1000 {
		t.Errorf("%d of 1000", n)
	}
}

func (in *testInstallation) quota(namespace string, q Quotas) {
	in.t.Helper()
	must[Namespace](in.t)(in.UpdateNamespace(in.t.Context(), admin(), UpdateNamespaceRequest{Namespace: namespace, Quotas: &q}))
}

func TestNamespaceQuota(t *testing.T) {
	in := newTokens(t)
	in.namespace("free")
	in.key("free", "k", "")
	in.freeze()
	in.quota("pay", Quotas{RequestsPerSecond: 3})
	for range 3 {
		if err := in.use(appCall(), "card"); err != nil {
			t.Fatal(err)
		}
	}
	call := appCall()
	wantCode(t, in.use(call, "card"), ResourceExhausted, "pay", "requests_per_second", "3")
	_, err := in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})
	wantCode(t, err, ResourceExhausted)
	// Who may not do it learns nothing of the quota; others are not concerned.
	wantCode(t, in.use(nobody(), "card"), PermissionDenied)
	if _, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "free", Key: "k", Plaintext: []byte("x")}); err != nil {
		t.Error(err)
	}
	lines := in.entries(audit.Filter{RequestID: call.RequestID})
	if len(lines) != 1 || lines[0].Outcome != string(ResourceExhausted) || lines[0].Reason != "NAMESPACE_QUOTA" || lines[0].Decision != audit.Allow {
		t.Errorf("lines %+v", lines)
	}
	in.quota("pay", Quotas{}) // the way out is open
	if err := in.use(appCall(), "card"); err != nil {
		t.Error(err)
	}
}

// An item of a batch counts as one.
func TestQuotaCountsItems(t *testing.T) {
	in := newTokens(t)
	in.freeze()
	in.quota("pay", Quotas{RequestsPerSecond: 3})
	operations := make([]Operation, 5)
	for i := range operations {
		operations[i] = &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}
	}
	results, err := in.Batch(t.Context(), appCall(), operations)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if want := map[bool]Code{true: OK, false: ResourceExhausted}[i < 3]; CodeOf(r.Err) != want {
			t.Errorf("item %d: %v", i, r.Err)
		}
	}
}

func TestCallerQuota(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice(), config: Config{CallerRequestsPerSecond: 4}}
	in.initialize(InitOptions{DevMode: true, Policies: testPolicies})
	in.open()
	t.Cleanup(in.close)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.freeze()
	for range 4 {
		if err := in.use(appCall(), "card"); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, in.use(appCall(), "card"), ResourceExhausted, `Token::"app"`, "4")
	if err := in.use(as(policy.Token, "one"), "card"); err != nil {
		t.Errorf("another caller: %v", err)
	}
	// Denials count too: each is synced to disk.
	for range 4 {
		wantCode(t, in.use(nobody(), "card"), PermissionDenied)
	}
	wantCode(t, in.use(nobody(), "card"), ResourceExhausted)
}

func TestKeyQuota(t *testing.T) {
	in := newTokens(t) // with two keys
	in.quota("pay", Quotas{MaxKeys: 4})
	create := func(name string) error {
		_, err := in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: name})
		return err
	}
	var wait sync.WaitGroup
	var made atomic.Int64
	for i := range 8 {
		wait.Go(func() {
			if err := create(fmt.Sprint("k", i)); err == nil {
				made.Add(1)
			} else {
				wantCode(t, err, ResourceExhausted, "max_keys", "4")
			}
		})
	}
	wait.Wait()
	if n := made.Load(); n != 2 {
		t.Fatalf("%d keys were created, two are free", n)
	}
	deleted := must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "other"}))
	if err := create("again"); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
	wantCode(t, create("more"), ResourceExhausted)
	must[Key](t)(in.RestoreKey(t.Context(), admin(), RestoreKeyRequest{Namespace: "pay", ID: deleted.ID}))
	in.quota("pay", Quotas{MaxKeys: 5})
	wantCode(t, create("more"), ResourceExhausted) // the restored one counts
	in.quota("pay", Quotas{MaxKeys: 6})
	if err := create("more"); err != nil {
		t.Error(err)
	}
	in.quota("pay", Quotas{})
	if err := create("unbounded"); err != nil {
		t.Error(err)
	}
}

func BenchmarkQuotas(b *testing.B) {
	in := newTokens(b)
	t := in.begin(appCall(), policy.Encrypt)
	for name, q := range map[string]Quotas{"off": {}, "on": {RequestsPerSecond: 1_000_000_000}} {
		in.quota("pay", q)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := in.withinNamespaceQuota(t, policy.Encrypt, "pay"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
