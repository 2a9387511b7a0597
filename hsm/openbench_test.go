package hsm_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm"
)

// BenchmarkOpen opens a token that holds many keys, up to a root key that was found
// and checked, beside the least that any program does: initialise the module, log in
// and find one object. SoftHSM2 reads every object when it is initialised, so its own
// time grows with their number. The metric "beyond-ms" is what is added to it.
func BenchmarkOpen(b *testing.B) {
	for _, keys := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) { openWith(b, keys) })
	}
}

func openWith(b *testing.B, keys int) {
	d, token, root := withRoot(b)
	o := newOutsider(b, token)
	for range keys {
		o.aes(newID(), false)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	var ours, bare time.Duration
	b.ResetTimer()
	for range b.N {
		ours += openToRoot(b, token, root)
		bare += bareToRoot(b, token, root)
	}
	each := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(each(ours), "open-ms")
	b.ReportMetric(each(bare), "bare-ms")
	b.ReportMetric(each(ours)-each(bare), "beyond-ms")
}

func openToRoot(b *testing.B, token *softhsm.Token, root hsm.Root) time.Duration {
	begun := time.Now()
	d, err := hsm.Open(b.Context(), configFor(token))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := d.FindRoot(b.Context(), root.ID, root.CheckValue); err != nil {
		b.Fatal(err)
	}
	took := time.Since(begun)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}

func bareToRoot(b *testing.B, token *softhsm.Token, root hsm.Root) time.Duration {
	pin, err := os.ReadFile(token.PINFile)
	if err != nil {
		b.Fatal(err)
	}
	p11 := pkcs11.New(token.Module)
	begun := time.Now()
	if err := p11.Initialize(); err != nil {
		b.Fatal(err)
	}
	o := newOutsider(b, token)
	o.must(o.p11.Login(o.session, pkcs11.CKU_USER, strings.TrimSpace(string(pin))))
	if len(o.find(idAttribute(root.ID))) != 1 {
		b.Fatal("no root")
	}
	took := time.Since(begun)
	o.must(p11.Finalize())
	return took
}
