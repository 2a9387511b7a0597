package kms

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// Who lacks the right learns nothing: whether the thing exists or not, the
// answer is the same to the letter.
func TestDenialsHideExistence(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.key("pay", "deleted", "")
	must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "deleted"}))
	real := in.encrypt("pay", "card", "x")
	unknown := keyring.Header{KeyID: 77, Version: 1}.AppendTo(nil)
	unknown = append(unknown, real[keyring.HeaderSize:]...)

	calls := map[string]func(namespace, key string, ciphertext []byte) error{
		"Encrypt": func(ns, k string, _ []byte) error {
			_, err := in.Encrypt(t.Context(), nobody(), &EncryptRequest{Namespace: ns, Key: k, Plaintext: []byte("x")})
			return err
		},
		"Decrypt": func(ns, _ string, c []byte) error {
			_, err := in.Decrypt(t.Context(), nobody(), &DecryptRequest{Namespace: ns, Ciphertext: c})
			return err
		},
		"GetKey": func(ns, k string, _ []byte) error {
			_, err := in.GetKey(t.Context(), nobody(), KeyRef{Namespace: ns, Key: k})
			return err
		},
		"RotateKey": func(ns, k string, _ []byte) error {
			_, err := in.RotateKey(t.Context(), nobody(), KeyRef{Namespace: ns, Key: k})
			return err
		},
		"CreateKey": func(ns, k string, _ []byte) error {
			_, err := in.CreateKey(t.Context(), nobody(), CreateKeyRequest{Namespace: ns, Key: k})
			return err
		},
		"ListKeys": func(ns, _ string, _ []byte) error {
			_, _, err := in.ListKeys(t.Context(), nobody(), ListKeysRequest{Namespace: ns})
			return err
		},
		"GetNamespace": func(ns, _ string, _ []byte) error {
			_, err := in.GetNamespace(t.Context(), nobody(), ns)
			return err
		},
		"GetPolicy": func(ns, _ string, _ []byte) error {
			_, err := in.GetPolicy(t.Context(), nobody(), PolicyRef{Namespace: ns, Name: "p"})
			return err
		},
	}
	for name, call := range calls {
		want := call("pay", "card", real)
		wantCode(t, want, PermissionDenied)
		for what, got := range map[string]error{
			"missing key":        call("pay", "nokey", unknown),
			"deleted key":        call("pay", "deleted", real),
			"missing namespace":  call("nospace", "card", real),
			"truncated":          call("pay", "card", real[:3]),
			"missing everything": call("nospace", "nokey", nil),
		} {
			if got == nil || got.Error() != want.Error() {
				t.Errorf("%s, %s: %v, want %v", name, what, got, want)
			}
		}
	}
}

func TestRightsAreNarrow(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.key("pay", "other", "")
	one, operator := as(policy.Token, "one"), as(policy.User, "operator")
	sealed := must[EncryptResponse](t)(in.Encrypt(t.Context(), one, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}))
	if _, err := in.Decrypt(t.Context(), one, &DecryptRequest{Namespace: "pay", Ciphertext: sealed.Ciphertext}); err != nil {
		t.Errorf("Decrypt with the permitted key by the ciphertext's id: %v", err)
	}
	_, err := in.Decrypt(t.Context(), one, &DecryptRequest{Namespace: "pay", Ciphertext: in.encrypt("pay", "other", "x")})
	wantCode(t, err, PermissionDenied)
	_, err = in.Encrypt(t.Context(), operator, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, PermissionDenied)
	_, err = in.Encrypt(t.Context(), Call{}, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, Unauthenticated)
	expired := as(policy.User, "root")
	expired.Caller.Expires = time.Now().Add(-time.Second)
	_, err = in.Encrypt(t.Context(), expired, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, Unauthenticated, "expired")
}

func TestDeniedCallsAreLogged(t *testing.T) {
	in := newInstallation(t)
	call := nobody()
	_, err := in.GetKey(t.Context(), call, KeyRef{Namespace: "pay", Key: "card"})
	wantCode(t, err, PermissionDenied)
	entries := in.entries(audit.Filter{RequestID: call.RequestID})
	if len(entries) != 1 || entries[0].Decision != audit.Deny || entries[0].Outcome != "PERMISSION_DENIED" || entries[0].Key != "card" {
		t.Fatalf("entries = %+v", entries)
	}
}

func TestPoliciesTakeForceAtOnce(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	caller := as(policy.Token, "late")
	use := func() error {
		_, err := in.Encrypt(t.Context(), caller, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		return err
	}
	wantCode(t, use(), PermissionDenied)
	text := `permit (principal == Token::"late", action in Action::"encrypter", resource in Namespace::"pay");`
	put := must[Policy](t)(in.PutPolicy(t.Context(), admin(), PutPolicyRequest{Namespace: "pay", Name: "late", Text: text}))
	if err := use(); err != nil {
		t.Errorf("after the policy was written: %v", err)
	}
	got := must[Policy](t)(in.GetPolicy(t.Context(), admin(), PolicyRef{Namespace: "pay", Name: "late"}))
	if got.Text != text || got.Revision != put.Revision {
		t.Errorf("GetPolicy = %+v", got)
	}
	in.close()
	in.open()
	if err := use(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := in.DeletePolicy(t.Context(), admin(), PolicyRef{Namespace: "pay", Name: "late"}); err != nil {
		t.Fatal(err)
	}
	wantCode(t, use(), PermissionDenied)
	wantCode(t, in.DeletePolicy(t.Context(), admin(), PolicyRef{Namespace: "pay", Name: "late"}), NotFound)
	for _, bad := range []string{"", "permit", `permit (principal == Nobody::"x", action, resource);`} {
		_, err := in.PutPolicy(t.Context(), admin(), PutPolicyRequest{Name: "bad", Text: bad})
		wantCode(t, err, InvalidArgument)
	}
	all, _, err := in.ListPolicies(t.Context(), admin(), ListRequest{})
	if err != nil || !slices.ContainsFunc(all, func(p Policy) bool { return p.Name == "all" }) {
		t.Errorf("ListPolicies = %v, %v", all, err)
	}
}

func TestTokens(t *testing.T) {
	in := newInstallation(t)
	made := must[NewToken](t)(in.CreateToken(t.Context(), admin(), CreateTokenRequest{Principal: "app", Groups: []string{"ops"}, TTL: time.Hour}))
	caller := must[*policy.Caller](t)(in.VerifyToken(made.Text))
	if caller.Principal() != `Token::"app"` || caller.TokenID != made.ID || !slices.Equal(caller.Groups, []string{"ops"}) {
		t.Errorf("caller = %+v", caller)
	}
	tampered := strings.Replace(made.Text, made.Text[10:12], "zz", 1)
	_, err := in.VerifyToken(tampered)
	wantCode(t, err, Unauthenticated)
	in.advance(2 * time.Hour)
	_, err = in.VerifyToken(made.Text)
	wantCode(t, err, Unauthenticated, "expired")
	other := newInstallation(t)
	_, err = other.VerifyToken(made.Text)
	wantCode(t, err, Unauthenticated)
	for _, q := range []CreateTokenRequest{{}, {Principal: "a", TTL: time.Second}, {Principal: "a", TTL: 25 * time.Hour}, {Principal: "a/b"}, {Principal: "a", Groups: make([]string, 17)}} {
		_, err := in.CreateToken(t.Context(), admin(), q)
		wantCode(t, err, InvalidArgument)
	}
}

func TestNamesAndLabels(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	bad := []string{"", "..", ".hidden", "-x", "a/b", "a b", "a\x00b", "\xff", "é", strings.Repeat("a", 64)}
	for _, name := range bad {
		_, err := in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: name})
		wantCode(t, err, InvalidArgument, "key")
		_, err = in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: name})
		wantCode(t, err, InvalidArgument, "namespace")
		_, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: name, Plaintext: []byte("x")})
		wantCode(t, err, InvalidArgument, "key")
	}
	_, err := in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "system"})
	wantCode(t, err, InvalidArgument, "reserved")
	_, err = in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "pay"})
	wantCode(t, err, AlreadyExists)
	_, err = in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "nospace", Key: "k"})
	wantCode(t, err, NotFound, "nospace")
	for what, q := range map[string]CreateKeyRequest{
		"algorithm":         {Algorithm: "ROT13"},
		"purpose":           {Purpose: "JOKE"},
		"protection_level":  {Protection: "PAPER"},
		"labels":            {Labels: map[string]string{"": "x"}},
		"rotation":          {Algorithm: "AES_256_SIV", Rotation: Rotation{Period: time.Hour}},
		"rotation.period":   {Rotation: Rotation{Period: time.Millisecond}},
		"rotation.max_uses": {Rotation: Rotation{MaxUses: 1}},
	} {
		q.Namespace, q.Key = "pay", "k"
		_, err := in.CreateKey(t.Context(), admin(), q)
		wantCode(t, err, InvalidArgument, what)
	}
	must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "k1", Labels: map[string]string{"env": "prod"}}))
	in.key("pay", "k2", "")
	found, _, err := in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay", Labels: map[string]string{"env": "prod"}})
	if err != nil || len(found) != 1 || found[0].Name != "k1" {
		t.Errorf("keys with label: %v, %v", found, err)
	}
	_, _, err = in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay", PageToken: "bm9uc2Vuc2U"})
	wantCode(t, err, InvalidArgument, "page_token")
	_, _, err = in.ListKeys(t.Context(), admin(), ListKeysRequest{Namespace: "pay", PageSize: 1001})
	wantCode(t, err, InvalidArgument, "page_size")
}
