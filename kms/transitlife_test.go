package kms

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring/transit"
)

// What becomes of keys in memory and in the store becomes of those of VAULT framing too.
func TestTransitKeysLiveLikeOthers(t *testing.T) {
	t.Parallel()
	in, _ := withEast(t)
	sealed := in.cardWithVersions(4)
	opens := func(when string) {
		t.Helper()
		for v, ciphertext := range sealed {
			if got, err := in.transitOpen("card", ciphertext, transit.Params{}); err != nil || string(got.Plaintext) != "x" || got.Version != v {
				t.Fatalf("%s: version %d opens to %q of version %d, %v", when, v, got.Plaintext, got.Version, err)
			}
		}
	}
	opens("at first")
	before := in.cache.bytes.Load()
	in.cache.limit = 0
	in.evict(t.Context())
	if n := in.cache.versions.Len(); n != 0 || in.cache.bytes.Load() >= before {
		t.Errorf("%d versions were not evicted; %d bytes, before %d", n, in.cache.bytes.Load(), before)
	}
	in.cache.limit = 1 << 20
	opens("evicted")

	must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: "east"}))
	opens("migrated")
	in.rotateRoot("east")
	in.tendRootsNow()
	opens("with another root key")
	must[Namespace](t)(in.MigrateNamespace(t.Context(), admin(), MigrateNamespaceRequest{Namespace: "pay", Token: DefaultToken}))

	in.sealing()
	opens("reopened")
	in.lose(time.Minute)
	in.lose(time.Minute)
	_, err := in.transitOpen("card", sealed[1], transit.Params{})
	wantCode(t, err, Unavailable, "sealed")
	if n := in.cache.versions.Len(); n != 0 {
		t.Errorf("%d versions are left in memory", n)
	}
	in.regain()
	opens("unsealed")

	in.minVersions(2, 2)
	must[Key](t)(in.trim(2))
	in.close()
	if report := in.verifyStore(); len(report.Differences) > 0 {
		t.Errorf("store and log differ: %+v", report.Differences)
	}
	in.open()
	delete(sealed, 1)
	opens("verified")
	must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 3, Delay: new(time.Duration)}))
	in.advance(2 * time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = in.transitOpen("card", sealed[3], transit.Params{})
	wantCode(t, err, FailedPrecondition, "DESTROYED")
	in.wantBracketed()
}

// While a key is rotated, configured and trimmed, whatever is encrypted with the latest
// version opens.
func TestTransitUnderChange(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.cardWithVersions(1)
	ctx, stop := context.WithCancel(t.Context())
	var users sync.WaitGroup
	uses := make([]atomic.Int64, 4)
	for i := range uses {
		users.Go(func() {
			for ctx.Err() == nil {
				text := fmt.Sprint("text ", i, uses[i].Add(1))
				sealed, err := in.TransitEncrypt(t.Context(), admin(), &TransitEncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte(text)})
				if err != nil {
					t.Errorf("encrypt: %v", err)
					return
				}
				got, err := in.transitOpen("card", sealed.Ciphertext, transit.Params{})
				if err != nil || string(got.Plaintext) != text || got.Version != sealed.Version {
					t.Errorf("%q of version %d opens to %q of version %d, %v", text, sealed.Version, got.Plaintext, got.Version, err)
					return
				}
			}
		})
	}
	for range 10 {
		latest := in.rotate("card")
		for i := range uses { // what was encrypted before has opened
			for was := uses[i].Load(); uses[i].Load() < was+2 && !t.Failed(); {
				time.Sleep(time.Millisecond)
			}
		}
		in.minVersions(latest-1, latest)
		must[Key](t)(in.trim(latest - 1))
		in.evict(t.Context())
	}
	stop()
	users.Wait()
	in.wantBracketed()
}
