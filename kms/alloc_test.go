package kms

import (
	"testing"

	"github.com/keywright/keywright/kms/policy"
)

// What a warm use allocates, from the decision to the written audit line: only
// what it gives away and, with XAES-256-GCM, the cipher under the message's own
// key. Raise a number only with a reason.
func TestAllocationsOfWarmUses(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget, so allocations mean nothing; measured without it")
	}
	in := newInstallation(t)
	in.namespace("pay")
	call := Call{Caller: &policy.Caller{Type: policy.Token, ID: "app", Method: "token"}, RequestID: "0123456789abcdef"}
	for _, c := range []struct {
		algorithm        string
		encrypt, decrypt float64
	}{
		{"XAES_256_GCM", 3, 3},
		{"AES_256_GCM", 1, 1},
		{"CHACHA20_POLY1305", 1, 1},
	} {
		in.key("pay", c.algorithm, c.algorithm)
		encrypt := &EncryptRequest{Namespace: "pay", Key: c.algorithm, Plaintext: make([]byte, 32)}
		sealed := must[EncryptResponse](t)(in.Encrypt(t.Context(), call, encrypt))
		decrypt := &DecryptRequest{Namespace: "pay", Key: c.algorithm, Ciphertext: sealed.Ciphertext}
		unnamed := &DecryptRequest{Namespace: "pay", Ciphertext: sealed.Ciphertext}
		for what, use := range map[string]struct {
			most float64
			do   func() error
		}{
			"encrypt":               {c.encrypt, func() error { return second(in.Encrypt(t.Context(), call, encrypt)) }},
			"decrypt":               {c.decrypt, func() error { return second(in.Decrypt(t.Context(), call, decrypt)) }},
			"decrypt by the key id": {c.decrypt + 1, func() error { return second(in.Decrypt(t.Context(), call, unnamed)) }},
		} {
			n := testing.AllocsPerRun(200, func() {
				if err := use.do(); err != nil {
					t.Fatal(err)
				}
			})
			if n > use.most {
				t.Errorf("%s: %s allocates %v times, at most %v are expected", c.algorithm, what, n, use.most)
			}
			t.Logf("%s: %s allocates %v times", c.algorithm, what, n)
		}
	}
}

// The same of keys of VAULT framing.
func TestAllocationsOfWarmTransitUses(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget, so allocations mean nothing; measured without it")
	}
	in := newInstallation(t)
	in.namespace("pay")
	call := Call{Caller: &policy.Caller{Type: policy.Token, ID: "app", Method: "token"}, RequestID: "0123456789abcdef"}
	for _, kind := range []string{"aes256-gcm96", "aes128-gcm96", "chacha20-poly1305"} {
		in.transitKey(kind, TransitOptions{Type: kind})
		encrypt := &TransitEncryptRequest{Namespace: "pay", Key: kind, Plaintext: make([]byte, 32)}
		sealed := must[TransitEncryptResponse](t)(in.TransitEncrypt(t.Context(), call, encrypt))
		decrypt := &TransitDecryptRequest{Namespace: "pay", Key: kind, Ciphertext: sealed.Ciphertext}
		for what, use := range map[string]struct {
			most float64
			do   func() error
		}{
			"encrypt": {1, func() error { return second(in.TransitEncrypt(t.Context(), call, encrypt)) }},
			"decrypt": {1, func() error { return second(in.TransitDecrypt(t.Context(), call, decrypt)) }},
		} {
			n := testing.AllocsPerRun(200, func() {
				if err := use.do(); err != nil {
					t.Fatal(err)
				}
			})
			if n > use.most {
				t.Errorf("%s: %s allocates %v times, at most %v are expected", kind, what, n, use.most)
			}
			t.Logf("%s: %s allocates %v times", kind, what, n)
		}
	}
}
