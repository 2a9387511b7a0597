// Package interop tries the Kubernetes KMS v2 sockets with the API server's own code
// (k8s.io/apiserver), which reads an EncryptionConfiguration and makes of it what
// encrypts secrets on their way to etcd and decrypts them on their way back.
package interop

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/klog/v2"
)

// secrets is how many secrets a test has; a quarter is written before the key is
// rotated, one after, one while the plugin is away, and one when it is back.
const secrets = 10_000

// TestAPIServer lives through a rotation and the loss of what holds the key, killed in
// the middle: the server whose socket the API server uses, the plugin between them,
// or the server behind the plugin.
func TestAPIServer(t *testing.T) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // it tells of each connection that fails
	for _, test := range []struct {
		name    string
		plugin  bool // between the API server and the server
		killed  string
		problem string // what the API server is told meanwhile
	}{
		{"server", false, "server", "DeadlineExceeded"},
		{"plugin", true, "plugin", "DeadlineExceeded"},
		{"server behind plugin", true, "server", "cannot reach the server at"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			start, socket := s.serve, s.file("server.sock")
			lost := s.serve()
			if test.plugin {
				plugin := s.plug()
				socket = s.socket
				if test.killed == "plugin" {
					start, lost = s.plug, plugin
				}
			}
			live(s, socket, test.problem, lost, start)
		})
	}
}

func live(s *site, socket, problem string, lost *process, restart func() *process) {
	api := newAPIServer(s, socket)
	api.wantHealthy()
	api.write(secrets / 4)
	if api.stale(0) {
		s.Error("a secret is stale before the key was rotated")
	}

	s.rotate()
	s.await("the rotation to be noticed", func() bool { api.healthy(); return api.stale(0) })
	api.write(secrets / 4)
	if api.stale(secrets / 4) {
		s.Error("a secret is stale that was written after the rotation")
	}

	lost.stop(syscall.SIGKILL)
	s.await("the loss to be noticed", func() bool { err := api.healthy(); return err != nil && strings.Contains(err.Error(), problem) })
	api.write(secrets / 4) // the API server goes on for three minutes

	restart()
	s.await("the return to be noticed", func() bool { return api.healthy() == nil })
	api.write(secrets / 4)

	api.read()
	next := newAPIServer(s, socket) // it has nothing in memory
	next.wantHealthy()
	next.stored = api.stored
	next.read()
	for i := range next.stored {
		if next.stale(i) != (i < secrets/4) {
			s.Fatalf("secret %d: stale %v", i, next.stale(i))
		}
	}
}

func (s *site) await(what string, condition func() bool) {
	s.Helper()
	for end := time.Now().Add(3 * time.Minute); !condition(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.Fatalf("waited in vain for %s", what)
		}
	}
}

// apiServer is the part of an API server between its API and etcd.
type apiServer struct {
	*site
	config      *encryptionconfig.EncryptionConfiguration
	transformer value.Transformer
	stored      [][]byte
}

const encryptionConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - kms:
          apiVersion: v2
          name: keywright
          endpoint: unix://%s
          timeout: 3s
      - identity: {}
`

func newAPIServer(s *site, socket string) *apiServer {
	s.Helper()
	file := filepath.Join(s.TempDir(), "encryption.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, encryptionConfiguration, socket), 0o600); err != nil {
		s.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.Cleanup(stop)
	config, err := encryptionconfig.LoadEncryptionConfig(ctx, file, false, "test")
	if err != nil {
		s.Fatal(err)
	}
	return &apiServer{site: s, config: config, transformer: config.Transformers[schema.GroupResource{Resource: "secrets"}]}
}

// healthy asks the API server's own health check, which calls Status (at most every 20
// seconds while all is well, every 3 otherwise) and notices rotation.
func (a *apiServer) healthy() error {
	request, err := http.NewRequestWithContext(a.Context(), http.MethodGet, "/healthz", nil)
	if err != nil {
		a.Fatal(err)
	}
	for _, check := range a.config.HealthChecks {
		if err := check.Check(request); err != nil {
			return err
		}
	}
	return nil
}

func (a *apiServer) wantHealthy() {
	a.Helper()
	if err := a.healthy(); err != nil {
		a.Fatal(err)
	}
}

func secret(i int) (text []byte, at value.Context) {
	return fmt.Appendf(nil, "the secret number %d", i), value.DefaultContext(fmt.Sprintf("/registry/secrets/default/s%d", i))
}

// write stores n more secrets.
func (a *apiServer) write(n int) {
	a.Helper()
	for range n {
		text, at := secret(len(a.stored))
		stored, err := a.transformer.TransformToStorage(a.Context(), text, at)
		if err != nil {
			a.Fatalf("secret %d: %v", len(a.stored), err)
		}
		if !bytes.HasPrefix(stored, []byte("k8s:enc:kms:v2:keywright:")) {
			a.Fatalf("secret %d is stored as %.40q", len(a.stored), stored)
		}
		a.stored = append(a.stored, stored)
	}
}

// read reads all secrets back.
func (a *apiServer) read() {
	a.Helper()
	for i := range a.stored {
		a.stale(i)
	}
}

// stale reads one secret back, and tells whether it should be written anew.
func (a *apiServer) stale(i int) bool {
	a.Helper()
	want, at := secret(i)
	text, stale, err := a.transformer.TransformFromStorage(a.Context(), a.stored[i], at)
	if err != nil || !bytes.Equal(text, want) {
		a.Fatalf("secret %d: %q, %v", i, text, err)
	}
	return stale
}
