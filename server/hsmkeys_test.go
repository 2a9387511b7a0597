package server_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// hsmAlgorithms are one of each purpose that SoftHSM2 can do.
var hsmAlgorithms = map[string]string{"cipher": "AES_256_GCM", "signer": "ECDSA_P256_SHA256", "edwards": "ED25519", "rsa": "RSA_PSS_2048_SHA256", "mac": "HMAC_SHA256", "agree": "ECDH_P256"}

// createHSMKeys makes a namespace with a key of each of hsmAlgorithms on the token.
func (h *harness) createHSMKeys(c *grpc.ClientConn) {
	h.t.Helper()
	must[*pb.Namespace](h.t)(pb.NewNamespacesClient(c).CreateNamespace(h.t.Context(), &pb.CreateNamespaceRequest{Namespace: "app"}))
	for name, algorithm := range hsmAlgorithms {
		k := must[*pb.Key](h.t)(pb.NewKeysClient(c).CreateKey(h.t.Context(), &pb.CreateKeyRequest{Namespace: "app", Key: name, Algorithm: algorithm, ProtectionLevel: pb.ProtectionLevel_HSM}))
		if k.ProtectionLevel != pb.ProtectionLevel_HSM || k.Algorithm != algorithm {
			h.t.Errorf("created %v", k)
		}
	}
}

func (h *harness) tokenKeys() int {
	h.t.Helper()
	ids, err := h.device.ListKeys(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return len(ids)
}

// The largest that a key on the token takes, and the refusal of more.
func TestHSMKeysTakeTheLargest(t *testing.T) {
	h := newHarness(t, nil)
	c := h.dial(h.admin())
	h.createHSMKeys(c)
	crypto, ctx := pb.NewCryptoClient(c), t.Context()
	aad, plaintext := make([]byte, kms.MaxAAD), make([]byte, hsm.MaxData)
	sealed, err := crypto.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "cipher", Plaintext: plaintext, Aad: aad})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := crypto.Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext, Aad: aad})
	if err != nil || len(opened.Plaintext) != len(plaintext) {
		t.Fatalf("%d bytes came back: %v", len(opened.GetPlaintext()), err)
	}
	if _, err := crypto.GenerateMac(ctx, &pb.GenerateMacRequest{Namespace: "app", Key: "mac", Message: plaintext}); err != nil {
		t.Error(err)
	}
	for name, call := range map[string]func() error{
		"aad": func() error {
			_, err := crypto.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "cipher", Plaintext: []byte("x"), Aad: append(aad, 0)})
			return err
		},
		"plaintext": func() error {
			_, err := crypto.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "cipher", Plaintext: append(plaintext, 0)})
			return err
		},
		"message": func() error {
			_, err := crypto.GenerateMac(ctx, &pb.GenerateMacRequest{Namespace: "app", Key: "mac", Message: append(plaintext, 0)})
			return err
		},
	} {
		if s := wantStatus(t, call(), codes.InvalidArgument); !strings.Contains(s.Message(), name) {
			t.Errorf("%s: %q", name, s.Message())
		}
	}
}

// The life of keys on a real token, over gRPC.
func TestHSMKeysOverGRPC(t *testing.T) {
	h := newHarness(t, nil)
	c := h.dial(h.admin())
	h.createHSMKeys(c)
	keys, ctx := pb.NewKeysClient(c), t.Context()
	if n := h.tokenKeys(); n != len(hsmAlgorithms) {
		t.Fatalf("%d keys are on the token", n)
	}
	for name := range hsmAlgorithms {
		h.useOverGRPC(c, name)
		v := must[*pb.KeyVersion](t)(keys.GetVersion(ctx, &pb.GetVersionRequest{Namespace: "app", Key: name}))
		if k := v.TokenKey; v.ProtectionLevel != pb.ProtectionLevel_HSM || k == nil || !k.Local || !k.NeverExtractable || !k.AlwaysSensitive || k.Problem != "" || len(k.Id) != 32 {
			t.Errorf("%s: version = %v", name, v)
		}
	}
	crypto := pb.NewCryptoClient(c)
	sealed := must[*pb.EncryptResponse](t)(crypto.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: "cipher", Plaintext: []byte("secret")}))
	if v := must[*pb.KeyVersion](t)(keys.RotateKey(ctx, &pb.RotateKeyRequest{Namespace: "app", Key: "cipher"})); v.Version != 2 {
		t.Errorf("rotated to %v", v)
	}
	opened := must[*pb.DecryptResponse](t)(crypto.Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext}))
	if string(opened.Plaintext) != "secret" || opened.Version != 1 || h.tokenKeys() != len(hsmAlgorithms)+1 {
		t.Errorf("Decrypt = %v, %d keys are on the token", opened, h.tokenKeys())
	}
	must[*pb.KeyVersion](t)(keys.DestroyVersion(ctx, &pb.DestroyVersionRequest{Namespace: "app", Key: "cipher", Version: 1, Delay: durationpb.New(0)}))
	eventually(t, func() bool {
		v := must[*pb.KeyVersion](t)(keys.GetVersion(ctx, &pb.GetVersionRequest{Namespace: "app", Key: "cipher", Version: 1}))
		return v.State == pb.VersionState_DESTROYED && v.TokenKey == nil
	})
	if n := h.tokenKeys(); n != len(hsmAlgorithms) {
		t.Errorf("a version was destroyed, %d keys are on the token", n)
	}
	_, err := crypto.Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext})
	wantStatus(t, err, codes.FailedPrecondition)
	must[*pb.Namespace](t)(pb.NewNamespacesClient(c).DeleteNamespace(ctx, &pb.DeleteNamespaceRequest{Namespace: "app", Delay: durationpb.New(0)}))
	eventually(t, func() bool { return h.tokenKeys() == 0 })
}

// useOverGRPC uses a key of hsmAlgorithms as its purpose wants it.
func (h *harness) useOverGRPC(c *grpc.ClientConn, name string) {
	t, ctx, crypto := h.t, h.t.Context(), pb.NewCryptoClient(c)
	t.Helper()
	switch name {
	case "cipher":
		sealed := must[*pb.EncryptResponse](t)(crypto.Encrypt(ctx, &pb.EncryptRequest{Namespace: "app", Key: name, Plaintext: []byte("secret"), EncryptionContext: map[string]string{"a": "b"}}))
		opened := must[*pb.DecryptResponse](t)(crypto.Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext, EncryptionContext: map[string]string{"a": "b"}}))
		if string(opened.Plaintext) != "secret" {
			t.Errorf("Decrypt = %q", opened.Plaintext)
		}
		_, err := crypto.Decrypt(ctx, &pb.DecryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext})
		if s := wantStatus(t, err, codes.InvalidArgument); s.Message() != "decryption failed" {
			t.Errorf("without its context: %s", s.Message())
		}
	case "mac":
		mac := must[*pb.GenerateMacResponse](t)(crypto.GenerateMac(ctx, &pb.GenerateMacRequest{Namespace: "app", Key: name, Message: []byte("m")}))
		if got := must[*pb.VerifyMacResponse](t)(crypto.VerifyMac(ctx, &pb.VerifyMacRequest{Namespace: "app", Key: name, Message: []byte("m"), Mac: mac.Mac})); !got.Valid {
			t.Error("the MAC does not hold")
		}
	case "agree":
		peer := must[*pb.GetPublicKeyResponse](t)(crypto.GetPublicKey(ctx, &pb.GetPublicKeyRequest{Namespace: "app", Key: name}))
		secret := must[*pb.DeriveSharedSecretResponse](t)(crypto.DeriveSharedSecret(ctx, &pb.DeriveSharedSecretRequest{Namespace: "app", Key: name, PeerPublicKey: []byte(peer.Pem)}))
		if len(secret.SharedSecret) != 32 || bytes.Equal(secret.SharedSecret, make([]byte, 32)) {
			t.Errorf("shared secret of %d bytes", len(secret.SharedSecret))
		}
	default:
		signed := must[*pb.SignResponse](t)(crypto.Sign(ctx, &pb.SignRequest{Namespace: "app", Key: name, Message: []byte("m")}))
		if got := must[*pb.VerifyResponse](t)(crypto.Verify(ctx, &pb.VerifyRequest{Namespace: "app", Key: name, Message: []byte("m"), Signature: signed.Signature})); !got.Valid {
			t.Errorf("%s: the signature does not hold", name)
		}
	}
}

// The same over REST, with names as text.
func TestHSMKeysOverREST(t *testing.T) {
	h := newHarness(t, nil)
	c := h.client(h.admin())
	const key = "/v1/namespaces/app/keys/card"
	c.ok("POST", "/v1/namespaces", `{"namespace":"app"}`)
	if k := c.ok("POST", "/v1/namespaces/app/keys", `{"key":"card","protectionLevel":"HSM"}`); k["protectionLevel"] != "HSM" || k["algorithm"] != "AES_256_GCM" {
		t.Errorf("created %v", k)
	}
	sealed, _ := c.ok("POST", key+":encrypt", `{"plaintext":"`+b64([]byte("secret"))+`"}`)["ciphertext"].(string)
	c.ok("POST", key+":rotate", "")
	if opened := c.ok("POST", key+":decrypt", `{"ciphertext":"`+sealed+`"}`); opened["plaintext"] != b64([]byte("secret")) || opened["version"] != float64(1) {
		t.Errorf("decrypted %v", opened)
	}
	v := c.ok("GET", key+"/versions/1", "")
	if token, _ := v["tokenKey"].(map[string]any); v["protectionLevel"] != "HSM" || token["local"] != true || token["neverExtractable"] != true || token["alwaysSensitive"] != true {
		t.Errorf("version = %v", v)
	}
	if a := c.do("POST", "/v1/namespaces/app/keys", `{"key":"bad","protectionLevel":"HSM","algorithm":"XAES_256_GCM"}`); a.status != 400 || !bytes.Contains([]byte(a.text), []byte("AES_256_GCM, AES_128_GCM")) {
		t.Errorf("an algorithm that the token cannot do: %d %s", a.status, a.text)
	}
	algorithms, _ := c.ok("GET", "/v1/algorithms", "")["algorithms"].([]any)
	onToken := func(name string) bool {
		return slices.ContainsFunc(algorithms, func(a any) bool {
			row := a.(map[string]any)
			return row["name"] == name && row["hsm"] == true
		})
	}
	if !onToken("AES_256_GCM") || !onToken("RSA_PSS_4096_SHA512") || onToken("XAES_256_GCM") {
		t.Errorf("algorithms = %v", algorithms)
	}
	c.ok("POST", key+"/versions/1:destroy", `{"delay":"0s"}`)
	eventually(t, func() bool {
		v := c.ok("GET", key+"/versions/1", "")
		return v["state"] == "DESTROYED" && v["tokenKey"] == nil
	})
	if n := h.tokenKeys(); n != 1 {
		t.Errorf("a version was destroyed, %d keys are on the token", n)
	}
}
