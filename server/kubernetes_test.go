package server_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	kmsv2 "k8s.io/kms/apis/v2"

	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

const apiServer = `Workload::"local:kube-apiserver"`

// kubernetes serves key app/card to this process's user, who may use it, on a socket
// that a dead server left; and to somebody else on another.
func kubernetes(t *testing.T) (h *harness, admin *grpc.ClientConn, plugin kmsv2.KeyManagementServiceClient, path, foreign string) {
	dir := t.TempDir()
	path, foreign = filepath.Join(dir, "kms.sock"), filepath.Join(dir, "foreign.sock")
	stale := must[*net.UnixListener](t)(net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}))
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	h = newHarness(t, func(c *server.Config) {
		c.Kubernetes = []server.KubernetesSocket{
			{Socket: server.Socket{Path: path, Peers: []server.Peer{{UID: uint32(os.Getuid()), Principal: apiServer}}}, Namespace: "app", Key: "card"},
			{Socket: server.Socket{Path: foreign, Peers: []server.Peer{{UID: 1 << 30, Principal: `User::"local:alice"`}}}, Namespace: "app", Key: "card"},
		}
	})
	admin = h.prepare()
	for _, action := range []string{"Encrypt", "Decrypt"} {
		text := fmt.Sprintf(`permit (principal == %s, action == Action::"%s", resource == Key::"app/card");`, apiServer, action)
		must[*pb.Policy](t)(pb.NewPoliciesClient(admin).PutPolicy(t.Context(), &pb.PutPolicyRequest{Namespace: "app", Name: strings.ToLower(action), Text: text}))
	}
	return h, admin, kmsv2.NewKeyManagementServiceClient(h.dialUnix(path)), path, foreign
}

// healthy asks for the status, which must be good, and returns the key id.
func healthy(t *testing.T, plugin kmsv2.KeyManagementServiceClient) string {
	t.Helper()
	s := must[*kmsv2.StatusResponse](t)(plugin.Status(t.Context(), &kmsv2.StatusRequest{}))
	if s.Version != "v2" || s.Healthz != "ok" || s.KeyId == "" || len(s.KeyId) >= 1024 {
		t.Fatalf("status %v", s)
	}
	return s.KeyId
}

func TestKubernetes(t *testing.T) {
	h, admin, plugin, path, foreign := kubernetes(t)
	first := healthy(t, plugin)
	secret := bytes.Repeat([]byte("s"), 32)
	const uid = "3d7c2f5e-9a0b-4c1d-8e6f-112233445566"
	sealed := must[*kmsv2.EncryptResponse](t)(plugin.Encrypt(t.Context(), &kmsv2.EncryptRequest{Plaintext: secret, Uid: uid}))
	if sealed.KeyId != first || len(sealed.Ciphertext) >= 1024 || len(sealed.Annotations) > 0 || bytes.Contains(sealed.Ciphertext, secret) {
		t.Errorf("encrypted %v, status said %s", sealed, first)
	}
	opens := func(sealed *kmsv2.EncryptResponse) {
		t.Helper()
		opened := must[*kmsv2.DecryptResponse](t)(plugin.Decrypt(t.Context(), &kmsv2.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyId: sealed.KeyId, Uid: uid}))
		if !bytes.Equal(opened.Plaintext, secret) {
			t.Errorf("decrypted %q", opened.Plaintext)
		}
	}
	opens(sealed)
	must[*pb.KeyVersion](t)(pb.NewKeysClient(admin).RotateKey(t.Context(), &pb.RotateKeyRequest{Namespace: "app", Key: "card"}))
	second := healthy(t, plugin)
	again := must[*kmsv2.EncryptResponse](t)(plugin.Encrypt(t.Context(), &kmsv2.EncryptRequest{Plaintext: secret}))
	if second == first || again.KeyId != second {
		t.Errorf("after the rotation status says %s and encrypt %s, before it was %s", second, again.KeyId, first)
	}
	opens(sealed)
	opens(again)

	found := must[*pb.ListEntriesResponse](t)(pb.NewAuditClient(admin).ListEntries(t.Context(), &pb.ListEntriesRequest{Filter: &pb.AuditFilter{RequestId: uid}}))
	if len(found.Entries) != 4 {
		t.Errorf("%d lines for the request's uid, want an Encrypt and three Decrypts", len(found.Entries))
	}
	_, err := kmsv2.NewKeyManagementServiceClient(h.dialUnix(foreign)).Status(t.Context(), &kmsv2.StatusRequest{})
	wantReason(t, err, "UNKNOWN_PEER")
	// The socket serves one key's plugin, and nothing else.
	_, err = whoAmI(t.Context(), h.dialUnix(path))
	wantStatus(t, err, codes.Unimplemented)
}

// What the API server must not rely on is refused; what is wrong with the key is told
// in the status, which is how it learns of it.
func TestKubernetesRefusals(t *testing.T) {
	_, admin, plugin, _, _ := kubernetes(t)
	crypto := pb.NewCryptoClient(admin)
	other := must[*pb.EncryptResponse](t)(crypto.Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("not for Kubernetes")}))
	_, err := plugin.Decrypt(t.Context(), &kmsv2.DecryptRequest{Ciphertext: other.Ciphertext})
	wantStatus(t, err, codes.InvalidArgument)
	_, err = plugin.Decrypt(t.Context(), &kmsv2.DecryptRequest{Ciphertext: []byte("nonsense")})
	wantStatus(t, err, codes.InvalidArgument)
	_, err = plugin.Encrypt(t.Context(), &kmsv2.EncryptRequest{})
	wantStatus(t, err, codes.InvalidArgument)
	for size, fits := range map[int]bool{1: true, 900: true, 1000: false, 1024: false, 1 << 20: false} {
		sealed, err := plugin.Encrypt(t.Context(), &kmsv2.EncryptRequest{Plaintext: make([]byte, size)})
		if fits != (err == nil) || fits && len(sealed.Ciphertext) >= 1024 {
			t.Errorf("%d bytes: %v", size, err)
		}
		if !fits {
			wantStatus(t, err, codes.InvalidArgument)
		}
	}
	must[*pb.DeletePolicyResponse](t)(pb.NewPoliciesClient(admin).DeletePolicy(t.Context(), &pb.DeletePolicyRequest{Namespace: "app", Name: "decrypt"}))
	s := must[*kmsv2.StatusResponse](t)(plugin.Status(t.Context(), &kmsv2.StatusRequest{}))
	if s.Healthz == "ok" || !strings.Contains(s.Healthz, "may not Decrypt") || strings.Contains(s.Healthz, "\n") {
		t.Errorf("without the right to decrypt: %v", s)
	}
}

// An API server with an empty cache asks for thousands of keys at once.
func TestKubernetesManyCalls(t *testing.T) {
	_, _, plugin, _, _ := kubernetes(t)
	const callers, each = 50, 40
	var calling sync.WaitGroup
	for caller := range callers {
		calling.Go(func() {
			for i := range each {
				secret := fmt.Appendf(nil, "%d of %d", i, caller)
				sealed, err := plugin.Encrypt(t.Context(), &kmsv2.EncryptRequest{Plaintext: secret})
				if err != nil {
					t.Error(err)
					return
				}
				opened, err := plugin.Decrypt(t.Context(), &kmsv2.DecryptRequest{Ciphertext: sealed.Ciphertext, KeyId: sealed.KeyId})
				if err != nil || !bytes.Equal(opened.Plaintext, secret) {
					t.Errorf("%q, %v", opened.GetPlaintext(), err)
					return
				}
			}
		})
	}
	calling.Wait()
}
