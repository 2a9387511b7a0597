package server_test

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// recorder notes which methods a client has called with success.
type recorder struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (r *recorder) note(method string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen[method] = true
}

func (r *recorder) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, q, p any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
			err := invoke(ctx, method, q, p, c, o...)
			if err == nil {
				r.note(method)
			}
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, s grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			r.note(method)
			return s(ctx, d, c, method, o...)
		}),
	}
}

// TestEveryMethod calls each method of the API once, over gRPC and TLS.
func TestEveryMethod(t *testing.T) {
	h := newHarness(t, nil)
	r := &recorder{seen: map[string]bool{}}
	c := h.dial(h.admin(), r.options()...)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *grpc.ClientConn)
	}{
		{"namespaces", callNamespaces}, {"keys", callKeys}, {"encryption", callEncryption}, {"signing", callSigning},
		{"macs", callMACs}, {"asymmetric", callAsymmetric}, {"batch", callBatch}, {"pipeline", callPipeline},
		{"policies", callPolicies}, {"tokens", callTokens}, {"system", callSystem}, {"audit", callAudit}, {"roots", callRoots}, {"imports", callImports},
		{"vault", callVault},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, c) }) {
			return
		}
	}
	for _, file := range []protoreflect.FileDescriptor{pb.File_keywright_v1_crypto_proto, pb.File_keywright_v1_keys_proto, pb.File_keywright_v1_namespaces_proto,
		pb.File_keywright_v1_policies_proto, pb.File_keywright_v1_tokens_proto, pb.File_keywright_v1_audit_proto, pb.File_keywright_v1_system_proto, pb.File_keywright_v1_roots_proto} {
		services := file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				if name := "/" + string(services.Get(i).FullName()) + "/" + string(methods.Get(j).Name()); !r.seen[name] {
					t.Errorf("%s was not called with success", name)
				}
			}
		}
	}
}

func callNamespaces(t *testing.T, c *grpc.ClientConn) {
	n := pb.NewNamespacesClient(c)
	made := must[*pb.Namespace](t)(n.CreateNamespace(t.Context(), &pb.CreateNamespaceRequest{Namespace: "app", Labels: map[string]string{"team": "pay"}}))
	got := must[*pb.Namespace](t)(n.GetNamespace(t.Context(), &pb.GetNamespaceRequest{Namespace: "app"}))
	if !proto.Equal(made, got) || got.Labels["team"] != "pay" || len(got.Id) != 16 || got.CreateTime == nil {
		t.Errorf("made %v, got %v", made, got)
	}
	updated := must[*pb.Namespace](t)(n.UpdateNamespace(t.Context(), &pb.UpdateNamespaceRequest{Namespace: "app", Labels: &pb.Labels{}}))
	if len(updated.Labels) != 0 {
		t.Errorf("labels not replaced: %v", updated)
	}
	list := must[*pb.ListNamespacesResponse](t)(n.ListNamespaces(t.Context(), &pb.ListNamespacesRequest{}))
	if len(list.Namespaces) != 1 || list.Namespaces[0].Name != "app" {
		t.Errorf("list = %v", list)
	}
	callErasure(t, n)
}

func callErasure(t *testing.T, n pb.NamespacesClient) {
	rekeyed := must[*pb.Namespace](t)(n.RekeyNamespace(t.Context(), &pb.RekeyNamespaceRequest{Namespace: "app"}))
	for deadline := time.Now().Add(time.Minute); rekeyed.Rekey.GetEndTime() == nil && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		rekeyed = must[*pb.Namespace](t)(n.GetNamespace(t.Context(), &pb.GetNamespaceRequest{Namespace: "app"}))
	}
	if rekeyed.Generation != 2 || rekeyed.Rekey.GetFromGeneration() != 1 || rekeyed.Rekey.GetEndTime() == nil {
		t.Errorf("rekeyed: %v", rekeyed)
	}
	erased := must[*pb.Namespace](t)(n.ConfirmErasure(t.Context(), &pb.ConfirmErasureRequest{Namespace: "app", Generation: 1}))
	if erased.ErasedGeneration != 1 || erased.EraseTime == nil {
		t.Errorf("erased: %v", erased)
	}
	deleted := must[*pb.Namespace](t)(n.DeleteNamespace(t.Context(), &pb.DeleteNamespaceRequest{Namespace: "app"}))
	if deleted.State != pb.NamespaceState_NAMESPACE_DELETE_SCHEDULED || deleted.DestroyTime == nil {
		t.Errorf("deleted: %v", deleted)
	}
	restored := must[*pb.Namespace](t)(n.RestoreNamespace(t.Context(), &pb.RestoreNamespaceRequest{Namespace: "app"}))
	if restored.State != pb.NamespaceState_NAMESPACE_ACTIVE || restored.DestroyTime != nil {
		t.Errorf("restored: %v", restored)
	}
}

func callKeys(t *testing.T, c *grpc.ClientConn) {
	k, ctx := pb.NewKeysClient(c), t.Context()
	made := must[*pb.Key](t)(k.CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "card", Purpose: pb.Purpose_ENCRYPT_DECRYPT,
		Labels: map[string]string{"a": "b"}, Rotation: &pb.RotationPolicy{Period: durationpb.New(24 * time.Hour)}}))
	if made.Algorithm != "XAES_256_GCM" || made.ProtectionLevel != pb.ProtectionLevel_SOFTWARE || made.State != pb.KeyState_ACTIVE || made.NextRotationTime == nil {
		t.Errorf("made %v", made)
	}
	must[*pb.Key](t)(k.UpdateKey(ctx, &pb.UpdateKeyRequest{Namespace: "app", Key: "card", Rotation: &pb.RotationPolicy{MaxUses: 1000}}))
	got := must[*pb.Key](t)(k.GetKey(ctx, &pb.GetKeyRequest{Namespace: "app", Key: "card"}))
	if got.Rotation.GetMaxUses() != 1000 || got.Rotation.Period != nil || got.Labels["a"] != "b" {
		t.Errorf("after UpdateKey: %v", got)
	}
	v2 := must[*pb.KeyVersion](t)(k.RotateKey(ctx, &pb.RotateKeyRequest{Namespace: "app", Key: "card", IdempotencyKey: "once"}))
	again := must[*pb.KeyVersion](t)(k.RotateKey(ctx, &pb.RotateKeyRequest{Namespace: "app", Key: "card", IdempotencyKey: "once"}))
	if v2.Version != 2 || !v2.Primary || again.Version != 2 {
		t.Errorf("rotated to %v, again %v", v2, again)
	}
	must[*pb.Key](t)(k.SetPrimaryVersion(ctx, &pb.SetPrimaryVersionRequest{Namespace: "app", Key: "card", Version: 1}))
	must[*pb.KeyVersion](t)(k.DisableVersion(ctx, &pb.DisableVersionRequest{Namespace: "app", Key: "card", Version: 2}))
	must[*pb.KeyVersion](t)(k.EnableVersion(ctx, &pb.EnableVersionRequest{Namespace: "app", Key: "card", Version: 2}))
	destroyed := must[*pb.KeyVersion](t)(k.DestroyVersion(ctx, &pb.DestroyVersionRequest{Namespace: "app", Key: "card", Version: 2, Delay: durationpb.New(48 * time.Hour)}))
	if destroyed.State != pb.VersionState_DESTROY_SCHEDULED || time.Until(destroyed.DestroyTime.AsTime()) > 48*time.Hour {
		t.Errorf("destroyed %v", destroyed)
	}
	must[*pb.KeyVersion](t)(k.RestoreVersion(ctx, &pb.RestoreVersionRequest{Namespace: "app", Key: "card", Version: 2}))
	v := must[*pb.KeyVersion](t)(k.GetVersion(ctx, &pb.GetVersionRequest{Namespace: "app", Key: "card", Version: 2}))
	if v.State != pb.VersionState_DISABLED || v.KeyId != made.Id {
		t.Errorf("version = %v", v)
	}
	if l := must[*pb.ListVersionsResponse](t)(k.ListVersions(ctx, &pb.ListVersionsRequest{Namespace: "app", Key: "card", PageSize: 1})); len(l.Versions) != 1 || l.NextPageToken == "" {
		t.Errorf("versions = %v", l)
	}
	deleted := must[*pb.Key](t)(k.DeleteKey(ctx, &pb.DeleteKeyRequest{Namespace: "app", Key: "card"}))
	if deleted.State != pb.KeyState_DELETE_SCHEDULED {
		t.Errorf("deleted %v", deleted)
	}
	must[*pb.Key](t)(k.RestoreKey(ctx, &pb.RestoreKeyRequest{Namespace: "app", KeyId: made.Id}))
	if l := must[*pb.ListKeysResponse](t)(k.ListKeys(ctx, &pb.ListKeysRequest{Namespace: "app", Labels: map[string]string{"a": "b"}})); len(l.Keys) != 1 {
		t.Errorf("keys = %v", l)
	}
}

func callEncryption(t *testing.T, c *grpc.ClientConn) {
	x, ctx := pb.NewCryptoClient(c), t.Context()
	bound := map[string]string{"invoice": "7"}
	sealed := must[*pb.EncryptResponse](t)(x.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("4111"), EncryptionContext: bound}))
	again := must[*pb.ReEncryptResponse](t)(x.ReEncrypt(ctx, &pb.ReEncryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext, EncryptionContext: bound, DestinationAad: []byte("aad")}))
	if again.SourceKey != "card" || again.DestinationVersion != 1 {
		t.Errorf("re-encrypted: %v", again)
	}
	opened := must[*pb.DecryptResponse](t)(x.Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: again.Ciphertext, Aad: []byte("aad")}))
	if string(opened.Plaintext) != "4111" {
		t.Errorf("opened %q", opened.Plaintext)
	}
	dek := must[*pb.GenerateDataKeyResponse](t)(x.GenerateDataKey(ctx, &pb.GenerateDataKeyRequest{Namespace: "app", Key: "card", NumBytes: 64}))
	if len(dek.Plaintext) != 64 {
		t.Errorf("data key of %d bytes", len(dek.Plaintext))
	}
	pair := must[*pb.GenerateDataKeyPairResponse](t)(x.GenerateDataKeyPair(ctx, &pb.GenerateDataKeyPairRequest{Namespace: "app", Key: "card", Algorithm: "ED25519", OmitPlaintext: true}))
	if _, err := x509.ParsePKIXPublicKey(pair.PublicKey); err != nil || pair.PrivateKey != nil || len(pair.PrivateKeyCiphertext) == 0 {
		t.Errorf("pair: %v, %v", pair, err)
	}
	if random := must[*pb.GenerateRandomResponse](t)(x.GenerateRandom(ctx, &pb.GenerateRandomRequest{Namespace: "app", NumBytes: 33})); len(random.Data) != 33 {
		t.Errorf("random of %d bytes", len(random.Data))
	}
}

func callSigning(t *testing.T, c *grpc.ClientConn) {
	x, ctx := pb.NewCryptoClient(c), t.Context()
	must[*pb.Key](t)(pb.NewKeysClient(c).CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "sign", Purpose: pb.Purpose_SIGN_VERIFY}))
	digest := sha256.Sum256([]byte("message"))
	for _, format := range []pb.SignatureFormat{pb.SignatureFormat_DER, pb.SignatureFormat_RAW, pb.SignatureFormat_JWS} {
		signed := must[*pb.SignResponse](t)(x.Sign(ctx, &pb.SignRequest{Namespace: "app", Key: "sign", Message: []byte("message"), Format: format}))
		ok := must[*pb.VerifyResponse](t)(x.Verify(ctx, &pb.VerifyRequest{Namespace: "app", Key: "sign", Digest: digest[:], Signature: signed.Signature, Format: format}))
		bad := must[*pb.VerifyResponse](t)(x.Verify(ctx, &pb.VerifyRequest{Namespace: "app", Key: "sign", Message: []byte("other"), Signature: signed.Signature, Format: format}))
		if !ok.Valid || bad.Valid {
			t.Errorf("%s: valid %v for the message, %v for another", format, ok.Valid, bad.Valid)
		}
	}
	public := must[*pb.GetPublicKeyResponse](t)(x.GetPublicKey(ctx, &pb.GetPublicKeyRequest{Namespace: "app", Key: "sign"}))
	if !strings.HasPrefix(public.Pem, "-----BEGIN PUBLIC KEY-----") || !strings.Contains(public.Jwk, `"kid"`) {
		t.Errorf("public key = %v", public)
	}
}

func callMACs(t *testing.T, c *grpc.ClientConn) {
	x, ctx := pb.NewCryptoClient(c), t.Context()
	must[*pb.Key](t)(pb.NewKeysClient(c).CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "mac", Purpose: pb.Purpose_MAC}))
	made := must[*pb.GenerateMacResponse](t)(x.GenerateMac(ctx, &pb.GenerateMacRequest{Namespace: "app", Key: "mac", Message: []byte("m")}))
	ok := must[*pb.VerifyMacResponse](t)(x.VerifyMac(ctx, &pb.VerifyMacRequest{Namespace: "app", Key: "mac", Message: []byte("m"), Mac: made.Mac}))
	if !ok.Valid {
		t.Error("the MAC is not valid")
	}
}

func callAsymmetric(t *testing.T, c *grpc.ClientConn) {
	x, k, ctx := pb.NewCryptoClient(c), pb.NewKeysClient(c), t.Context()
	must[*pb.Key](t)(k.CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "rsa", Algorithm: "RSA_OAEP_2048_SHA256"}))
	public := must[*pb.GetPublicKeyResponse](t)(x.GetPublicKey(ctx, &pb.GetPublicKeyRequest{Namespace: "app", Key: "rsa"}))
	block, _ := pem.Decode([]byte(public.Pem))
	key := must[any](t)(x509.ParsePKIXPublicKey(block.Bytes)).(*rsa.PublicKey)
	sealed := must[[]byte](t)(rsa.EncryptOAEP(sha256.New(), rand.Reader, key, []byte("hello"), nil))
	opened := must[*pb.AsymmetricDecryptResponse](t)(x.AsymmetricDecrypt(ctx, &pb.AsymmetricDecryptRequest{Namespace: "app", Key: "rsa", Ciphertext: sealed}))
	if string(opened.Plaintext) != "hello" {
		t.Errorf("opened %q", opened.Plaintext)
	}
	must[*pb.Key](t)(k.CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "ecdh", Algorithm: "X25519"}))
	peer := must[*ecdh.PrivateKey](t)(ecdh.X25519().GenerateKey(rand.Reader))
	secret := must[*pb.DeriveSharedSecretResponse](t)(x.DeriveSharedSecret(ctx, &pb.DeriveSharedSecretRequest{Namespace: "app", Key: "ecdh", PeerPublicKey: peer.PublicKey().Bytes()}))
	if len(secret.SharedSecret) != 32 {
		t.Errorf("secret of %d bytes", len(secret.SharedSecret))
	}
}

// operations is one of each kind that can be made without another's answer.
func operations(sealed, mac, signature []byte) []*pb.Operation {
	return []*pb.Operation{
		{Request: &pb.Operation_Encrypt{Encrypt: &pb.EncryptRequest{Plaintext: []byte("x")}}},
		{Request: &pb.Operation_Decrypt{Decrypt: &pb.DecryptRequest{Ciphertext: sealed}}},
		{Request: &pb.Operation_ReEncrypt{ReEncrypt: &pb.ReEncryptRequest{Ciphertext: sealed}}},
		{Request: &pb.Operation_GenerateDataKey{GenerateDataKey: &pb.GenerateDataKeyRequest{}}},
		{Request: &pb.Operation_GenerateDataKeyPair{GenerateDataKeyPair: &pb.GenerateDataKeyPairRequest{Algorithm: "ED25519"}}},
		{Request: &pb.Operation_GenerateRandom{GenerateRandom: &pb.GenerateRandomRequest{NumBytes: 1}}},
		{Request: &pb.Operation_Sign{Sign: &pb.SignRequest{Namespace: "app", Key: "sign", Message: []byte("m")}}},
		{Request: &pb.Operation_Verify{Verify: &pb.VerifyRequest{Namespace: "app", Key: "sign", Message: []byte("m"), Signature: signature}}},
		{Request: &pb.Operation_GenerateMac{GenerateMac: &pb.GenerateMacRequest{Namespace: "app", Key: "mac", Message: []byte("m")}}},
		{Request: &pb.Operation_VerifyMac{VerifyMac: &pb.VerifyMacRequest{Namespace: "app", Key: "mac", Message: []byte("m"), Mac: mac}}},
		{Request: &pb.Operation_AsymmetricDecrypt{AsymmetricDecrypt: &pb.AsymmetricDecryptRequest{Namespace: "app", Key: "rsa", Ciphertext: []byte("bad")}}},
		{Request: &pb.Operation_DeriveSharedSecret{DeriveSharedSecret: &pb.DeriveSharedSecretRequest{Namespace: "app", Key: "ecdh", PeerPublicKey: []byte("bad")}}},
		{Request: &pb.Operation_GetPublicKey{GetPublicKey: &pb.GetPublicKeyRequest{Namespace: "app", Key: "sign"}}},
		{},
	}
}

// kindOf is the name of a result's response, "error" for an error.
func kindOf(r *pb.OperationResult) string {
	m := r.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("result")); f != nil {
		return string(f.Name())
	}
	return ""
}

var wantKinds = strings.Fields("encrypt decrypt re_encrypt generate_data_key generate_data_key_pair generate_random sign verify generate_mac verify_mac error error get_public_key error")

func sealedAndMAC(t *testing.T, x pb.CryptoClient) (sealed, mac, signature []byte) {
	ctx := t.Context()
	return must[*pb.EncryptResponse](t)(x.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")})).Ciphertext,
		must[*pb.GenerateMacResponse](t)(x.GenerateMac(ctx, &pb.GenerateMacRequest{Namespace: "app", Key: "mac", Message: []byte("m")})).Mac,
		must[*pb.SignResponse](t)(x.Sign(ctx, &pb.SignRequest{Namespace: "app", Key: "sign", Message: []byte("m")})).Signature
}

func callBatch(t *testing.T, c *grpc.ClientConn) {
	x := pb.NewCryptoClient(c)
	sealed, mac, signature := sealedAndMAC(t, x)
	r := must[*pb.BatchResponse](t)(x.Batch(t.Context(), &pb.BatchRequest{Namespace: "app", Key: "card", Operations: operations(sealed, mac, signature)}))
	for i, want := range wantKinds {
		if got := kindOf(r.Results[i]); got != want {
			t.Errorf("result %d is %s, want %s: %v", i, got, want, r.Results[i])
		}
	}
	if string(r.Results[1].GetDecrypt().GetPlaintext()) != "x" || !r.Results[7].GetVerify().GetValid() || !r.Results[9].GetVerifyMac().GetValid() {
		t.Errorf("results = %v", r)
	}
	if e := r.Results[13].GetError(); e.GetStatus() != "INVALID_ARGUMENT" || e.GetCode() != 3 {
		t.Errorf("empty operation: %v", e)
	}
}

func callPipeline(t *testing.T, c *grpc.ClientConn) {
	x := pb.NewCryptoClient(c)
	sealed, mac, signature := sealedAndMAC(t, x)
	all := operations(sealed, mac, signature)
	for _, o := range all[:6] { // a pipeline has no namespace to inherit
		name(o, "app", "card")
	}
	s := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(x.Pipeline(t.Context()))
	const rounds = 50
	go func() {
		for round := range rounds {
			for i, o := range all {
				_ = s.Send(&pb.PipelineRequest{Id: uint64(round*len(all) + i), Operation: o})
			}
		}
		_ = s.CloseSend()
	}()
	answered := map[uint64]bool{}
	for {
		r, err := s.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := wantKinds[r.Id%uint64(len(all))]; kindOf(r.Result) != want {
			t.Fatalf("answer %d is %s, want %s: %v", r.Id, kindOf(r.Result), want, r.Result)
		}
		answered[r.Id] = true
	}
	if len(answered) != rounds*len(all) {
		t.Errorf("%d answers to %d operations", len(answered), rounds*len(all))
	}
}

// name gives the operation's request a namespace and, if it has one, a key.
func name(o *pb.Operation, namespace, key string) {
	m := o.ProtoReflect()
	request := m.Mutable(m.WhichOneof(m.Descriptor().Oneofs().Get(0))).Message()
	for field, value := range map[protoreflect.Name]string{"namespace": namespace, "key": key} {
		if f := request.Descriptor().Fields().ByName(field); f != nil {
			request.Set(f, protoreflect.ValueOfString(value))
		}
	}
}

func callPolicies(t *testing.T, c *grpc.ClientConn) {
	p, ctx := pb.NewPoliciesClient(c), t.Context()
	text := `permit (principal == Token::"x", action == Action::"Encrypt", resource in Namespace::"app");`
	must[*pb.Policy](t)(p.PutPolicy(ctx, &pb.PutPolicyRequest{Namespace: "app", Name: "mine", Text: text}))
	got := must[*pb.Policy](t)(p.GetPolicy(ctx, &pb.GetPolicyRequest{Namespace: "app", Name: "mine"}))
	list := must[*pb.ListPoliciesResponse](t)(p.ListPolicies(ctx, &pb.ListPoliciesRequest{Namespace: "app"}))
	if got.Text != text || got.Revision == 0 || len(list.Policies) != 1 {
		t.Errorf("got %v, list %v", got, list)
	}
	must[*pb.DeletePolicyResponse](t)(p.DeletePolicy(ctx, &pb.DeletePolicyRequest{Namespace: "app", Name: "mine"}))
	callGroups(t, p)
	callExplanations(t, c)
}

func callGroups(t *testing.T, p pb.PoliciesClient) {
	ctx := t.Context()
	put := must[*pb.Group](t)(p.PutGroup(ctx, &pb.PutGroupRequest{Name: "ops", Members: []string{`User::"a"`}}))
	got := must[*pb.Group](t)(p.GetGroup(ctx, &pb.GetGroupRequest{Name: "ops"}))
	list := must[*pb.ListGroupsResponse](t)(p.ListGroups(ctx, &pb.ListGroupsRequest{}))
	if !proto.Equal(put, got) || len(list.Groups) != 1 || got.Revision == 0 || got.CreateTime == nil {
		t.Errorf("put %v, got %v, list %v", put, got, list)
	}
	must[*pb.DeleteGroupResponse](t)(p.DeleteGroup(ctx, &pb.DeleteGroupRequest{Name: "ops"}))
}

func callExplanations(t *testing.T, c *grpc.ClientConn) {
	p, ctx := pb.NewPoliciesClient(c), t.Context()
	supposed := &pb.SupposedRequest{Principal: `Token::"app"`, Action: "Sign", Namespace: "app", Key: "none"}
	explained := must[*pb.ExplainDecisionResponse](t)(p.ExplainDecision(ctx, &pb.ExplainDecisionRequest{
		Subject: &pb.ExplainDecisionRequest_Supposed{Supposed: supposed}}))
	if e := explained.Explanation; e.Decision != "deny" || e.Reason == "" || len(e.Policies) == 0 || e.Policies[0].FailedPart != "action" || explained.Now != nil {
		t.Errorf("explained as %v", explained)
	}
	text := `permit (principal == Token::"app", action == Action::"Sign", resource in Namespace::"app");`
	changes := []*pb.PolicyChange{{Namespace: "app", Name: "sign", Text: text}}
	tested := must[*pb.TestPoliciesResponse](t)(p.TestPolicies(ctx, &pb.TestPoliciesRequest{Requests: []*pb.SupposedRequest{supposed}, Changes: changes}))
	if len(tested.Explanations) != 1 || tested.Explanations[0].Decision != "allow" {
		t.Errorf("tested as %v", tested)
	}
	none := &pb.PolicyChange{Name: "none", Text: `forbid (principal == User::"local:CN=admin", action, resource in Namespace::"app");`}
	diff := must[*pb.DiffPoliciesResponse](t)(p.DiffPolicies(ctx, &pb.DiffPoliciesRequest{Changes: []*pb.PolicyChange{none}}))
	if len(diff.Changed) == 0 || diff.Changed[0].Before != "allow" || diff.Changed[0].After != "deny" || diff.Entries == 0 {
		t.Fatalf("difference %v", diff)
	}
	past := must[*pb.ExplainDecisionResponse](t)(p.ExplainDecision(ctx, &pb.ExplainDecisionRequest{
		Subject: &pb.ExplainDecisionRequest_Entry{Entry: diff.Changed[0].Entry}, Changes: []*pb.PolicyChange{none}}))
	if past.Explanation.Decision != "allow" || past.Now.GetDecision() != "deny" {
		t.Errorf("entry explained as %v", past)
	}
	who := must[*pb.ListPermittedResponse](t)(p.ListPermitted(ctx, &pb.ListPermittedRequest{Action: "Encrypt", Namespace: "app", Key: "none"}))
	if len(who.Permitted) != 3 || who.Permitted[1].Who != `Token::"app"` || who.Permitted[1].Policy.GetName() != "test" {
		t.Errorf("permitted: %v", who)
	}
}

func callTokens(t *testing.T, c *grpc.ClientConn) {
	tokens, ctx := pb.NewTokensClient(c), t.Context()
	made := must[*pb.CreateTokenResponse](t)(tokens.CreateToken(ctx, &pb.CreateTokenRequest{Principal: "app", Ttl: durationpb.New(time.Minute)}))
	if !strings.HasPrefix(made.Token, "kwt_") || made.Id == "" || made.ExpireTime == nil {
		t.Errorf("token with id %q", made.Id)
	}
	who := must[*pb.WhoAmIResponse](t)(tokens.WhoAmI(ctx, &pb.WhoAmIRequest{}))
	if who.Principal != `User::"local:CN=admin"` || who.Method != "mtls" || who.ExpireTime == nil {
		t.Errorf("I am %v", who)
	}
	revoked := must[*pb.RevokeTokensResponse](t)(tokens.RevokeTokens(ctx, &pb.RevokeTokensRequest{Id: made.Id}))
	listed := must[*pb.ListRevocationsResponse](t)(tokens.ListRevocations(ctx, &pb.ListRevocationsRequest{}))
	if len(listed.Revocations) != 1 || !proto.Equal(listed.Revocations[0], revoked.Revocation) || revoked.Revocation.Id != made.Id {
		t.Errorf("revoked %v, listed %v", revoked, listed)
	}
	lease := must[*pb.CreateTokenResponse](t)(tokens.CreateToken(ctx, &pb.CreateTokenRequest{Principal: "app", RenewableFor: durationpb.New(24 * time.Hour)}))
	renewed := must[*pb.RenewTokenResponse](t)(tokens.RenewToken(ctx, &pb.RenewTokenRequest{Ttl: durationpb.New(2 * time.Hour)}, grpc.PerRPCCredentials(bearer(lease.Token))))
	if !renewed.ExpireTime.AsTime().After(lease.ExpireTime.AsTime()) || !proto.Equal(renewed.RenewableUntil, lease.RenewableUntil) {
		t.Errorf("made %v to %v, renewed to %v", lease.ExpireTime, lease.RenewableUntil, renewed)
	}
}

func callSystem(t *testing.T, c *grpc.ClientConn) {
	s, ctx := pb.NewSystemClient(c), t.Context()
	status := must[*pb.Status](t)(s.GetStatus(ctx, &pb.GetStatusRequest{}))
	if status.Version != "test" || !status.Hsm.Healthy || !status.Audit.Healthy || !status.DevMode || status.Audit.SignerAlgorithm == "" {
		t.Errorf("status = %v", status)
	}
	algorithms := must[*pb.ListAlgorithmsResponse](t)(s.ListAlgorithms(ctx, &pb.ListAlgorithmsRequest{}))
	if len(algorithms.Algorithms) < 20 {
		t.Errorf("%d algorithms", len(algorithms.Algorithms))
	}
}

func callAudit(t *testing.T, c *grpc.ClientConn) {
	a := pb.NewAuditClient(c)
	first := must[*pb.ListEntriesResponse](t)(a.ListEntries(t.Context(), &pb.ListEntriesRequest{PageSize: 3}))
	next := must[*pb.ListEntriesResponse](t)(a.ListEntries(t.Context(), &pb.ListEntriesRequest{PageSize: 3, PageToken: first.NextPageToken}))
	if len(first.Entries) != 3 || len(next.Entries) != 3 || next.Entries[0].Sequence != first.Entries[2].Sequence+1 || !strings.HasPrefix(first.Entries[0].Line, `{"v":1,`) {
		t.Errorf("pages %v and %v", first, next)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tail := must[grpc.ServerStreamingClient[pb.AuditEntry]](t)(a.TailEntries(ctx, &pb.TailEntriesRequest{Backlog: 1, Filter: &pb.AuditFilter{Action: "GenerateRandom"}}))
	must[*pb.AuditEntry](t)(tail.Recv())
	must[*pb.GenerateRandomResponse](t)(pb.NewCryptoClient(c).GenerateRandom(withRequestID(t.Context(), "tailed"), &pb.GenerateRandomRequest{Namespace: "app", NumBytes: 1}))
	if e := must[*pb.AuditEntry](t)(tail.Recv()); !strings.Contains(e.Line, `"request_id":"tailed"`) {
		t.Errorf("tailed %s", e.Line)
	}
	known := must[*pb.GetCheckpointResponse](t)(a.GetCheckpoint(t.Context(), &pb.GetCheckpointRequest{}))
	size := must[checkpoint.Checkpoint](t)(checkpoint.Peek([]byte(known.Checkpoint))).Size
	rotated := must[*pb.RotateAuditKeyResponse](t)(a.RotateAuditKey(t.Context(), &pb.RotateAuditKeyRequest{IdempotencyKey: "audit-key"}))
	later := must[*pb.GetCheckpointResponse](t)(a.GetCheckpoint(t.Context(), &pb.GetCheckpointRequest{KnownSize: size}))
	if !strings.Contains(later.Keys, rotated.Key) || !strings.HasPrefix(later.Keys, known.Keys) {
		t.Errorf("rotated to %v; the log's keys were\n%sand are\n%s", rotated, known.Keys, later.Keys)
	}
	proved := must[*pb.ProveEntryResponse](t)(a.ProveEntry(t.Context(), &pb.ProveEntryRequest{Sequence: first.Entries[1].Sequence}))
	if proved.Entry.Line != first.Entries[1].Line || !strings.HasPrefix(proved.Proof, "c2sp.org/tlog-proof@v1\n") {
		t.Errorf("proved %v", proved)
	}
}
