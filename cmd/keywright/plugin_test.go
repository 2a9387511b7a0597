package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v2 "k8s.io/kms/apis/v2"
)

// startPlugin starts kube-plugin and waits until it listens.
func startPlugin(t *testing.T, socket string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := asKeywright(t, append([]string{"kube-plugin", "kube/secrets", "--socket", socket}, args...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	await(t, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return cmd
}

func dialPlugin(t *testing.T, socket string) v2.KeyManagementServiceClient {
	t.Helper()
	c, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return v2.NewKeyManagementServiceClient(c)
}

// kubePlugin serves an API server through the plugin: a rotation, its own death and
// restart, a server that cannot be reached, users who are not meant.
func kubePlugin(t *testing.T, profile string) {
	t.Setenv("KEYWRIGHT_CONFIG", profile)
	prepareKube(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "kms.sock")
	first := startPlugin(t, socket)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if out, err := asKeywright(t, "kube-plugin", "kube/secrets", "--socket", socket).CombinedOutput(); err == nil || !strings.Contains(string(out), "another process listens there") {
		t.Errorf("a second one on the same socket: %v, %s", err, out)
	}
	client := dialPlugin(t, socket)
	old := pluginRoundTrip(t, client, "uid-before")
	runKeywright(t, "key", "rotate", "kube/secrets")
	if next := pluginRoundTrip(t, client, "uid-after"); next.KeyId == old.KeyId {
		t.Errorf("the rotation does not show in %q", next.KeyId)
	}
	_ = first.Process.Kill() // it leaves its socket
	_ = first.Wait()
	second := startPlugin(t, socket)
	d, err := client.Decrypt(t.Context(), &v2.DecryptRequest{Ciphertext: old.Ciphertext, KeyId: old.KeyId, Uid: "uid-restarted"})
	if err != nil || string(d.Plaintext) != "seed" {
		t.Errorf("after its restart: %v, %v", d, err)
	}
	for _, uid := range []string{"uid-before", "uid-after", "uid-restarted"} {
		if out := runKeywright(t, "audit", "list", "--request-id", uid); !strings.Contains(out, "Decrypt") {
			t.Errorf("the audit log has of %s\n%s", uid, out)
		}
	}
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	kubePluginRefuses(t, dir)
}

func prepareKube(t *testing.T) {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "use.cedar")
	text := `permit (principal, action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"kube");`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	runKeywright(t, "namespace", "create", "kube")
	runKeywright(t, "key", "create", "kube/secrets")
	runKeywright(t, "policy", "put", "kube/use", policy)
}

// pluginRoundTrip encrypts and decrypts, and checks that Status agrees.
func pluginRoundTrip(t *testing.T, client v2.KeyManagementServiceClient, uid string) *v2.EncryptResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := client.Status(ctx, &v2.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := client.Encrypt(ctx, &v2.EncryptRequest{Plaintext: []byte("seed"), Uid: uid})
	if err != nil {
		t.Fatal(err)
	}
	if s.Version != "v2" || s.Healthz != "ok" || s.KeyId != e.KeyId || s.KeyId == "" {
		t.Errorf("Status %v, Encrypt %v", s, e)
	}
	d, err := client.Decrypt(ctx, &v2.DecryptRequest{Ciphertext: e.Ciphertext, KeyId: e.KeyId, Uid: uid})
	if err != nil || string(d.Plaintext) != "seed" {
		t.Fatalf("%v, %v", d, err)
	}
	return e
}

// kubePluginRefuses: where the server cannot be reached the plugin is there and says
// so; users who are not named get nothing.
func kubePluginRefuses(t *testing.T, dir string) {
	away := filepath.Join(dir, "away.sock")
	startPlugin(t, away, "--addr", "127.0.0.1:1")
	s, err := dialPlugin(t, away).Status(t.Context(), &v2.StatusRequest{})
	if err != nil || s.KeyId != "" || !strings.Contains(s.Healthz, "cannot reach the server at 127.0.0.1:1") {
		t.Errorf("with nobody there: %v, %v", s, err)
	}
	others := filepath.Join(dir, "others.sock")
	startPlugin(t, others, "--mode", "0660", "--uid", fmt.Sprint(os.Getuid()+1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s, err := dialPlugin(t, others).Status(ctx, &v2.StatusRequest{}); err == nil {
		t.Errorf("another user: %v", s)
	}
	for _, args := range [][]string{{}, {"--socket", away, "--mode", "0999"}, {"--socket", away, "--mode", "0066"}, {"--socket", away, "--uid", "4294967296"}} {
		out, err := asKeywright(t, append([]string{"kube-plugin", "kube/secrets"}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "--") {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}

// asKeywright prepares a run of the program, which the test binary is by that name.
func asKeywright(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{"keywright"}, args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return cmd
}

func runKeywright(t *testing.T, args ...string) string {
	t.Helper()
	out, err := asKeywright(t, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}
