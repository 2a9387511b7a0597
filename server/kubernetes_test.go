package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	v2 "k8s.io/kms/apis/v2"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/server"
)

const kubePrincipal = `Workload::"local:kube-apiserver"`

const kubePolicy = `permit (principal == Workload::"local:kube-apiserver", action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"app");`

// kubeHarness is a server with a socket for an API server, bound to app/card.
type kubeHarness struct {
	*harness
	config server.Config
	path   string
	v2.KeyManagementServiceClient
}

func newKubeHarness(t testing.TB, change func(*server.Config)) *kubeHarness {
	t.Helper()
	k := &kubeHarness{path: filepath.Join(t.TempDir(), "kms.sock")}
	k.harness = newHarness(t, func(c *server.Config) {
		c.Kubernetes = []server.KubernetesSocket{{Path: k.path, Namespace: "app", Key: "card", Principal: kubePrincipal}}
		if change != nil {
			change(c)
		}
		k.config = *c
	})
	k.prepare()
	k.put("kube", kubePolicy)
	k.KeyManagementServiceClient = v2.NewKeyManagementServiceClient(k.dialSocket(t))
	return k
}

// dialSocket connects as the API server does (k8s.io/apiserver, kmsv2/grpc_service.go).
func (k *kubeHarness) dialSocket(t testing.TB) *grpc.ClientConn {
	c := must[*grpc.ClientConn](t)(grpc.NewClient("unix:"+k.path, grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true))))
	t.Cleanup(func() { c.Close() })
	return c
}

func (k *kubeHarness) put(name, text string) {
	k.t.Helper()
	must[kms.Policy](k.t)(k.service.PutPolicy(k.t.Context(), k.adminCall(), kms.PutPolicyRequest{Name: name, Text: text}))
}

func (k *kubeHarness) rotate() {
	k.t.Helper()
	must[kms.KeyVersion](k.t)(k.service.RotateKey(k.t.Context(), k.adminCall(), kms.KeyRef{Namespace: "app", Key: "card"}))
}

// healthy returns the key id of a Status that must be well.
func (k *kubeHarness) healthy() string {
	k.t.Helper()
	s := must[*v2.StatusResponse](k.t)(k.Status(k.t.Context(), &v2.StatusRequest{}))
	if s.Version != "v2" || s.Healthz != "ok" || s.KeyId == "" || len(s.KeyId) > 1024 {
		k.t.Fatalf("status %v", s)
	}
	return s.KeyId
}

// wantUnhealthy checks that Status gives a reason, and no key id to go on with.
func (k *kubeHarness) wantUnhealthy(reason string) {
	k.t.Helper()
	s := must[*v2.StatusResponse](k.t)(k.Status(k.t.Context(), &v2.StatusRequest{}))
	if s.Version != "v2" || s.KeyId != "" || !strings.Contains(s.Healthz, reason) {
		k.t.Fatalf("status %v, want a reason with %q", s, reason)
	}
}

func (k *kubeHarness) encrypted(plaintext []byte) *v2.DecryptRequest {
	k.t.Helper()
	r := must[*v2.EncryptResponse](k.t)(k.Encrypt(k.t.Context(), &v2.EncryptRequest{Plaintext: plaintext, Uid: "e"}))
	return &v2.DecryptRequest{Ciphertext: r.Ciphertext, KeyId: r.KeyId, Annotations: r.Annotations, Uid: "d"}
}

func (k *kubeHarness) wantDecrypted(q *v2.DecryptRequest, want []byte) {
	k.t.Helper()
	if r := must[*v2.DecryptResponse](k.t)(k.Decrypt(k.t.Context(), q)); !bytes.Equal(r.Plaintext, want) {
		k.t.Fatalf("%q, want %q", r.Plaintext, want)
	}
}

// TestKubernetesRotation: each rotation shows in Status and Encrypt alike, and what
// any version encrypted is decrypted.
func TestKubernetesRotation(t *testing.T) {
	k := newKubeHarness(t, nil)
	seed := []byte("32 bytes, the seed of a data key")
	var all []*v2.DecryptRequest
	ids := map[string]bool{}
	for range 4 {
		id, q := k.healthy(), k.encrypted(seed)
		if again := k.healthy(); id != q.KeyId || id != again || ids[id] {
			t.Fatalf("Status says %q, then %q, Encrypt %q, after %v", id, again, q.KeyId, ids)
		}
		ids[id] = true
		all = append(all, q)
		for _, q := range all {
			k.wantDecrypted(q, seed)
		}
		k.rotate()
	}
	moved := &v2.DecryptRequest{Ciphertext: all[0].Ciphertext, KeyId: all[1].KeyId}
	_, err := k.Decrypt(t.Context(), moved)
	wantStatus(t, err, codes.InvalidArgument)
}

// TestKubernetesHealth: Status says so when the key cannot be used, and why.
func TestKubernetesHealth(t *testing.T) {
	k := newKubeHarness(t, nil)
	id := k.healthy()
	k.put("kube", strings.Replace(kubePolicy, `, Action::"decrypter"`, "", 1))
	k.wantUnhealthy("PERMISSION_DENIED: " + kubePrincipal + " may not Decrypt here")
	k.put("kube", kubePolicy)
	if again := k.healthy(); again != id {
		t.Errorf("key id %q, was %q", again, id)
	}
	card := kms.KeyRef{Namespace: "app", Key: "card"}
	must[kms.Key](t)(k.service.DeleteKey(t.Context(), k.adminCall(), kms.DestroyRequest{Namespace: card.Namespace, Key: card.Key}))
	k.wantUnhealthy("NOT_FOUND")
	for _, want := range []string{"the Kubernetes key can be used", "the Kubernetes key cannot be used", "may not Decrypt here"} {
		if !strings.Contains(k.log.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	// Another key of that name is another key.
	must[kms.Key](t)(k.service.CreateKey(t.Context(), k.adminCall(), kms.CreateKeyRequest{Namespace: "app", Key: "card"}))
	if next := k.healthy(); next == id {
		t.Errorf("another key has the id %q too", id)
	}
}

// TestKubernetesSizes checks the API's limits from both sides.
func TestKubernetesSizes(t *testing.T) {
	k := newKubeHarness(t, nil)
	most := bytes.Repeat([]byte("x"), 1024-53) // docs/format.md: what XAES_256_GCM adds
	q := k.encrypted(most)
	if len(q.Ciphertext) != 1024 {
		t.Fatalf("%d bytes of ciphertext", len(q.Ciphertext))
	}
	k.wantDecrypted(q, most)
	for _, n := range []int{0, len(most) + 1, 1024, 1025, 48 << 10} {
		_, err := k.Encrypt(t.Context(), &v2.EncryptRequest{Plaintext: make([]byte, n)})
		wantStatus(t, err, codes.InvalidArgument)
	}
	_, err := k.Encrypt(t.Context(), &v2.EncryptRequest{Plaintext: make([]byte, 1<<20)})
	wantStatus(t, err, codes.ResourceExhausted)
	q.Annotations = map[string][]byte{"a.example.com": make([]byte, 32<<10-13)}
	k.wantDecrypted(q, most)
	for name, change := range map[string]func(*v2.DecryptRequest){
		"no ciphertext":       func(q *v2.DecryptRequest) { q.Ciphertext = nil },
		"long ciphertext":     func(q *v2.DecryptRequest) { q.Ciphertext = make([]byte, 1025) },
		"other ciphertext":    func(q *v2.DecryptRequest) { q.Ciphertext = make([]byte, 100) },
		"tampered ciphertext": func(q *v2.DecryptRequest) { q.Ciphertext[100] ^= 1 },
		"no key id":           func(q *v2.DecryptRequest) { q.KeyId = "" },
		"long key id":         func(q *v2.DecryptRequest) { q.KeyId = strings.Repeat("k", 1025) },
		"bare annotation":     func(q *v2.DecryptRequest) { q.Annotations = map[string][]byte{"bare": nil} },
		"long annotations":    func(q *v2.DecryptRequest) { q.Annotations["b.example.com"] = []byte("x") },
	} {
		own := &v2.DecryptRequest{Ciphertext: bytes.Clone(q.Ciphertext), KeyId: q.KeyId, Annotations: map[string][]byte{"a.example.com": q.Annotations["a.example.com"]}}
		change(own)
		if _, err := k.Decrypt(t.Context(), own); err == nil || !strings.Contains(err.Error(), "InvalidArgument") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKubernetesPolicyAndAudit: the socket's principal is bound by policy like any
// other, and each use is in the log by the API server's own id.
func TestKubernetesPolicyAndAudit(t *testing.T) {
	k := newKubeHarness(t, nil)
	q := k.encrypted([]byte("x"))
	q.Uid = "4f6b2f5e-0000-4000-8000-000000000001"
	k.wantDecrypted(q, []byte("x"))
	k.healthy()
	entries := must[[]audit.Entry](t)(k.service.ListAudit(t.Context(), k.adminCall(), audit.Filter{RequestID: q.Uid}))
	if len(entries) != 1 || entries[0].Principal != kubePrincipal || entries[0].Method != "unix" || entries[0].Action != "Decrypt" || entries[0].Key != "card" {
		t.Errorf("entries %+v", entries)
	}
	probes := 0
	for _, e := range must[[]audit.Entry](t)(k.service.ListAudit(t.Context(), k.adminCall(), audit.Filter{Namespace: "app"})) {
		if strings.HasPrefix(e.RequestID, "kube-status-") {
			probes++
		}
	}
	if probes != 2 {
		t.Errorf("%d lines of the probe", probes)
	}
	k.put("kube", `forbid (principal == `+kubePrincipal+`, action, resource);`)
	_, err := k.Decrypt(t.Context(), q)
	info, _ := details(wantStatus(t, err, codes.PermissionDenied))
	if info.GetMetadata()["request_id"] != q.Uid {
		t.Errorf("request id of the refusal: %v", info)
	}
}

// TestKubernetesPeers: users who are not meant are refused, whatever the mode of the
// socket, and a key of another socket is out of reach.
func TestKubernetesPeers(t *testing.T) {
	k := newKubeHarness(t, func(c *server.Config) { c.Kubernetes[0].UIDs = []uint32{1 << 30} })
	if info, err := os.Stat(k.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	_, err := k.Status(t.Context(), &v2.StatusRequest{})
	wantReason(t, err, "UNKNOWN_PEER")
	_, err = k.Encrypt(t.Context(), &v2.EncryptRequest{Plaintext: []byte("x")})
	wantReason(t, err, "UNKNOWN_PEER")
}

func TestKubernetesKeysAreApart(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.sock")
	k := newKubeHarness(t, func(c *server.Config) {
		c.Kubernetes = append(c.Kubernetes, server.KubernetesSocket{Path: other, Namespace: "app", Key: "other", Principal: kubePrincipal})
	})
	q := k.encrypted([]byte("x"))
	second := &kubeHarness{harness: k.harness, path: other}
	second.KeyManagementServiceClient = v2.NewKeyManagementServiceClient(second.dialSocket(t))
	second.wantUnhealthy("NOT_FOUND")
	must[kms.Key](t)(k.service.CreateKey(t.Context(), k.adminCall(), kms.CreateKeyRequest{Namespace: "app", Key: "other"}))
	if second.healthy() == k.healthy() {
		t.Error("two keys have the same id")
	}
	_, err := second.Decrypt(t.Context(), q)
	wantStatus(t, err, codes.InvalidArgument)
}

// TestKubernetesRestart: a client that stays connected finds the server again after it
// drained and after it left its socket behind, under load; nothing it has encrypted is
// lost.
func TestKubernetesRestart(t *testing.T) {
	k := newKubeHarness(t, nil)
	q := k.encrypted([]byte("before"))
	id := k.healthy()
	if err := k.drain(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(k.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	// What a killed server leaves: a socket on which nobody listens.
	leaveSocket(t, k.path)
	k.config.Metrics = nil
	next := &harness{t: t, device: k.device, service: k.service, dir: k.dir, ca: k.ca, log: k.log, served: make(chan error, 1)}
	next.start(k.config)
	k.wantDecrypted(q, []byte("before")) // over the same client
	if again := k.healthy(); again != id {
		t.Errorf("key id %q, was %q", again, id)
	}
	if _, err := server.New(k.config); !errors.Is(err, server.ErrSocketInUse) {
		t.Errorf("another server on the same socket: %v", err)
	}
	k.wantDecrypted(q, []byte("before"))
}

func leaveSocket(t *testing.T, path string) {
	t.Helper()
	fd := must[int](t)(syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 1), syscall.Close(fd)); err != nil {
		t.Fatal(err)
	}
}

// TestKubernetesTenThousand encrypts and decrypts ten thousand seeds, while the key is
// rotated again and again; a tenth of them under the race detector.
func TestKubernetesTenThousand(t *testing.T) {
	const workers = 16
	calls := 10_000
	if raceEnabled {
		calls /= 10
	}
	k := newKubeHarness(t, nil)
	rotating, done := context.WithCancel(t.Context())
	defer done()
	var running, rotations sync.WaitGroup
	rotations.Go(func() {
		for rotating.Err() == nil {
			if _, err := k.service.RotateKey(t.Context(), k.adminCall(), kms.KeyRef{Namespace: "app", Key: "card"}); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	for w := range workers {
		running.Go(func() {
			for i := range calls / workers {
				if err := k.roundTrip(t.Context(), fmt.Sprintf("u-%d-%d", w, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	done()
	rotations.Wait()
}

func (k *kubeHarness) roundTrip(ctx context.Context, uid string) error {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // it never fails
	e, err := k.Encrypt(ctx, &v2.EncryptRequest{Plaintext: seed, Uid: uid})
	if err != nil {
		return err
	}
	d, err := k.Decrypt(ctx, &v2.DecryptRequest{Ciphertext: e.Ciphertext, KeyId: e.KeyId, Annotations: e.Annotations, Uid: uid})
	if err == nil && !bytes.Equal(d.Plaintext, seed) {
		err = errors.New("another plaintext came back")
	}
	return err
}
