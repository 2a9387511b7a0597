package kms

import (
	"fmt"
	"testing"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// BenchmarkEncrypt is the whole path below the transports: decision, cipher,
// audit line written.
func BenchmarkEncrypt(b *testing.B) {
	in := newInstallation(b)
	in.namespace("pay")
	call := Call{Caller: &policy.Caller{Type: policy.Token, ID: "app", Method: "token"}, RequestID: "0123456789abcdef"}
	for _, a := range []string{"XAES_256_GCM", "AES_256_GCM"} {
		in.key("pay", a, a)
		for _, size := range []int{32, 4096} {
			b.Run(fmt.Sprintf("%s/%d", a, size), func(b *testing.B) {
				q := &EncryptRequest{Namespace: "pay", Key: a, Plaintext: make([]byte, size)}
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, err := in.Encrypt(b.Context(), call, q); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkEncryptParallel shows that nothing is held while encrypting.
func BenchmarkEncryptParallel(b *testing.B) {
	in := newInstallation(b)
	in.namespace("pay")
	in.key("pay", "card", "")
	call := Call{Caller: &policy.Caller{Type: policy.Token, ID: "app", Method: "token"}, RequestID: "0123456789abcdef"}
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		q := &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: make([]byte, 32)}
		for pb.Next() {
			if _, err := in.Encrypt(b.Context(), call, q); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkDiffPolicies compares 50,000 audited requests of 100 callers.
func BenchmarkDiffPolicies(b *testing.B) {
	const entries = 50_000
	in := newInstallation(b)
	in.namespace("pay")
	in.key("pay", "card", "")
	for i := range entries {
		e := audit.Entry{Time: in.now(), Principal: fmt.Sprintf("Token::\"t%d\"", i%100), Method: "token", Action: "Encrypt", Namespace: "pay", Key: "card",
			Decision: audit.Deny, Outcome: string(PermissionDenied), PolicyRevision: 1, RequestID: fmt.Sprint("r", i)}
		if _, err := in.audit.Append(&e, audit.Hot); err != nil {
			b.Fatal(err)
		}
	}
	q := DiffRequest{Changes: []PolicyChange{{Name: "new", Text: `permit (principal == Token::"t7", action, resource);`}}}
	for b.Loop() {
		if d := must[PolicyDiff](b)(in.DiffPolicies(b.Context(), admin(), q)); len(d.Changed) != 1 || d.Changed[0].Count != entries/100 {
			b.Fatalf("%+v", d)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
}
