package kms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

func (in *testInstallation) beginRekey(name string) Namespace {
	in.t.Helper()
	n, err := in.RekeyNamespace(context.Background(), admin(), NamespaceRef{Namespace: name})
	if err != nil {
		in.t.Fatalf("RekeyNamespace: %v, because of %v", err, errors.Unwrap(err))
	}
	return n
}

// tendAll does what the background job does, once.
func (in *testInstallation) tendAll() bool {
	ok := true
	for _, ns := range in.namespaces.All() {
		ok = in.tend(context.Background(), ns) && ok
	}
	return ok
}

func (in *testInstallation) describe(name string) Namespace {
	in.t.Helper()
	return must[Namespace](in.t)(in.GetNamespace(context.Background(), admin(), name))
}

// endRekeying goes on until a rekeying has ended.
func (in *testInstallation) endRekeying(name string) {
	in.t.Helper()
	for range 20 {
		in.tendAll()
		if n := in.describe(name); !n.Rekey.Ended.IsZero() {
			return
		}
	}
	in.t.Fatalf("the rekeying does not end: %+v", in.describe(name).Rekey)
}

func (in *testInstallation) list(prefix string) []store.Record {
	in.t.Helper()
	var all []store.Record
	for after, more := "", true; more; more = after != "" {
		page, err := in.store.List(context.Background(), prefix, after, 0)
		if err != nil {
			in.t.Fatal(err)
		}
		all, after = append(all, page.Records...), page.Next
	}
	return all
}

// wantOnly fails if the store holds anything of the namespace that another
// generation has sealed, or the secret of another.
func (in *testInstallation) wantOnly(name string, generation uint32) {
	in.t.Helper()
	n := in.describe(name)
	if n.Generation != generation || n.rekeying() {
		in.t.Errorf("namespace = %+v, want generation %d at rest", n, generation)
	}
	d := in.domain(name).Alone()
	for _, prefix := range ownPrefixes(n.ID) {
		for _, record := range in.list(prefix) {
			if err := (&rekeying{d: d}).lookAt(record); err != nil || domainOfRecord(record) != generation {
				in.t.Errorf("%s is of generation %d, %v", record.Key, domainOfRecord(record), err)
			}
		}
	}
	if domains := in.list(prefixDomains(n.ID)); len(domains) != 1 || domains[0].Key != pathDomain(n.ID, generation) {
		in.t.Errorf("%d secrets are left, the first at %s", len(domains), domains[0].Key)
	}
	if left := in.list(prefixRekey); len(left) != 0 {
		in.t.Errorf("%d rekeyings are left", len(left))
	}
}

func domainOfRecord(record store.Record) uint32 {
	_, generation, _ := domain.Claimed(record.Value)
	return generation
}

// furnishForRekey makes keys of every kind and state; it returns ciphertexts by
// their plaintext.
func (in *testInstallation) furnishForRekey() map[string][]byte {
	in.namespace("pay")
	sealed := map[string][]byte{}
	for i := range 40 {
		name := fmt.Sprint("key", i)
		in.key("pay", name, []string{"XAES_256_GCM", "AES_256_GCM"}[i%2])
		for v := range 3 {
			text := fmt.Sprint(name, " version ", v+1)
			sealed[text] = in.encrypt("pay", name, text)
			must[KeyVersion](in.t)(in.RotateKey(context.Background(), admin(), KeyRef{Namespace: "pay", Key: name}))
		}
	}
	return sealed
}

func TestRekeySealsEverythingAnew(t *testing.T) {
	in := newInstallation(t)
	sealed := in.furnishForRekey()
	in.namespace("other")
	in.key("other", "card", "")
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("key1", 2)))
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "key2"}))
	delete(sealed, "key1 version 2")
	for v := range 3 {
		delete(sealed, fmt.Sprint("key2 version ", v+1))
	}
	id := in.describe("pay").ID
	records := 0
	for _, prefix := range ownPrefixes(id) {
		records += len(in.list(prefix))
	}

	began := in.beginRekey("pay")
	if began.Generation != 2 || began.Rekey.From != 1 || began.Rekey.Started.IsZero() || !began.Rekey.Ended.IsZero() {
		t.Fatalf("begun: %+v", began)
	}
	_, err := in.RekeyNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"})
	wantCode(t, err, FailedPrecondition, "being rekeyed since", "wait")
	// What is written meanwhile is sealed anew there and then.
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("key3", 2)))
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("key3", 2)))
	records--
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	if n := in.describe("pay"); n.Rekey.Records != uint64(records) {
		t.Errorf("%d records were sealed anew, the namespace has %d", n.Rekey.Records, records)
	}
	if n := in.describe("other"); n.Generation != 1 {
		t.Errorf("another namespace has generation %d", n.Generation)
	}
	for range 2 {
		for text, ciphertext := range sealed {
			in.wantOpens("pay", ciphertext, text)
		}
		in.close()
		in.open() // now from the store
	}
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("key1", 2)))
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.wantOnly("pay", 3)
	for text, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, text)
	}
	in.wantBracketed()
}

// A change that was planned before the switch and committed after it must not
// leave anything under the old generation.
func TestNothingIsWrittenUnderAClosedGeneration(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	k := in.key("pay", "card", "")
	old, n := in.domain("pay"), in.describe("pay")
	tx := &transaction{}
	tx.put(old, pathKeyName(n.ID, "late"), 0, keyNameRecord{ID: k.ID})
	in.beginRekey("pay")
	if err := tx.commit(t.Context(), in.Service); !isConflict(err) {
		t.Fatalf("commit under the closed generation: %v", err)
	}
	in.endRekeying("pay")
	if err := tx.commit(t.Context(), in.Service); !isConflict(err) {
		t.Fatalf("commit under the removed generation: %v", err)
	}
	in.wantOnly("pay", 2)
}

func isConflict(err error) bool { return CodeOf(storeError(err)) == Aborted }

// A server that has not heard of a rekeying reads and writes all the same.
func TestRekeyOnAnotherServer(t *testing.T) {
	in := newInstallation(t)
	sealed := in.furnishForRekey()
	other := in.secondServer()
	other.stopJobs() // it hears of nothing
	defer func() { other.startJobs(); other.Close(context.Background()) }()
	look := func(when string) {
		t.Helper()
		for text, ciphertext := range sealed {
			got, err := other.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: ciphertext})
			if err != nil || string(got.Plaintext) != text {
				t.Fatalf("%s: Decrypt = %q, %v, want %q", when, got.Plaintext, err, text)
			}
		}
		if _, err := other.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "key3"}); err != nil {
			t.Fatalf("%s: rotate: %v", when, err)
		}
	}
	look("before")
	in.beginRekey("pay")
	if _, err := other.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "key5"}); err != nil {
		t.Fatalf("the first it hears of it is a conflict: %v", err)
	}
	look("begun")
	in.endRekeying("pay")
	look("ended, seen as begun")
	in.beginRekey("pay")
	in.endRekeying("pay")
	other.cache = newCache(1 << 20)
	look("two generations later, from the store")
	in.wantOnly("pay", 3)
}

// A server that opens a namespace for the first time, not having heard that it is
// being rekeyed, or that it was, must not write under the old generation.
func TestRekeyBeforeAnotherServerOpensTheDomain(t *testing.T) {
	for _, ended := range []bool{false, true} {
		in := newInstallation(t)
		in.namespace("pay")
		in.key("pay", "card", "")
		other := in.secondServer()
		other.stopJobs()
		in.beginRekey("pay")
		if ended {
			in.endRekeying("pay")
		}
		if v, err := other.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}); err != nil || v.Version != 2 {
			t.Fatalf("ended %v: rotated to %+v, %v", ended, v, err)
		} else if made := in.list(pathVersion(in.describe("pay").ID, v.KeyID, 2)); len(made) != 1 || domainOfRecord(made[0]) != 2 {
			t.Errorf("ended %v: the new version is of generation %d", ended, domainOfRecord(made[0]))
		}
		if !ended {
			in.endRekeying("pay")
		}
		in.wantOnly("pay", 2)
		other.startJobs()
		other.Close(context.Background())
	}
}

// Without the record of how far it has come, a rekeying begins from the beginning.
func TestRekeyWithoutItsRecord(t *testing.T) {
	in := newInstallation(t)
	in.furnishForRekey()
	in.beginRekey("pay")
	if _, err := in.store.Commit(t.Context(), store.Txn{Deletes: []string{pathRekey(in.describe("pay").ID)}}); err != nil {
		t.Fatal(err)
	}
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
}

func TestRekeyNeedsTheHSM(t *testing.T) {
	in := newInstallation(t)
	sealed := in.furnishForRekey()
	before := in.list("")
	in.device.setAway(true)
	_, err := in.RekeyNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"})
	wantCode(t, err, Unavailable, "HSM")
	if after := in.list(""); !slices.EqualFunc(before, after, func(a, b store.Record) bool { return a.Key == b.Key && a.Revision == b.Revision }) {
		t.Error("something was written without the HSM")
	}
	in.device.setAway(false)
	in.beginRekey("pay")
	in.device.setAway(true) // both generations are open already
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	for text, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, text)
	}
}

// A record that fails authentication stops neither the others nor other
// namespaces; but the old secret is kept until it is restored.
func TestRekeyWithADamagedRecord(t *testing.T) {
	in := newInstallation(t)
	sealed := in.furnishForRekey()
	n := in.describe("pay")
	for _, kind := range []string{prefixKey, prefixKeyName, prefixVersion, prefixUsage} {
		victim := in.list(kind + n.ID.String() + "/")[17]
		for name, change := range map[string]func([]byte){
			"its payload":    func(b []byte) { b[len(b)/2] ^= 1 },
			"its generation": func(b []byte) { b[12]++ },
		} {
			from := in.describe("pay").Generation
			broken := slices.Clone(victim.Value)
			change(broken)
			in.overwrite(victim.Key, broken)
			in.beginRekey("pay")
			for range 3 {
				if in.tendAll() {
					t.Fatalf("%s: %s was changed and nobody noticed", victim.Key, name)
				}
			}
			for _, prefix := range ownPrefixes(n.ID) {
				for _, record := range in.list(prefix) {
					if record.Key != victim.Key && domainOfRecord(record) == from && kind != prefixKey {
						t.Fatalf("%s was held up by %s", record.Key, victim.Key)
					}
				}
			}
			if in.describe("pay").Rekey.Ended != (time.Time{}) || len(in.list(prefixDomains(n.ID))) != 2 {
				t.Fatal("the old secret was given up, though it may be needed")
			}
			in.overwrite(victim.Key, victim.Value)
			in.endRekeying("pay")
			in.wantOnly("pay", from+1)
			victim.Value = must[store.Record](t)(in.store.Get(t.Context(), victim.Key)).Value
		}
	}
	for text, ciphertext := range sealed {
		in.wantOpens("pay", ciphertext, text)
	}
}

func (in *testInstallation) overwrite(path string, value []byte) {
	in.t.Helper()
	if _, err := in.store.Commit(context.Background(), store.Txn{Puts: []store.Put{{Key: path, Value: value}}}); err != nil {
		in.t.Fatal(err)
	}
}
