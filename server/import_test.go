package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/keywright/keywright/kms/keywrap"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// wrapTo wraps material as a client does that knows only what the parameters say.
func wrapTo(t testing.TB, publicPEM, hashName string, material []byte) []byte {
	t.Helper()
	to, err := keywrap.ParsePublicKey([]byte(publicPEM))
	if err != nil {
		t.Fatal(err)
	}
	hash, ok := keywrap.ParseHash(hashName)
	if !ok {
		t.Fatalf("no hash %q", hashName)
	}
	return must[[]byte](t)(keywrap.Wrap(to, hash, material))
}

func ecKey(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return key, must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
}

func verifies(key *ecdsa.PrivateKey, message string, signature []byte) bool {
	digest := sha256.Sum256([]byte(message))
	return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature)
}

// Import over gRPC to a real token, of both protection levels.
func TestImportOverGRPC(t *testing.T) {
	h := newHarness(t, nil)
	connection := h.prepare()
	keys, crypto := pb.NewKeysClient(connection), pb.NewCryptoClient(connection)
	for _, level := range []pb.ProtectionLevel{pb.ProtectionLevel_SOFTWARE, pb.ProtectionLevel_HSM} {
		t.Run(level.String(), func(t *testing.T) {
			ctx, name := t.Context(), strings.ToLower(level.String())
			parameters := must[*pb.ImportParameters](t)(keys.GetImportParameters(ctx, &pb.GetImportParametersRequest{
				Namespace: "app", Algorithm: "ECDSA_P256_SHA256", ProtectionLevel: level, Ttl: durationpb.New(time.Hour)}))
			if parameters.ExpireTime.AsTime().Sub(parameters.CreateTime.AsTime()) != time.Hour || !strings.HasPrefix(parameters.Method, "RSA_OAEP_3072_SHA") {
				t.Errorf("%v", parameters)
			}
			first, der1 := ecKey(t)
			second, der2 := ecKey(t)
			wrap := func(der []byte) []byte { return wrapTo(t, parameters.PublicKeyPem, parameters.OaepHash, der) }
			made := must[*pb.Key](t)(keys.ImportKey(ctx, &pb.ImportKeyRequest{Namespace: "app", Key: name, ImportJob: parameters.ImportJob, WrappedKey: wrap(der1)}))
			if made.Origin != pb.MaterialOrigin_IMPORTED || made.ImportTime == nil || made.ProtectionLevel != level || made.Algorithm != "ECDSA_P256_SHA256" {
				t.Errorf("%v", made)
			}
			version := must[*pb.KeyVersion](t)(keys.ImportKeyVersion(ctx, &pb.ImportKeyVersionRequest{Namespace: "app", Key: name, ImportJob: parameters.ImportJob, WrappedKey: wrap(der2), MakePrimary: true}))
			if version.Version != 2 || !version.Primary || version.Origin != pb.MaterialOrigin_IMPORTED {
				t.Errorf("%v", version)
			}
			for number, key := range map[uint32]*ecdsa.PrivateKey{1: first, 0: second} {
				signed := must[*pb.SignResponse](t)(crypto.Sign(ctx, &pb.SignRequest{Namespace: "app", Key: name, Version: number, Message: []byte("m")}))
				if !verifies(key, "m", signed.Signature) {
					t.Errorf("version %d is another key", number)
				}
			}
			tampered := wrap(der1)
			tampered[400] ^= 1
			_, err := keys.ImportKey(ctx, &pb.ImportKeyRequest{Namespace: "app", Key: "other", ImportJob: parameters.ImportJob, WrappedKey: tampered})
			if s := wantStatus(t, err, codes.InvalidArgument); !strings.Contains(s.Message(), "cannot be unwrapped") {
				t.Error(s.Message())
			}
			tampered = wrap(der1)
			tampered[40] ^= 1 // the part that the token decrypts
			_, err = keys.ImportKey(ctx, &pb.ImportKeyRequest{Namespace: "app", Key: "other", ImportJob: parameters.ImportJob, WrappedKey: tampered})
			wantStatus(t, err, codes.InvalidArgument)
			_, err = keys.GetKey(ctx, &pb.GetKeyRequest{Namespace: "app", Key: "other"})
			wantStatus(t, err, codes.NotFound)
		})
	}
}

// Every algorithm that the token makes keys of, and that is no RSA key too slow to
// make here, takes an imported one too.
func TestImportToTheToken(t *testing.T) {
	h := newHarness(t, nil)
	keys := pb.NewKeysClient(h.prepare())
	raw := make([]byte, 32)
	rand.Read(raw)
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	for algorithm, material := range map[string][]byte{
		"AES_256_GCM":         raw,
		"HMAC_SHA256":         raw,
		"RSA_PSS_2048_SHA256": must[[]byte](t)(x509.MarshalPKCS8PrivateKey(rsaKey)),
	} {
		parameters := must[*pb.ImportParameters](t)(keys.GetImportParameters(t.Context(), &pb.GetImportParametersRequest{
			Namespace: "app", Key: algorithm, Algorithm: algorithm, ProtectionLevel: pb.ProtectionLevel_HSM, SingleUse: true}))
		must[*pb.Key](t)(keys.ImportKey(t.Context(), &pb.ImportKeyRequest{Namespace: "app", Key: algorithm, ImportJob: parameters.ImportJob,
			WrappedKey: wrapTo(t, parameters.PublicKeyPem, parameters.OaepHash, material)}))
		version := must[*pb.KeyVersion](t)(keys.GetVersion(t.Context(), &pb.GetVersionRequest{Namespace: "app", Key: algorithm}))
		if version.TokenKey == nil || version.TokenKey.Problem != "" || version.TokenKey.Local || version.TokenKey.NeverExtractable || version.Origin != pb.MaterialOrigin_IMPORTED {
			t.Errorf("%s: %v", algorithm, version)
		}
	}
}

// Import and export over REST.
func TestImportAndExportOverREST(t *testing.T) {
	h := newHarness(t, nil)
	h.prepare()
	c := h.client(h.admin())
	parameters := c.ok("POST", "/v1/namespaces/app:getImportParameters", `{"algorithm": "ECDSA_P256_SHA256", "ttl": "3600s"}`)
	key, der := ecKey(t)
	body := func(members map[string]any) string { return string(must[[]byte](t)(json.Marshal(members))) }
	wrapped := wrapTo(t, parameters["publicKeyPem"].(string), parameters["oaepHash"].(string), der)
	made := c.ok("POST", "/v1/namespaces/app/keys:import", body(map[string]any{"key": "signer", "importJob": parameters["importJob"], "wrappedKey": wrapped, "exportable": true}))
	if made["origin"] != "IMPORTED" || made["exportable"] != true || made["importTime"] == nil {
		t.Errorf("%v", made)
	}
	version := c.ok("POST", "/v1/namespaces/app/keys/signer:importVersion", body(map[string]any{"importJob": parameters["importJob"], "wrappedKey": wrapped}))
	if version["version"] != float64(2) || version["primary"] == true {
		t.Errorf("%v", version)
	}
	recipient := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must[[]byte](t)(x509.MarshalPKIXPublicKey(&recipient.PublicKey))})
	for _, path := range []string{"/v1/namespaces/app/keys/signer:export", "/v1/namespaces/app/keys/signer/versions/2:export"} {
		exported := c.ok("POST", path, body(map[string]any{"publicKey": public}))
		blob := must[[]byte](t)(base64.StdEncoding.DecodeString(exported["wrappedKey"].(string)))
		encrypted, rest, err := keywrap.Split(blob, 2048)
		if err != nil {
			t.Fatal(err)
		}
		ephemeral := must[[]byte](t)(rsa.DecryptOAEP(sha256.New(), nil, recipient, encrypted, nil))
		got := must[any](t)(x509.ParsePKCS8PrivateKey(must[[]byte](t)(keywrap.Unwrap(ephemeral, rest))))
		if !key.Equal(got) {
			t.Errorf("%s gave another key", path)
		}
	}
	refused := c.do("POST", "/v1/namespaces/app/keys/card:export", body(map[string]any{"publicKey": public}))
	if refused.status != http.StatusBadRequest || !strings.Contains(refused.text, "NOT_EXPORTABLE") {
		t.Errorf("%d %s", refused.status, refused.text)
	}
	if strings.Contains(h.log.String(), base64.StdEncoding.EncodeToString(wrapped)) {
		t.Error("the wrapped key is in the log")
	}
}

// askImports brings a key along, and takes it out.
func (r *routes) askImports() {
	r.t.Helper()
	const ns, key = "/v1/namespaces/{namespace}", "/v1/namespaces/{namespace}/keys/{key}"
	body := func(members map[string]any) string { return string(must[[]byte](r.t)(json.Marshal(members))) }
	parameters := r.ask("POST", ns+":getImportParameters", `{"algorithm":"ECDSA_P256_SHA256"}`)
	_, der := ecKey(r.t)
	members := map[string]any{"key": "brought", "importJob": parameters["importJob"], "exportable": true,
		"wrappedKey": wrapTo(r.t, parameters["publicKeyPem"].(string), parameters["oaepHash"].(string), der)}
	r.ask("POST", ns+"/keys:import", body(members))
	delete(members, "key")
	delete(members, "exportable")
	defer func() { r.values["key"] = "card" }()
	r.values["key"] = "brought"
	r.ask("POST", key+":importVersion", body(members))
	public := map[string]any{"publicKey": anyPublicKey(r.t)}
	for _, path := range []string{key + ":export", key + "/versions/{version}:export"} {
		if got := r.ask("POST", path, body(public)); got["wrappedKey"] == nil {
			r.t.Errorf("%s = %v", path, got)
		}
	}
}

func callImports(t *testing.T, c *grpc.ClientConn) {
	keys, ctx := pb.NewKeysClient(c), t.Context()
	parameters := must[*pb.ImportParameters](t)(keys.GetImportParameters(ctx, &pb.GetImportParametersRequest{Namespace: "app", Algorithm: "ECDSA_P256_SHA256"}))
	_, der := ecKey(t)
	wrapped := wrapTo(t, parameters.PublicKeyPem, parameters.OaepHash, der)
	must[*pb.Key](t)(keys.ImportKey(ctx, &pb.ImportKeyRequest{Namespace: "app", Key: "brought", ImportJob: parameters.ImportJob, WrappedKey: wrapped, Exportable: true}))
	must[*pb.KeyVersion](t)(keys.ImportKeyVersion(ctx, &pb.ImportKeyVersionRequest{Namespace: "app", Key: "brought", ImportJob: parameters.ImportJob, WrappedKey: wrapped}))
	must[*pb.ExportKeyResponse](t)(keys.ExportKey(ctx, &pb.ExportKeyRequest{Namespace: "app", Key: "brought", PublicKey: anyPublicKey(t)}))
}

// anyPublicKey is of a recipient, PEM.
func anyPublicKey(t testing.TB) []byte {
	t.Helper()
	recipient := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must[[]byte](t)(x509.MarshalPKIXPublicKey(&recipient.PublicKey))})
}
