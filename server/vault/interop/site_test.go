// Package interop tries the Vault-compatible listener with the clients' own code: the
// API packages of Vault and OpenBao, Vault's transit seal, the sops program and, if asked
// to, a whole OpenBao server.
//
// KEYWRIGHT_COMPAT_PEER, the URL of an OpenBao server, and KEYWRIGHT_COMPAT_PEER_TOKEN
// run the same expectations against that server, which shows that they are its own.
// The build tag bao adds the tests of a whole OpenBao, for which KEYWRIGHT_COMPAT_BAO is
// the path of a bao program.
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
	var err error
	if bin, err = os.MkdirTemp("", "keywright-vault-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(bin)
	os.Exit(code)
}

// Each program is built once, by the first test that needs it.
var (
	buildKeywright = sync.OnceValue(func() error { return build("../../..", "./cmd/keywright", "./cmd/keywrightd") })
	buildSOPS      = sync.OnceValue(func() error { return build(".", "github.com/getsops/sops/v3/cmd/sops") })
)

func build(dir string, programs ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", bin}, programs...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w\n%s", cmd.Args, err, out)
	}
	return nil
}

// site is an installation of Keywright with a namespace transit, which Token::"app" may
// use and manage.
type site struct {
	*testing.T
	dir, address, vault string
	token               string // of Token::"app"
}

// may is what a policy lets Token::"app" do, and whoever comes with the certificate of
// the development mode's administrator.
const may = `permit (principal == Token::"app", action, resource in Namespace::"transit");
permit (principal == User::"local:CN=admin", action, resource in Namespace::"transit");`

// newSite makes an installation in development mode, and leaves it stopped.
func newSite(t *testing.T) *site {
	t.Helper()
	if err := buildKeywright(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "vault-") // SoftHSM2 and unix sockets do not take all that t.TempDir returns
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{T: t, dir: dir, address: freeAddress(t), vault: freeAddress(t)}
	first := s.start("is ready: grpc", "keywrightd", "dev", "--dir", s.file("data"), "--port-base", "0")
	s.keywright("", "namespace", "create", "transit", "--plaintext-export")
	s.keywright(may, "policy", "put", "transit/app")
	s.keywright("", "token", "create", "app", "--renewable-for", "1d", "--out", s.file("token"))
	s.token = strings.TrimSpace(s.read("token"))
	first.stop(syscall.SIGTERM)
	s.write("keywrightd.yaml", fmt.Sprintf(`data_dir: data
hsm: {module: %s, token_label: keywright-dev, pin: {file: data/token/pin}}
listen:
  grpc: %s
  rest: 127.0.0.1:0
  metrics: 127.0.0.1:0
vault:
  address: %s
`, findModule(t), s.address, s.vault))
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *site) read(name string) string {
	s.Helper()
	text, err := os.ReadFile(s.file(name))
	if err != nil {
		s.Fatal(err)
	}
	return string(text)
}

func (s *site) write(name, text string) {
	s.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

// serve starts the server with the configuration.
func (s *site) serve() *process {
	s.Helper()
	return s.start("is ready: grpc", "keywrightd", "serve", "--config", s.file("keywrightd.yaml"))
}

// target is the served site as a server of transit.
func (s *site) target() target {
	return target{T: s.T, url: "https://" + s.vault, token: s.token, ca: s.file("data/tls/ca.pem")}
}

func (s *site) command(program string, args ...string) *exec.Cmd {
	if !filepath.IsAbs(program) {
		program = filepath.Join(bin, program)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "KEYWRIGHT_CONFIG="+s.file("data/keywright.yaml"), "KEYWRIGHT_ADDR="+s.address,
		"SOFTHSM2_CONF="+s.file("data/token/softhsm2.conf"), "HOME="+s.dir)
	if s.token == "" { // the development mode chose the address itself
		cmd.Env = append(cmd.Env, "KEYWRIGHT_ADDR=")
	}
	return cmd
}

// keywright runs the command line tool to its end.
func (s *site) keywright(stdin string, args ...string) string {
	s.Helper()
	cmd := s.command("keywright", args...)
	cmd.Stdin = strings.NewReader(stdin)
	return s.run(cmd)
}

// run runs a program to its end and returns what it printed.
func (s *site) run(cmd *exec.Cmd) string {
	s.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// process is a program that runs until it is stopped.
type process struct {
	*testing.T
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
}

// start starts a program and waits until it prints a text.
func (s *site) start(until, program string, args ...string) *process {
	s.Helper()
	p := begin(s.T, s.command(program, args...))
	p.await(until)
	return p
}

// begin starts a program, which ends with the test.
func begin(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{T: t, cmd: cmd, done: make(chan struct{})}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = writer, writer
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	go p.collect(reader)
	t.Cleanup(func() { p.stop(syscall.SIGKILL) })
	return p
}

func (p *process) collect(from *os.File) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		p.mu.Lock()
		p.text.WriteString(lines.Text() + "\n")
		p.mu.Unlock()
	}
	_ = p.cmd.Wait() // how it ended is seen where it matters
	close(p.done)
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the program by a signal and waits for the end.
func (p *process) stop(by syscall.Signal) {
	if err := p.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.Error(err)
	}
	<-p.done
	if p.Failed() {
		p.Logf("%s:\n%s", p.cmd.Args, p.printed())
	}
}

// await waits until the program prints a text.
func (p *process) await(text string) {
	p.Helper()
	await(p.T, text, func() bool { return p.ended() || strings.Contains(p.printed(), text) })
	if p.ended() {
		p.Fatalf("%s ended:\n%s", p.cmd.Args, p.printed())
	}
}

func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %q", what)
		}
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
