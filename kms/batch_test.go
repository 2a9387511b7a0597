package kms

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// everyOperation is one request of each kind, in a fixed order, with the
// response that belongs to it.
func everyOperation(t *testing.T, in *testInstallation) (operations []Operation, responses []any) {
	for key, algorithm := range map[string]string{"aes": "", "ec": "ECDSA_P256_SHA256", "mac": "HMAC_SHA256", "rsa": "RSA_OAEP_2048_SHA256", "dh": "X25519"} {
		in.key("pay", key, algorithm)
	}
	sealed := in.encrypt("pay", "aes", "secret")
	signature := must[SignResponse](t)(in.Sign(t.Context(), admin(), &SignRequest{Namespace: "pay", Key: "ec", Message: []byte("m")})).Signature
	mac := must[MACResponse](t)(in.GenerateMAC(t.Context(), admin(), &MACRequest{Namespace: "pay", Key: "mac", Message: []byte("m")})).MAC
	peer := must[*ecdh.PrivateKey](t)(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey().Bytes()
	for _, pair := range []struct {
		q Operation
		a any
	}{
		{&EncryptRequest{Namespace: "pay", Key: "aes", Plaintext: []byte("x")}, &EncryptResponse{}},
		{&DecryptRequest{Namespace: "pay", Ciphertext: sealed}, &DecryptResponse{}},
		{&ReEncryptRequest{Namespace: "pay", Ciphertext: sealed}, &ReEncryptResponse{}},
		{&GenerateDataKeyRequest{Namespace: "pay", Key: "aes"}, &GenerateDataKeyResponse{}},
		{&GenerateDataKeyPairRequest{Namespace: "pay", Key: "aes", Algorithm: "ED25519"}, &GenerateDataKeyPairResponse{}},
		{&GenerateRandomRequest{Namespace: "pay", Size: 8}, &GenerateRandomResponse{}},
		{&SignRequest{Namespace: "pay", Key: "ec", Message: []byte("m")}, &SignResponse{}},
		{&VerifyRequest{Namespace: "pay", Key: "ec", Message: []byte("m"), Signature: signature}, &VerifyResponse{}},
		{&MACRequest{Namespace: "pay", Key: "mac", Message: []byte("m")}, &MACResponse{}},
		{&VerifyMACRequest{Namespace: "pay", Key: "mac", Message: []byte("m"), MAC: mac}, &VerifyResponse{}},
		{&AsymmetricDecryptRequest{Namespace: "pay", Key: "rsa", Ciphertext: sealFor(t, in, "rsa")}, &DecryptResponse{}},
		{&SharedSecretRequest{Namespace: "pay", Key: "dh", PeerPublicKey: peer}, &SharedSecretResponse{}},
		{&PublicKeyRequest{Namespace: "pay", Key: "ec"}, &PublicKeyResponse{}},
	} {
		operations, responses = append(operations, pair.q), append(responses, pair.a)
	}
	return operations, responses
}

// sealFor encrypts to a key's public key, as its users would.
func sealFor(t *testing.T, in *testInstallation, key string) []byte {
	t.Helper()
	public := must[PublicKeyResponse](t)(in.PublicKey(t.Context(), admin(), &PublicKeyRequest{Namespace: "pay", Key: key}))
	block, _ := pem.Decode([]byte(public.PEM))
	parsed := must[any](t)(x509.ParsePKIXPublicKey(block.Bytes))
	return must[[]byte](t)(rsa.EncryptOAEP(sha256.New(), rand.Reader, parsed.(*rsa.PublicKey), []byte("secret"), nil))
}

// do performs and records one operation.
func (in *testInstallation) do(ctx context.Context, call Call, operation Operation) Result {
	return in.Record([]Performed{in.Perform(ctx, call, operation)})[0]
}

// Operations that are recorded together have a line each, and succeed or fail each for
// itself.
func TestRecordTogether(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "AES_256_GCM")
	use := &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("secret")}
	before := in.audit.Next()
	performed := []Performed{in.Perform(t.Context(), admin(), use), in.Perform(t.Context(), nobody(), use),
		in.Perform(t.Context(), admin(), nil), in.Perform(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "card"}),
		in.Perform(t.Context(), admin(), use)}
	if n := in.audit.Next() - before; n != 0 {
		t.Errorf("%d lines before Record", n)
	}
	results := in.Record(performed)
	want := []Code{OK, PermissionDenied, InvalidArgument, InvalidArgument, OK}
	for i, r := range results {
		if CodeOf(r.Err) != want[i] || (r.Response == nil) != (r.Err != nil) {
			t.Errorf("result %d = %v, %v; want %s", i, r.Response, r.Err, want[i])
		}
	}
	var outcomes []string
	for _, e := range in.entries(audit.Filter{From: before}) {
		outcomes = append(outcomes, e.Outcome)
	}
	if !slices.Equal(outcomes, []string{"OK", string(PermissionDenied), string(InvalidArgument), "OK"}) {
		t.Errorf("the log says %v", outcomes)
	}
	if results := in.Record(nil); len(results) != 0 {
		t.Errorf("%d results of nothing", len(results))
	}
}

func TestDoAndBatchServeEveryOperation(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	operations, responses := everyOperation(t, in)
	call := admin()
	results, err := in.Batch(t.Context(), call, operations)
	if err != nil || len(results) != len(operations) {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, o := range operations {
		for how, result := range map[string]Result{"batch": results[i], "do": in.do(t.Context(), admin(), o)} {
			if result.Err != nil || reflect.TypeOf(result.Response) != reflect.TypeOf(responses[i]) {
				t.Errorf("%s of %T = %T, %v, want %T", how, o, result.Response, result.Err, responses[i])
			}
			switch a := result.Response.(type) {
			case *VerifyResponse:
				if !a.Valid {
					t.Errorf("%s of %T: not valid", how, o)
				}
			case *DecryptResponse:
				if string(a.Plaintext) != "secret" {
					t.Errorf("%s of %T = %q", how, o, a.Plaintext)
				}
			}
		}
	}
	entries := in.entries(audit.Filter{RequestID: call.RequestID})
	if len(entries) != 1 || len(entries[0].Batch) != len(operations) {
		t.Fatalf("the batch has %d lines: %+v", len(entries), entries)
	}
	actions := map[string]bool{}
	for _, count := range entries[0].Batch {
		actions[count.Action] = true
		want := uint32(1)
		if count.Action == "Encrypt" {
			want = 2 // the re-encryption encrypts with the same key version
		}
		if count.OK != want || count.Failed != 0 || count.Namespace != "pay" {
			t.Errorf("the line counts %+v", count)
		}
	}
	if len(actions) != len(operations) {
		t.Errorf("the line has %d actions, want %d", len(actions), len(operations))
	}
}

func TestBatchItemsStandAlone(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.namespace("other")
	in.key("pay", "card", "")
	in.key("pay", "ec", "ED25519")
	in.key("other", "card", "")
	good := in.encrypt("pay", "card", "secret")
	bad := append([]byte{}, good...)
	bad[len(bad)-1] ^= 1
	var missing *EncryptRequest
	items := []struct {
		operation Operation
		code      Code
	}{
		{&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("first")}, OK},
		{nil, InvalidArgument},
		{missing, InvalidArgument},
		{&EncryptRequest{Namespace: "pay", Key: "ec", Plaintext: []byte("x")}, FailedPrecondition},
		{&EncryptRequest{Namespace: "pay", Key: "none", Plaintext: []byte("x")}, NotFound},
		{&EncryptRequest{Namespace: "pay", Key: "../x", Plaintext: []byte("x")}, InvalidArgument},
		{&EncryptRequest{Namespace: "other", Key: "card", Plaintext: []byte("x")}, PermissionDenied},
		{&SignRequest{Namespace: "pay", Key: "ec", Message: []byte("x")}, PermissionDenied},
		{&DecryptRequest{Namespace: "pay", Ciphertext: bad}, InvalidArgument},
		{&DecryptRequest{Namespace: "pay", Ciphertext: nil}, InvalidArgument},
		{&DecryptRequest{Namespace: "pay", Ciphertext: good, Binding: Binding{AAD: []byte("a"), Context: map[string]string{"a": "b"}}}, InvalidArgument},
		{&DecryptRequest{Namespace: "pay", Ciphertext: good}, OK},
	}
	var operations []Operation
	for _, item := range items {
		operations = append(operations, item.operation)
	}
	results, err := in.Batch(t.Context(), appCall(), operations)
	if err != nil || len(results) != len(items) {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, item := range items {
		if CodeOf(results[i].Err) != item.code || (results[i].Response != nil) != (item.code == OK) {
			t.Errorf("item %d = %v, %v, want %s", i, results[i].Response, results[i].Err, item.code)
		}
		if result := in.do(t.Context(), appCall(), item.operation); CodeOf(result.Err) != item.code {
			t.Errorf("alone, item %d = %v, want %s", i, result.Err, item.code)
		}
	}
	if last := results[len(results)-1].Response.(*DecryptResponse); string(last.Plaintext) != "secret" {
		t.Errorf("the last item = %q", last.Plaintext)
	}
}

func TestBatchSizes(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for _, n := range []int{0, MaxBatch + 1} {
		call := admin()
		results, err := in.Batch(t.Context(), call, make([]Operation, n))
		wantCode(t, err, InvalidArgument, "operations", fmt.Sprint(MaxBatch))
		if results != nil {
			t.Errorf("%d results of a refused batch", len(results))
		}
		if entries := in.entries(audit.Filter{RequestID: call.RequestID}); len(entries) != 1 || entries[0].Outcome != string(InvalidArgument) {
			t.Errorf("a refused batch has the lines %+v", entries)
		}
	}
	operations := make([]Operation, MaxBatch)
	for i := range operations {
		operations[i] = &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: fmt.Append(nil, i)}
	}
	results, err := in.Batch(t.Context(), admin(), operations)
	if err != nil || len(results) != MaxBatch {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for _, i := range []int{0, 1, MaxBatch / 2, MaxBatch - 1} {
		in.wantOpens("pay", results[i].Response.(*EncryptResponse).Ciphertext, fmt.Sprint(i))
	}
}

// The one line of a batch says how often what was done with which version, and
// in which encryption contexts, by their hash.
func TestBatchLine(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	k := in.key("pay", "card", "")
	contexts := []map[string]string{{"tenant": "a"}, {"tenant": "b"}, {"tenant": "a"}, nil}
	var operations []Operation
	for _, c := range contexts {
		operations = append(operations, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x"), Binding: Binding{Context: c}})
	}
	wrong := in.encrypt("pay", "card", "x")
	operations = append(operations, &DecryptRequest{Namespace: "pay", Ciphertext: wrong, Binding: Binding{Context: contexts[1]}})
	call := admin()
	must[[]Result](t)(in.Batch(t.Context(), call, operations))
	entries := in.entries(audit.Filter{RequestID: call.RequestID})
	if len(entries) != 1 {
		t.Fatalf("%d lines", len(entries))
	}
	want := []audit.BatchCount{
		{Action: "Encrypt", Namespace: "pay", Key: "card", KeyID: uint64(k.ID), Version: 1, OK: 4, ContextHashes: []string{hashOf(t, contexts[0]), hashOf(t, contexts[1])}},
		{Action: "Decrypt", Namespace: "pay", Key: "card", KeyID: uint64(k.ID), Version: 1, Failed: 1, ContextHashes: []string{hashOf(t, contexts[1])}},
	}
	if e := entries[0]; !reflect.DeepEqual(e.Batch, want) || e.Action != "Batch" || e.Outcome != "OK" || e.EncryptionContext != nil {
		t.Errorf("the line is %+v, want %+v", e, want)
	}
	line := string(entries[0].AppendJSON(nil))
	if strings.Contains(line, "tenant") {
		t.Errorf("the line has the contexts themselves: %s", line)
	}
}

func hashOf(t *testing.T, encryptionContext map[string]string) string {
	sum := sha256.Sum256(must[[]byte](t)(keyring.CanonicalContext(encryptionContext)))
	return hex.EncodeToString(sum[:])
}

// Denials and changes are on disk before their answer; uses and batches of
// permitted uses are by the log's interval.
func TestWhatIsSynced(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice(), log: audit.Options{Interval: time.Hour}}
	in.initialize(InitOptions{DevMode: true, Policies: testPolicies})
	in.open()
	defer in.close()
	in.namespace("pay")
	in.key("pay", "card", "")
	use := func(namespace string) Operation {
		return &EncryptRequest{Namespace: namespace, Key: "card", Plaintext: []byte("x")}
	}
	batch := func(operations ...Operation) func() {
		return func() { must[[]Result](t)(in.Batch(t.Context(), appCall(), operations)) }
	}
	for _, c := range []struct {
		name   string
		synced bool
		do     func()
	}{
		{"use", false, func() { in.encrypt("pay", "card", "x") }},
		{"denied use", true, func() { in.do(t.Context(), as(policy.User, "nobody"), use("pay")) }},
		{"batch", false, batch(use("pay"), use("pay"))},
		{"batch with a denied item", true, batch(use("pay"), use("elsewhere"), use("pay"))},
		{"change", true, func() { in.key("pay", "new", "") }},
		{"token", true, func() { must[NewToken](t)(in.CreateToken(t.Context(), admin(), CreateTokenRequest{Principal: "app"})) }},
		{"read", false, func() { must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})) }},
	} {
		before := in.audit.Next()
		c.do()
		stats := in.audit.Stats()
		if synced := stats.Synced == in.audit.Next(); synced != c.synced || in.audit.Next() == before {
			t.Errorf("%s: %d of %d lines are synced", c.name, stats.Synced, in.audit.Next())
		}
	}
}

// A batch whose context ends fails its remaining items, and is still recorded.
func TestBatchWithinDeadline(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.encrypt("pay", "card", "x") // from now on without the store
	ctx, cancel := context.WithCancel(t.Context())
	call := admin()
	results, err := in.Batch(ctx, call, []Operation{
		&cancelling{&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}, cancel},
		&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")},
	})
	if err != nil || results[0].Err != nil || CodeOf(results[1].Err) != Canceled {
		t.Errorf("results = %+v, %v", results, err)
	}
	if n := len(in.entries(audit.Filter{RequestID: call.RequestID})); n != 1 {
		t.Errorf("the batch has %d lines", n)
	}
}

// cancelling is an operation during which its caller goes away.
type cancelling struct {
	*EncryptRequest
	cancel func()
}

func (c *cancelling) operation() op {
	c.cancel()
	return c.EncryptRequest.operation()
}
