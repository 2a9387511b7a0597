package interop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bin is where the programs under test are built to.
var bin string

func TestMain(m *testing.M) {
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func build(m *testing.M) (code int, err error) {
	if bin, err = os.MkdirTemp("", "keywright-kube-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(bin)
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/keywright", "./cmd/keywrightd")
	cmd.Dir = "../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// site is an installation with a key kubernetes/secrets, and the socket of a plugin.
type site struct {
	*testing.T
	dir, socket, address string
}

// newSite makes an installation in development mode, and stops its server again.
func newSite(t *testing.T) *site {
	dir, err := os.MkdirTemp("", "kube-") // SoftHSM2 and unix sockets do not take all that t.TempDir returns
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{T: t, dir: dir, socket: filepath.Join(dir, "kms.sock"), address: freeAddress(t)}
	first := s.start("is ready: grpc", "keywrightd", "dev", "--dir", s.file("data"), "--port-base", "0")
	s.keywright("", "namespace", "create", "kubernetes")
	s.keywright("", "key", "create", "kubernetes/secrets")
	s.keywright(mayUse(`User::"local:CN=admin"`)+mayUse(`Workload::"local:kube-apiserver"`), "policy", "put", "kubernetes/apiserver")
	first.stop(syscall.SIGTERM)
	config := fmt.Sprintf(`data_dir: data
hsm: {module: %s, token_label: keywright-dev, pin: {file: data/token/pin}}
listen:
  grpc: %s
  rest: 127.0.0.1:0
  metrics: 127.0.0.1:0
  kubernetes: [{path: server.sock, namespace: kubernetes, key: secrets, principal: 'Workload::"local:kube-apiserver"'}]
`, findModule(t), s.address)
	if err := os.WriteFile(s.file("keywrightd.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func mayUse(principal string) string {
	return `permit (principal == ` + principal + `, action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"kubernetes");`
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

// serve starts the server with the configuration.
func (s *site) serve() *process {
	return s.start("is ready: grpc", "keywrightd", "serve", "--config", s.file("keywrightd.yaml"))
}

// plug starts the plugin beside the API server.
func (s *site) plug() *process {
	return s.start("serving Kubernetes KMS v2", "keywright", "kube-plugin", "kubernetes/secrets", "--socket", s.socket, "--addr", s.address)
}

func (s *site) rotate() { s.keywright("", "key", "rotate", "kubernetes/secrets", "--addr", s.address) }

func (s *site) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, program), args...)
	cmd.Env = append(os.Environ(), "KEYWRIGHT_CONFIG="+s.file("data/keywright.yaml"), "SOFTHSM2_CONF="+s.file("data/token/softhsm2.conf"))
	return cmd
}

// keywright runs the command line tool to its end.
func (s *site) keywright(stdin string, args ...string) {
	s.Helper()
	cmd := s.command("keywright", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("keywright %q: %v\n%s", args, err, out)
	}
}

// process is a program that runs until it is stopped.
type process struct {
	site *site
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
}

// start starts a program and waits until it prints a text.
func (s *site) start(until, program string, args ...string) *process {
	s.Helper()
	p := &process{site: s, cmd: s.command(program, args...), done: make(chan struct{})}
	reader, writer, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	_ = writer.Close()
	ready := make(chan struct{})
	go p.read(reader, until, ready)
	s.Cleanup(func() { p.stop(syscall.SIGKILL) })
	select {
	case <-ready:
	case <-p.done:
		s.Fatalf("%s ended:\n%s", program, p.printed())
	case <-time.After(time.Minute):
		s.Fatalf("%s is not ready:\n%s", program, p.printed())
	}
	return p
}

func (p *process) read(from *os.File, until string, ready chan<- struct{}) {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		p.mu.Lock()
		p.text.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
		if ready != nil && strings.Contains(lines.Text(), until) {
			close(ready)
			ready = nil
		}
	}
	_ = p.cmd.Wait() // how it ended is seen where it matters
	close(p.done)
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// stop ends the program by a signal and waits for the end.
func (p *process) stop(by syscall.Signal) {
	if err := p.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.site.Error(err)
	}
	<-p.done
	if p.site.Failed() {
		p.site.Logf("%s:\n%s", p.cmd.Args, p.printed())
	}
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// findModule finds SoftHSM2 where Debian, Fedora and Alpine put it.
func findModule(t *testing.T) string {
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib/pkcs11/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("SoftHSM2 is missing: apt-get install softhsm2")
	return ""
}
