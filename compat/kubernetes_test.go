package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
)

// apiServer is the part of a Kubernetes API server that encrypts what it stores.
type apiServer struct {
	*testing.T
	ctx    context.Context
	loaded *encryptionconfig.EncryptionConfiguration
	stored map[string][]byte
}

// load reads an EncryptionConfiguration as docs/kubernetes.md shows it, and waits until
// the plugin is healthy.
func load(t *testing.T, socket string) *apiServer {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - kms:
          apiVersion: v2
          name: keywright
          endpoint: unix://%s
          timeout: 3s
`, socket)
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &apiServer{T: t, ctx: t.Context(), stored: map[string][]byte{}}
	var err error
	if a.loaded, err = encryptionconfig.LoadEncryptionConfig(a.ctx, path, false, "test"); err != nil {
		t.Fatal(err)
	}
	eventually(t, a.ctx, "the plugin's health", a.health)
	return a
}

// health runs the API server's health check, which also has it look for a rotation.
func (a *apiServer) health() error {
	request, err := http.NewRequestWithContext(a.ctx, http.MethodGet, "http://apiserver/healthz", http.NoBody)
	if err != nil {
		return err
	}
	for _, check := range a.loaded.HealthChecks {
		err = errors.Join(err, check.Check(request))
	}
	return err
}

func (a *apiServer) transformer() value.Transformer {
	return a.loaded.Transformers[schema.GroupResource{Resource: "secrets"}]
}

// write stores n secrets more.
func (a *apiServer) write(n int) {
	a.Helper()
	for range n {
		name := fmt.Sprintf("/registry/secrets/default/%d", len(a.stored))
		sealed, err := a.transformer().TransformToStorage(a.ctx, []byte("secret of "+name), value.DefaultContext(name))
		if err != nil {
			a.Fatal(err)
		}
		a.stored[name] = sealed
	}
}

// read reads all that was stored, and returns how many of them are to be written anew.
func (a *apiServer) read() (stale int, err error) {
	for name, sealed := range a.stored {
		opened, old, err := a.transformer().TransformFromStorage(a.ctx, sealed, value.DefaultContext(name))
		if err != nil {
			return stale, err
		}
		if want := []byte("secret of " + name); !bytes.Equal(opened, want) {
			return stale, fmt.Errorf("%s is %q", name, opened)
		}
		if old {
			stale++
		}
	}
	return stale, nil
}

func (a *apiServer) wantStale(want int) {
	a.Helper()
	eventually(a.T, a.ctx, fmt.Sprintf("%d stale secrets", want), func() error {
		stale, err := a.read()
		if err == nil && stale != want {
			err = fmt.Errorf("%d of %d are stale", stale, len(a.stored))
		}
		return errors.Join(err, a.health()) // success is remembered for a while
	})
}

const many = 10_000

// policy lets the API server use the key, by its socket or by a plugin that has the
// administrator's certificate.
const policy = `permit (principal, action in [Action::"Encrypt", Action::"Decrypt"], resource == Key::"cluster/secrets")
when { principal == Workload::"local:kube-apiserver" || principal == User::"local:CN=admin" };`

// prepareKey makes the key, and lets the API server use it.
func (s *site) prepareKey() {
	s.Helper()
	s.keywright("namespace", "create", "cluster")
	s.keywright("key", "create", "cluster/secrets")
	path := filepath.Join(s.dir, "policy.cedar")
	if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
		s.Fatal(err)
	}
	s.keywright("policy", "put", "cluster/apiserver", path, "--yes")
}

// An API server stores ten thousand secrets, notices a rotation, outlives its plugin's
// death, and reads all of it again, also after it was started anew.
func TestKubernetesOnTheServersSocket(t *testing.T) {
	socket := filepath.Join(shortDir(t), "kms.sock")
	s := newSite(t, fmt.Sprintf(`    - path: %s
      peers: [{uid: %d, principal: 'Workload::"local:kube-apiserver"'}]
      kubernetes: {namespace: cluster, key: secrets}
`, socket, os.Getuid()))
	s.prepareKey()
	a := load(t, socket)
	a.write(many)
	a.wantStale(0)

	s.keywright("key", "rotate", "cluster/secrets")
	a.wantStale(many)
	a.write(100)
	a.wantStale(many)

	s.kill()
	a.write(100) // by the key that it holds
	if stale, err := a.read(); err != nil || stale != many {
		t.Errorf("without the plugin: %d stale, %v", stale, err)
	}
	s.start()
	eventually(t, a.ctx, "health after the plugin's death", a.health)
	again := load(t, socket)
	again.stored = a.stored
	again.wantStale(many)
	t.Logf("%d secrets, %d of them from before the rotation", len(again.stored), many)
}

// The same by the plugin that speaks to a server elsewhere, which is killed and leaves
// its socket.
func TestKubernetesByThePlugin(t *testing.T) {
	socket := filepath.Join(shortDir(t), "kms.sock")
	s := newSite(t, "    []\n")
	s.prepareKey()
	start := func() (end func()) {
		plugin := s.command("keywright", "kube-plugin", "cluster/secrets", "--socket", socket)
		s.await(plugin, "serves cluster/secrets")
		return func() { _ = plugin.Process.Kill(); _ = plugin.Wait() }
	}
	end := start()
	a := load(t, socket)
	a.write(1000)
	a.wantStale(0)
	end()
	end = start()
	defer func() { end() }()
	eventually(t, a.ctx, "health after the plugin's death", a.health)
	s.keywright("key", "rotate", "cluster/secrets")
	a.wantStale(1000)

	s.kill() // the server behind it
	a.write(100)
	s.start()
	again := load(t, socket)
	again.stored = a.stored
	again.wantStale(1000)
	t.Logf("%d secrets, 1000 of them from before the rotation", len(again.stored))
}

// shortDir is a folder whose path leaves room for a socket's name (unix(7): 107 bytes).
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
