package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// asProgram makes the test binary be keywrightd, so that tests run real processes
// with the race detector in them. A server starts itself as its worker, with a clean
// environment.
const asProgram = "KEYWRIGHTD_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || asWorker() {
		main()
	}
	dir, err := os.MkdirTemp("", "keywright-cli-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cliPath = filepath.Join(dir, "keywright")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// asWorker tells whether a server started this process as its worker. It begins once
// more then with what program gives to servers, and workers do not get from them.
func asWorker() bool {
	if len(os.Args) != 2 || os.Args[1] != worker.CommandName {
		return false
	}
	if os.Getenv("GORACE") == "" {
		err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), raceOptions))
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}

// raceOptions keep the race detector from making a program wait at its end.
const raceOptions = "GORACE=atexit_sleep_ms=0"

// cliPath is where the command line tool is built to.
var cliPath string

// patience is how long a process may take for what takes moments.
const patience = 60 * time.Second

// site is one installation's surroundings: a token, a data directory, and a
// configuration file.
type site struct {
	token  *softhsm.Token
	dir    string
	config string // path of the configuration
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{token: softhsmtest.Token(t), dir: t.TempDir()}
	s.config = filepath.Join(s.dir, "keywrightd.yaml")
	s.configure(t, "")
	return s
}

func (s *site) data() string { return filepath.Join(s.dir, "data") }

// configure writes the configuration, with lines of the test's own behind it.
func (s *site) configure(t *testing.T, more string) {
	t.Helper()
	s.configureHSM(t, s.token.Module, s.token.Label, "file: "+s.token.PINFile, more)
}

func (s *site) configureHSM(t *testing.T, module, label, pin, more string) {
	t.Helper()
	text := fmt.Sprintf("data_dir: data\nhsm: {module: %s, token_label: %s, pin: {%s}}\n"+
		"listen: {grpc: '127.0.0.1:0', rest: '127.0.0.1:0', metrics: '127.0.0.1:0'}\n%s", module, label, pin, more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// keywrightd prepares a process; nothing that it prints may hold the PIN.
func (s *site) keywrightd(t *testing.T, args ...string) *exec.Cmd {
	return program(t, append(args, "--config", s.config)...)
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	// A race ends the program with an exit code of its own; it need not wait a
	// second at each end for more of them.
	cmd.Env = append(os.Environ(), asProgram+"=1", raceOptions)
	return cmd
}

// output is what a process printed.
type output struct {
	code           int
	stdout, stderr string
}

// finish runs a process to its end.
func finish(t *testing.T, cmd *exec.Cmd) output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return output{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// run runs a command of the site to its end.
func (s *site) run(t *testing.T, args ...string) output {
	t.Helper()
	got := finish(t, s.keywrightd(t, args...))
	s.checkSecrets(t, got.stdout+got.stderr)
	return got
}

func (s *site) checkSecrets(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, softhsmtest.PIN(t, s.token)) {
		t.Error("the PIN was printed")
	}
}

// must fails the test unless the command succeeded.
func must(t *testing.T, got output) output {
	t.Helper()
	if got.code != 0 {
		t.Fatalf("exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	return got
}

// refused fails the test unless the command ended with that code and one line
// about it, on standard error.
func refused(t *testing.T, got output, code int, want string) {
	t.Helper()
	if got.code != code || !strings.Contains(got.stderr, want) {
		t.Fatalf("exit code %d, want %d with %q\n%s%s", got.code, code, want, got.stdout, got.stderr)
	}
	if strings.Contains(got.stderr, "goroutine ") || strings.Contains(got.stderr, "Usage:") {
		t.Errorf("more than a line:\n%s", got.stderr)
	}
	var lines []string
	for line := range strings.Lines(got.stderr) {
		if strings.HasPrefix(line, "keywrightd: ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 {
		t.Errorf("want one line, got %q", lines)
	}
}

// daemon is a running server.
type daemon struct {
	cmd                 *exec.Cmd
	grpc, rest, metrics string
	ended               chan struct{}

	mu   sync.Mutex
	text strings.Builder
}

var readyLine = regexp.MustCompile(`^keywrightd \S+ is ready: grpc (\S+), rest (\S+), metrics (\S+)\n$`)

// start starts a server and waits until it says that it is ready.
func start(t *testing.T, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{cmd: cmd, ended: make(chan struct{})}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = d
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan []string, 1)
	go d.read(stdout, ready)
	t.Cleanup(func() { d.kill() })
	select {
	case addresses := <-ready:
		d.grpc, d.rest, d.metrics = addresses[1], addresses[2], addresses[3]
	case <-d.ended:
		t.Fatalf("the server ended (%v):\n%s", cmd.ProcessState, d.printed())
	case <-time.After(patience):
		t.Fatalf("the server is not ready:\n%s", d.printed())
	}
	return d
}

// read collects what the server prints, until it ends.
func (d *daemon) read(stdout io.Reader, ready chan<- []string) {
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		_, _ = d.Write([]byte(line))
		if match := readyLine.FindStringSubmatch(line); match != nil {
			ready <- match
		}
		if err != nil {
			break
		}
	}
	_ = d.cmd.Wait()
	close(d.ended)
}

// Write collects standard error.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(p)
}

func (d *daemon) printed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.String()
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// wait waits for the end and returns the exit code.
func (d *daemon) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Fatalf("the server does not end:\n%s", d.printed())
	}
	return d.cmd.ProcessState.ExitCode()
}

// stop ends the server as an operator does.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := d.wait(t); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, d.printed())
	}
	if strings.Contains(d.printed(), "DATA RACE") {
		t.Fatal(d.printed())
	}
}

func (s *site) serve(t *testing.T) *daemon {
	t.Helper()
	return start(t, s.keywrightd(t, "serve"))
}

// buildCLI builds the command line tool, once for all tests.
var buildCLI = sync.OnceValue(func() error {
	build := exec.Command("go", "build", "-o", cliPath, "../keywright")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// keywright prepares a call of the command line tool with the administrator's
// profile below dir.
func (d *daemon) keywright(t *testing.T, dir, stdin string, args ...string) *exec.Cmd {
	t.Helper()
	if err := buildCLI(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), cliPath, args...)
	cmd.Env = append(os.Environ(), "KEYWRIGHT_CONFIG="+filepath.Join(dir, "keywright.yaml"), "KEYWRIGHT_ADDR="+d.grpc, "KEYWRIGHT_STATE_DIR="+filepath.Join(dir, "state"))
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// call calls the server as the administrator and returns what was printed.
func (d *daemon) call(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	got := finish(t, d.keywright(t, dir, stdin, args...))
	if got.code != 0 {
		t.Fatalf("keywright %v: exit code %d\n%s%s\nserver:\n%s", args, got.code, got.stdout, got.stderr, d.printed())
	}
	return got.stdout
}
