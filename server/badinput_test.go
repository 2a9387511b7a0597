package server_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

func details(s *status.Status) (info *errdetails.ErrorInfo, field string) {
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.BadRequest:
			field = d.FieldViolations[0].Field
		}
	}
	return info, field
}

// TestBadRequests is what a caller with every right gets for what is wrong.
func TestBadRequests(t *testing.T) {
	h := newHarness(t, nil)
	c := h.prepare()
	x, k, ctx := pb.NewCryptoClient(c), pb.NewKeysClient(c), t.Context()
	must[*pb.Key](t)(k.CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "other"}))
	must[*pb.Key](t)(k.CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: "sign", Algorithm: "ED25519"}))
	old := must[*pb.EncryptResponse](t)(x.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("4111")})).Ciphertext
	must[*pb.KeyVersion](t)(k.RotateKey(ctx, &pb.RotateKeyRequest{Namespace: "app", Key: "card"}))
	must[*pb.KeyVersion](t)(k.DisableVersion(ctx, &pb.DisableVersionRequest{Namespace: "app", Key: "card", Version: 1}))
	good := must[*pb.EncryptResponse](t)(x.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("4111"), Aad: []byte("a")})).Ciphertext

	encrypt := func(q *pb.EncryptRequest) func() error {
		return func() error { _, err := x.Encrypt(ctx, q); return err }
	}
	decrypt := func(q *pb.DecryptRequest) func() error {
		return func() error { _, err := x.Decrypt(ctx, q); return err }
	}
	create := func(q *pb.CreateKeyRequest) func() error {
		return func() error { _, err := k.CreateKey(ctx, q); return err }
	}
	for name, c := range map[string]struct {
		call  func() error
		code  codes.Code
		field string // of the violation
		says  string
	}{
		"unknown key":         {encrypt(&pb.EncryptRequest{Namespace: "app", Key: "nokey"}), codes.NotFound, "", "nokey"},
		"unknown namespace":   {encrypt(&pb.EncryptRequest{Namespace: "nospace", Key: "card"}), codes.NotFound, "", "nospace"},
		"no namespace":        {encrypt(&pb.EncryptRequest{Key: "card"}), codes.InvalidArgument, "namespace", "empty"},
		"no key":              {encrypt(&pb.EncryptRequest{Namespace: "app"}), codes.InvalidArgument, "key", "empty"},
		"dots":                {encrypt(&pb.EncryptRequest{Namespace: "app", Key: ".."}), codes.InvalidArgument, "key", "letters"},
		"slash":               {encrypt(&pb.EncryptRequest{Namespace: "app", Key: "a/b"}), codes.InvalidArgument, "key", "letters"},
		"control character":   {encrypt(&pb.EncryptRequest{Namespace: "app", Key: "a\x00b"}), codes.InvalidArgument, "key", "letters"},
		"long name":           {create(&pb.CreateKeyRequest{Namespace: "app", Key: strings.Repeat("a", 64)}), codes.InvalidArgument, "key", "63"},
		"wrong purpose":       {encrypt(&pb.EncryptRequest{Namespace: "app", Key: "sign"}), codes.FailedPrecondition, "", "SIGN_VERIFY"},
		"unknown purpose":     {create(&pb.CreateKeyRequest{Namespace: "app", Key: "n", Purpose: 99}), codes.InvalidArgument, "purpose", "99"},
		"unknown algorithm":   {create(&pb.CreateKeyRequest{Namespace: "app", Key: "n", Algorithm: "ROT13"}), codes.InvalidArgument, "algorithm", "ROT13"},
		"purpose not its own": {create(&pb.CreateKeyRequest{Namespace: "app", Key: "n", Algorithm: "ED25519", Purpose: pb.Purpose_MAC}), codes.InvalidArgument, "algorithm", "SIGN_VERIFY"},
		"existing key":        {create(&pb.CreateKeyRequest{Namespace: "app", Key: "card"}), codes.AlreadyExists, "key", "card"},
		"AAD and context":     {encrypt(&pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x"), Aad: []byte("a"), EncryptionContext: map[string]string{"a": "b"}}), codes.InvalidArgument, "aad", "context"},
		"AAD too large":       {encrypt(&pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x"), Aad: make([]byte, 64<<10+1)}), codes.InvalidArgument, "aad", "65536"},
		"wrong AAD":           {decrypt(&pb.DecryptRequest{Namespace: "app", Ciphertext: good, Aad: []byte("b")}), codes.InvalidArgument, "", "decryption failed"},
		"AAD left out":        {decrypt(&pb.DecryptRequest{Namespace: "app", Ciphertext: good}), codes.InvalidArgument, "", "decryption failed"},
		"another key":         {decrypt(&pb.DecryptRequest{Namespace: "app", Key: "other", Ciphertext: good, Aad: []byte("a")}), codes.InvalidArgument, "", "decryption failed"},
		"disabled version":    {decrypt(&pb.DecryptRequest{Namespace: "app", Ciphertext: old}), codes.FailedPrecondition, "", "DISABLED"},
		"empty ciphertext":    {decrypt(&pb.DecryptRequest{Namespace: "app"}), codes.InvalidArgument, "", "decryption failed"},
		"bad duration": {func() error {
			_, err := k.DeleteKey(ctx, &pb.DeleteKeyRequest{Namespace: "app", Key: "card", Delay: &durationpb.Duration{Seconds: 1, Nanos: -1}})
			return err
		}, codes.InvalidArgument, "delay", "duration"},
		"negative delay": {func() error {
			_, err := k.DeleteKey(ctx, &pb.DeleteKeyRequest{Namespace: "app", Key: "card", Delay: durationpb.New(-1)})
			return err
		}, codes.InvalidArgument, "delay", "delay"},
		"negative page": {func() error {
			_, err := k.ListKeys(ctx, &pb.ListKeysRequest{Namespace: "app", PageSize: -1})
			return err
		}, codes.InvalidArgument, "page_size", "1000"},
		"bad page token": {func() error {
			_, err := pb.NewAuditClient(c).ListEntries(ctx, &pb.ListEntriesRequest{PageToken: "x"})
			return err
		}, codes.InvalidArgument, "page_token", "page_token"},
		"bad key id": {func() error {
			_, err := k.RestoreKey(ctx, &pb.RestoreKeyRequest{Namespace: "app", KeyId: "zz"})
			return err
		}, codes.InvalidArgument, "key_id", "16"},
		"signature format": {func() error {
			_, err := x.Sign(ctx, &pb.SignRequest{Namespace: "app", Key: "sign", Message: []byte("m"), Format: 256})
			return err
		}, codes.InvalidArgument, "format", "DER"},
		"data key too long": {func() error {
			_, err := x.GenerateDataKey(ctx, &pb.GenerateDataKeyRequest{Namespace: "app", Key: "card", NumBytes: 1 << 31})
			return err
		}, codes.InvalidArgument, "num_bytes", "1024"},
		"no randomness": {func() error {
			_, err := x.GenerateRandom(ctx, &pb.GenerateRandomRequest{Namespace: "app"})
			return err
		}, codes.InvalidArgument, "num_bytes", "65536"},
		"empty batch": {func() error {
			_, err := x.Batch(ctx, &pb.BatchRequest{Namespace: "app"})
			return err
		}, codes.InvalidArgument, "operations", "10000"},
		"policy that does not parse": {func() error {
			_, err := pb.NewPoliciesClient(c).PutPolicy(ctx, &pb.PutPolicyRequest{Name: "p", Text: "permit"})
			return err
		}, codes.InvalidArgument, "text", "text"},
		"token for too long": {func() error {
			_, err := pb.NewTokensClient(c).CreateToken(ctx, &pb.CreateTokenRequest{Principal: "p", Ttl: durationpb.New(1 << 60)})
			return err
		}, codes.InvalidArgument, "ttl", "24h"},
		"token for no time": {func() error {
			_, err := pb.NewTokensClient(c).CreateToken(ctx, &pb.CreateTokenRequest{Principal: "p", Ttl: durationpb.New(0)})
			return err
		}, codes.InvalidArgument, "ttl", "60s or more"},
	} {
		s := status.Convert(c.call())
		info, field := details(s)
		if s.Code() != c.code || !strings.Contains(s.Message(), c.says) || field != c.field || info.GetReason() == "" || info.GetDomain() != "keywright" || info.GetMetadata()["request_id"] == "" {
			t.Errorf("%s: %s %q, field %q, %v; want %s about field %q saying %q", name, s.Code(), s.Message(), field, info, c.code, c.field, c.says)
		}
	}
	if strings.Contains(h.log.String(), "level=ERROR") {
		t.Errorf("a caller's mistakes are logged as the server's errors:\n%s", h.log)
	}
}

// TestDamagedCiphertexts flips each bit pattern's byte and cuts at each length.
func TestDamagedCiphertexts(t *testing.T) {
	h := newHarness(t, nil)
	x := pb.NewCryptoClient(h.prepare())
	sealed := must[*pb.EncryptResponse](t)(x.Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("4111")})).Ciphertext
	refused := func(what string, i int, ciphertext []byte) {
		t.Helper()
		r, err := x.Decrypt(t.Context(), &pb.DecryptRequest{Namespace: "app", Ciphertext: ciphertext})
		if code := status.Code(err); r != nil || code != codes.InvalidArgument && code != codes.NotFound {
			t.Errorf("%s %d: %v, %v", what, i, r, err)
		}
		if strings.Contains(status.Convert(err).Message(), "4111") {
			t.Errorf("%s %d: the error shows plaintext", what, i)
		}
	}
	for i := range sealed {
		flipped := slices.Clone(sealed)
		flipped[i] ^= 0x80
		refused("flipped at", i, flipped)
		refused("cut at", i, sealed[:i])
	}
	refused("longer by", 1, append(slices.Clone(sealed), 0))
}

// rawCodec sends bytes as they are, to make messages that no client library does.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}
func (rawCodec) Name() string { return "proto" }

func TestBrokenMessages(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.MaxMessageBytes = 1 << 20 })
	c := h.prepare()
	call := func(message []byte) *status.Status {
		var out []byte
		return status.Convert(c.Invoke(t.Context(), pb.Crypto_Encrypt_FullMethodName, message, &out, grpc.ForceCodec(rawCodec{})))
	}
	for name, message := range map[string][]byte{
		"not protobuf":     {0xff, 0xff, 0xff},
		"name not UTF-8":   {0x0a, 2, 'a', 0xff},
		"length too large": {0x1a, 0xff, 0xff, 0x03, 1},
	} {
		s := call(message)
		if info, _ := details(s); s.Code() != codes.InvalidArgument || info.GetReason() != "INVALID_MESSAGE" {
			t.Errorf("%s: %v", name, s)
		}
	}
	s := call(must[[]byte](t)(proto.Marshal(&pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: make([]byte, 1<<20)})))
	if s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "1048576") {
		t.Errorf("too large: %v", s)
	}
	unknown := append(must[[]byte](t)(proto.Marshal(&pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")})), 0xf8, 0x07, 1)
	if s := call(unknown); s.Code() != codes.OK {
		t.Errorf("an unknown field of a later client: %v", s)
	}
}

func TestBadREST(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.MaxMessageBytes = 1 << 20 })
	h.prepare()
	r := h.client(h.admin())
	const encrypt = "/v1/namespaces/app/keys/card:encrypt"
	for _, c := range []struct {
		method, path, body string
		status             int
		reason, field      string
	}{
		{"POST", encrypt, `{"plaintext":`, 400, "INVALID_JSON", ""},
		{"POST", encrypt, `{"plaintext":"AA=="} {}`, 400, "INVALID_JSON", ""},
		{"POST", encrypt, `[]`, 400, "INVALID_JSON", ""},
		{"POST", encrypt, `{"plaintxt":"AA=="}`, 400, "INVALID_JSON", "plaintxt"},
		{"POST", encrypt, `{"plaintext":7}`, 400, "INVALID_JSON", "plaintext"},
		{"POST", encrypt, `{"plaintext":"hello world"}`, 400, "INVALID_JSON", "plaintext"},
		{"POST", encrypt, `{"plaintext":"AA==","plaintext":"AA=="}`, 400, "INVALID_JSON", ""},
		{"POST", encrypt, `{"encryptionContext":{"a":1}}`, 400, "INVALID_JSON", "encryptionContext"},
		{"POST", encrypt, "{\"encryptionContext\":{\"a\":\"\xff\"}}", 400, "INVALID_JSON", "encryptionContext"},
		{"POST", "/v1/namespaces/app/keys/card:sign", `{"format":"PEM"}`, 400, "INVALID_JSON", "format"},
		{"POST", "/v1/namespaces/app/keys/card:generateDataKey", `{"numBytes":-1}`, 400, "INVALID_JSON", "numBytes"},
		{"POST", "/v1/namespaces/app/keys", `{"key":"n","rotation":{"period":"x"}}`, 400, "INVALID_JSON", "rotation.period"},
		{"POST", "/v1/namespaces/app/keys", `{"key":"n","rotation":{"perod":"1s"}}`, 400, "INVALID_JSON", "rotation.perod"},
		{"POST", "/v1/namespaces/app:batch", `{"operations":7}`, 400, "INVALID_JSON", "operations"},
		{"POST", encrypt + "?aad=AA==", `{}`, 400, "UNEXPECTED_QUERY", ""},
		{"GET", "/v1/namespaces/app/keys?nosuch=1", ``, 400, "UNKNOWN_PARAMETER", "nosuch"},
		{"GET", "/v1/namespaces/app/keys?pageSize=many", ``, 400, "INVALID_ARGUMENT", ""},
		{"DELETE", "/v1/namespaces/app/keys/card", `{"delay":"0s"}`, 400, "UNEXPECTED_BODY", ""},
		{"POST", "/v1/namespaces/app/keys/..:encrypt", `{}`, 400, "INVALID_FIELD", "key"},
		{"POST", "/v1/namespaces/../keys/card:encrypt", `{}`, 400, "INVALID_FIELD", "namespace"},
		{"POST", "/v1/namespaces/app/keys/a%2Fb:encrypt", `{}`, 400, "INVALID_FIELD", "key"},
		{"POST", "/v1/namespaces/app/keys/a%00b:encrypt", `{}`, 400, "INVALID_FIELD", "key"},
		{"POST", "/v1/namespaces/app/keys/a%FFb:encrypt", `{}`, 400, "INVALID_FIELD", "key"},
		{"GET", "/v1/namespaces/app/keys/%2e%2e", ``, 400, "INVALID_FIELD", "key"},
		{"GET", "/v1/namespaces/app/keys/" + strings.Repeat("a", 64), ``, 400, "INVALID_FIELD", "key"},
		{"GET", "/v1/namespaces/app/keys/card/versions/one", ``, 400, "INVALID_ARGUMENT", ""},
		{"POST", "/v1/namespaces/app/keys/nokey:encrypt", `{}`, 404, "", ""},
		{"POST", "/v1/namespaces/app/keys/card:fly", `{}`, 404, "NO_SUCH_PATH", ""},
		{"GET", "/nosuch", ``, 404, "NO_SUCH_PATH", ""},
		{"POST", "/v1/status", `{}`, 405, "METHOD_NOT_ALLOWED", ""},
		{"POST", encrypt, `{"plaintext":"` + strings.Repeat("AAAA", 1<<18) + `"}`, 413, "MESSAGE_TOO_LARGE", ""},
	} {
		a := r.do(c.method, c.path, c.body, "X-Request-Id", "bad-1")
		if a.status != c.status || c.reason != "" && a.string("reason") != c.reason || a.string("field") != c.field ||
			a.string("requestId") != "bad-1" || a.string("message") == "" || a.string("status") == "" || a.header.Get("X-Request-Id") != "bad-1" {
			t.Errorf("%s %s %.60s: %d %s; want %d %s about %q", c.method, c.path, c.body, a.status, a.text, c.status, c.reason, c.field)
		}
		if strings.Contains(a.text, "hello world") {
			t.Errorf("%s: the error repeats the value: %s", c.body, a.text)
		}
	}
	a := r.do("POST", encrypt, `{}`, "Sec-Fetch-Site", "cross-site")
	if a.status != http.StatusForbidden || a.string("reason") != "CROSS_ORIGIN" {
		t.Errorf("from another site's page: %d %s", a.status, a.text)
	}
}

func TestRequestIDs(t *testing.T) {
	h := newHarness(t, nil)
	c := h.dial(h.admin())
	for given, kept := range map[string]bool{"abc-1": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, "a b": false, "": false} {
		var header metadata.MD
		_, err := pb.NewTokensClient(c).WhoAmI(withRequestID(t.Context(), given), &pb.WhoAmIRequest{}, grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		got := header.Get("x-request-id")
		if len(got) != 1 || (got[0] == given) != kept || got[0] == "" {
			t.Errorf("given %q, got %q", given, got)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		var header metadata.MD
		must[*pb.WhoAmIResponse](t)(pb.NewTokensClient(c).WhoAmI(t.Context(), &pb.WhoAmIRequest{}, grpc.Header(&header)))
		if id := header.Get("x-request-id")[0]; seen[id] || len(id) != 32 {
			t.Fatalf("id %q is not new or not whole", id)
		} else {
			seen[id] = true
		}
	}
}

// TestOperationsTellTheRequestIDWhenAsked: on the hot path it costs too much to be
// told to everybody.
func TestOperationsTellTheRequestIDWhenAsked(t *testing.T) {
	h := newHarness(t, nil)
	crypto := pb.NewCryptoClient(h.prepare())
	q := &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}
	tell := func(ctx context.Context, q *pb.EncryptRequest) []string {
		var header metadata.MD
		_, _ = crypto.Encrypt(ctx, q, grpc.Header(&header))
		return header.Get("x-request-id")
	}
	if told := tell(t.Context(), q); len(told) != 0 {
		t.Errorf("not asked, told %q", told)
	}
	if told := tell(withRequestID(t.Context(), "mine"), q); !slices.Equal(told, []string{"mine"}) {
		t.Errorf("named, told %q", told)
	}
	if told := tell(withRequestID(t.Context(), ""), q); len(told) != 1 || len(told[0]) != 32 {
		t.Errorf("asked without a name, told %q", told)
	}
	q.Key = ""
	if told := tell(t.Context(), q); len(told) != 1 || len(told[0]) != 32 {
		t.Errorf("after a failure, told %q", told)
	}
}

// TestExistenceIsNotRevealed compares what a caller without rights gets for what
// there is and for what there is not.
func TestExistenceIsNotRevealed(t *testing.T) {
	h := newHarness(t, nil)
	admin := pb.NewCryptoClient(h.prepare())
	sealed := must[*pb.EncryptResponse](t)(admin.Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")})).Ciphertext
	unknown := slices.Clone(sealed)
	unknown[1] ^= 0xff // another key's id
	outsider := identityOf{token: h.createToken("outsider")}
	c, r := h.dial(outsider), h.client(outsider)
	calls := map[string]func(ctx context.Context, exists bool) error{
		"Encrypt": func(ctx context.Context, exists bool) error {
			_, err := pb.NewCryptoClient(c).Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: either(exists, "card", "nokey")})
			return err
		},
		"Decrypt": func(ctx context.Context, exists bool) error {
			_, err := pb.NewCryptoClient(c).Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: either(exists, sealed, unknown)})
			return err
		},
		"GetKey": func(ctx context.Context, exists bool) error {
			_, err := pb.NewKeysClient(c).GetKey(ctx, &pb.GetKeyRequest{Namespace: either(exists, "app", "nospace"), Key: "card"})
			return err
		},
		"CreateKey": func(ctx context.Context, exists bool) error {
			_, err := pb.NewKeysClient(c).CreateKey(ctx, &pb.CreateKeyRequest{Namespace: "app", Key: either(exists, "card", "nokey")})
			return err
		},
		"GetNamespace": func(ctx context.Context, exists bool) error {
			_, err := pb.NewNamespacesClient(c).GetNamespace(ctx, &pb.GetNamespaceRequest{Namespace: either(exists, "app", "nospace")})
			return err
		},
	}
	for name, call := range calls {
		ctx := withRequestID(t.Context(), "same")
		there, absent := call(ctx, true), call(ctx, false)
		if a, b := status.Convert(there), status.Convert(absent); a.Code() != codes.PermissionDenied || !proto.Equal(a.Proto(), b.Proto()) {
			t.Errorf("%s: %v for what exists, %v for what does not", name, a, b)
		}
	}
	there := r.do("POST", "/v1/namespaces/app/keys/card:encrypt", `{}`, "X-Request-Id", "same")
	absent := r.do("POST", "/v1/namespaces/app/keys/nokey:encrypt", `{}`, "X-Request-Id", "same")
	if there.status != http.StatusForbidden || absent.status != there.status || there.text != absent.text {
		t.Errorf("REST: %d %s for what exists, %d %s for what does not", there.status, there.text, absent.status, absent.text)
	}
}

func either[V any](first bool, a, b V) V {
	if first {
		return a
	}
	return b
}
