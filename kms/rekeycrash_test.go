package kms

import (
	"fmt"
	"testing"

	"github.com/keywright/keywright/kms/store/storetest"
)

// A rekeying that is cut off at any of its commits, by a store that dies there and
// a server that dies then, leaves all keys serving and is gone on with.
func TestRekeyGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	faults := map[string]func(*storetest.FaultyStore, int){
		"failed":    func(s *storetest.FaultyStore, n int) { s.FailFrom(n, storetest.Failed) },
		"lost":      func(s *storetest.FaultyStore, n int) { s.FailFrom(n, storetest.Lost) },
		"persisted": func(s *storetest.FaultyStore, n int) { s.FailNth(n, storetest.Persisted) },
	}
	for name, fail := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const most = 20
			n := 1
			for ; n <= most; n++ {
				in := newInstallation(t)
				struck := testRekeyCutOff(in, func() { fail(in.store, n) })
				in.close()
				if !struck || t.Failed() {
					break
				}
			}
			if n < 8 || n > most {
				t.Errorf("a rekeying made %d commits", n-1)
			}
		})
	}
}

func testRekeyCutOff(in *testInstallation, fail func()) (struck bool) {
	t := in.t
	in.namespace("pay")
	sealed := map[string][]byte{}
	for i := range 3 {
		name := fmt.Sprint("key", i)
		in.key("pay", name, "AES_256_GCM")
		for v := range 20 {
			text := fmt.Sprint(name, " version ", v+1)
			sealed[text] = in.encrypt("pay", name, text)
			must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: name}))
		}
	}
	wantServed := func() {
		t.Helper()
		for text, ciphertext := range sealed {
			in.wantOpens("pay", ciphertext, text)
		}
	}
	fail()
	_, err := in.RekeyNamespace(t.Context(), admin(), NamespaceRef{Namespace: "pay"})
	if err == nil {
		struck = !in.tendAll()
	}
	wantServed()
	in.store.Heal()
	in.crash()
	in.open()
	wantServed()
	n := in.describe("pay")
	if secrets := len(in.list(prefixDomains(n.ID))); (secrets == 2) != n.rekeying() || secrets == 0 {
		t.Errorf("%d secrets, the rekeying is %+v", secrets, n.Rekey)
	}
	if n.Rekey.Started.IsZero() {
		in.beginRekey("pay")
	}
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	wantServed()
	in.wantBracketed()
	return struck || err != nil
}
