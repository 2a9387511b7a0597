package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/softhsm/softhsmtest"
)

func TestServeNeedsAnInstallation(t *testing.T) {
	s := newSite(t)
	refused(t, s.run(t, "serve"), 7, "keywrightd init")
	if _, err := os.Stat(s.data()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("serve made the data directory: %v", err)
	}
}

func TestServeNeedsItsAuditLog(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	remove(t, filepath.Join(s.data(), "audit"))
	got := s.run(t, "serve")
	if got.code != 1 || !strings.Contains(got.stderr, "no audit log") {
		t.Fatalf("exit code %d: %s", got.code, got.stderr)
	}
}

func TestServeRefuses(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	wrong := filepath.Join(s.dir, "wrong-pin")
	if err := os.WriteFile(wrong, []byte("no-such-pin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pin := "file: " + s.token.PINFile
	tests := map[string]struct {
		module, label, pin, more string
		code                     int
		want                     string
	}{
		"a typo":             {s.token.Module, s.token.Label, pin, "audit: {durabilty: fsync}\n", 3, "line 4: field durabilty is unknown"},
		"a missing module":   {"/no/such/module.so", s.token.Label, pin, "", 4, "apt-get install softhsm2"},
		"a module that's no": {wrong, s.token.Label, pin, "", 4, "hsm.module"},
		"a wrong PIN":        {s.token.Module, s.token.Label, "file: " + wrong, "", 5, "hsm.pin"},
		"a wrong label":      {s.token.Module, "absent", pin, "", 6, s.token.Label},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s.configureHSM(t, test.module, test.label, test.pin, test.more)
			got := s.run(t, "serve")
			refused(t, got, test.code, test.want)
			if strings.Contains(got.stderr, "no-such-pin") {
				t.Error("the PIN was printed")
			}
		})
	}
}

// TestWrongPINIsTriedOnce gives the PIN through a pipe that counts its readers.
func TestWrongPINIsTriedOnce(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	pipe := filepath.Join(s.dir, "pin")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var readers atomic.Int32
	go func() {
		for {
			f, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for a reader
			if err != nil {
				return
			}
			readers.Add(1)
			_, _ = f.WriteString("no-such-pin\n")
			_ = f.Close()
			time.Sleep(50 * time.Millisecond) // until the reader has seen the end
		}
	}()
	s.configureHSM(t, s.token.Module, s.token.Label, "file: "+pipe, "")
	refused(t, s.run(t, "serve"), 5, "not tried again")
	if n := readers.Load(); n != 1 {
		t.Errorf("the PIN was read %d times", n)
	}
}

func TestPINSources(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	t.Run("environment", func(t *testing.T) {
		s.configureHSM(t, s.token.Module, s.token.Label, "env: TOKEN_PIN", "")
		cmd := s.keywrightd(t, "serve")
		cmd.Env = append(cmd.Env, "TOKEN_PIN="+softhsmtest.PIN(t, s.token))
		start(t, cmd).stop(t)
	})
	t.Run("descriptor", func(t *testing.T) {
		s.configureHSM(t, s.token.Module, s.token.Label, "fd: 3", "")
		pin, err := os.Open(s.token.PINFile)
		if err != nil {
			t.Fatal(err)
		}
		defer pin.Close()
		cmd := s.keywrightd(t, "serve")
		cmd.ExtraFiles = []*os.File{pin} // the first is descriptor 3
		start(t, cmd).stop(t)
	})
}

func TestOneServerPerDataDirectory(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	refused(t, s.run(t, "serve"), 9, "another")
	refused(t, s.run(t, "init"), 9, "another")
	d.call(t, s.data(), "", "status") // the first one goes on
	d.stop(t)
	s.serve(t).stop(t)
}

func TestRestartKeepsEverything(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	d.call(t, s.data(), "", "namespace", "create", "demo")
	d.call(t, s.data(), "", "key", "create", "demo/first")
	d.call(t, s.data(), `permit (principal, action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"demo");`,
		"policy", "put", "demo/tour")
	ciphertext := d.call(t, s.data(), "attack at dawn", "encrypt", "demo/first", "--base64")
	d.stop(t)

	d = s.serve(t)
	d.call(t, s.data(), "", "key", "rotate", "demo/first")
	d.kill() // and without a farewell

	d = s.serve(t)
	if got := d.call(t, s.data(), ciphertext, "decrypt", "demo/first", "--base64"); got != "attack at dawn" {
		t.Errorf("decrypted %q", got)
	}
	if got := d.call(t, s.data(), "", "key", "describe", "demo/first", "-o", "json"); !strings.Contains(got, `"primaryVersion": 2`) {
		t.Errorf("the rotation was lost: %s", got)
	}
	d.stop(t)
}

func TestProcessKeepsItsMemoryToItself(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	limits := proc(t, d, "limits")
	if line := field(limits, "Max core file size"); !strings.HasPrefix(strings.TrimSpace(line), "0  ") {
		t.Errorf("core limit: %q", line)
	}
	status := proc(t, d, "status")
	if got := strings.TrimSpace(field(status, "Umask:")); got != "0077" {
		t.Errorf("umask %q", got)
	}
	locked := strings.TrimSpace(field(status, "VmLck:")) != "0 kB"
	if denied := strings.Contains(d.printed(), "memory is not locked"); locked == denied {
		t.Errorf("memory locked: %v, said not to be: %v", locked, denied)
	}
	d.stop(t)
}

// needProc ends a test that cannot learn about a process: it fails where CI is set,
// and is skipped elsewhere.
func needProc(t testing.TB, err error) {
	t.Helper()
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("no /proc to look into: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// proc reads a file about a process.
func proc(t *testing.T, d *daemon, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", d.cmd.Process.Pid, name))
	needProc(t, err)
	return string(text)
}

// field returns what stands behind a name on its line.
func field(text, name string) string {
	_, rest, _ := strings.Cut(text, name)
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func TestPlaintextOnLoopback(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	s.configure(t, "tls: {plaintext: true}\n")
	d := s.serve(t)
	for _, address := range []string{d.rest, d.metrics} {
		if got := get(t, "http://"+address+"/healthz"); got == "" {
			t.Errorf("%s/healthz answers nothing", address)
		}
	}
	d.stop(t)
}

func TestUnixSocket(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	// Behind the addresses, in the same mapping.
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	unix := fmt.Sprintf("metrics: '127.0.0.1:0', unix: [{path: s.sock, mode: 0600, peers: [{uid: %d, principal: 'Workload::\"local:app\"', groups: [apps]}]}]", os.Getuid())
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), "metrics: '127.0.0.1:0'", unix, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, s.run(t, "check-config"))
	d := s.serve(t)
	address := "unix:" + filepath.Join(s.dir, "s.sock")
	got := d.call(t, s.data(), "", "whoami", "--addr", address)
	for _, want := range []string{`Workload::"local:app"`, "unix", "apps"} {
		if !strings.Contains(got, want) {
			t.Errorf("whoami lacks %s:\n%s", want, got)
		}
	}
	token := strings.TrimSpace(d.call(t, s.data(), "", "token", "create", "app"))
	cmd := d.keywright(t, s.data(), "", "whoami", "--addr", address)
	cmd.Env = append(cmd.Env, "KEYWRIGHT_TOKEN="+token)
	if got := finish(t, cmd); !strings.Contains(got.stdout, `Token::"app"`) {
		t.Errorf("with a token: %+v", got)
	}
	d.kill()
	d = s.serve(t) // in place of the socket that the dead one left
	d.call(t, s.data(), "", "whoami", "--addr", address)
	d.stop(t)
	if _, err := os.Lstat(filepath.Join(s.dir, "s.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v: %s", url, response.Status, err, body)
	}
	return string(body)
}

// slowCall starts a call that takes a while, and waits until the server works on
// it. What it returns waits for the call's end.
func slowCall(t *testing.T, s *site, d *daemon) (finished func() output) {
	t.Helper()
	d.call(t, s.data(), "", "namespace", "create", "demo")
	d.call(t, s.data(), "", "key", "create", "demo/first")
	d.call(t, s.data(), `permit (principal, action in Action::"encrypter", resource in Namespace::"demo");`, "policy", "put", "demo/tour")
	result := make(chan output, 1)
	cmd := d.keywright(t, s.data(), "", "datakey", "demo/first", "--pair", "RSA_PSS_4096_SHA512")
	go func() { result <- finish(t, cmd) }()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if inFlight(get(t, "http://"+d.metrics+"/metrics")) > 0 {
			return func() output { return <-result }
		}
		if len(result) > 0 {
			t.Fatalf("the call ended at once: %+v", <-result)
		}
	}
	t.Fatal("the call never reached the server")
	return nil
}

// inFlight reads from the metrics how many calls are being worked on.
func inFlight(metrics string) (n float64) {
	for line := range strings.Lines(metrics) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "keywright_calls_in_flight") {
			one, _ := strconv.ParseFloat(value, 64)
			n += one
		}
	}
	return n
}

func TestSIGTERMLetsCallsFinish(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	finished := slowCall(t, s, d)
	d.stop(t)
	must(t, finished())
}

// stalledCall sends half a request, so that the server waits for the rest.
func stalledCall(t *testing.T, s *site, d *daemon) {
	t.Helper()
	f := func(name string) string { return filepath.Join(s.data(), "tls", name) }
	pair, err := tls.LoadX509KeyPair(f("admin.pem"), f("admin-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(f("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	connection, err := tls.Dial("tcp", d.rest, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	if _, err := io.WriteString(connection, "POST /v1/namespaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // it says nothing from which one could tell that it waits
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	stalledCall(t, s, d)
	for range 2 {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // two signals at once may arrive as one
	}
	if code := d.wait(t); code != exitInterrupted {
		t.Errorf("exit code %d:\n%s", code, d.printed())
	}
	s.serve(t).stop(t)
}

func TestDev(t *testing.T) {
	softhsmtest.NeedModule(t)
	dir := t.TempDir()
	dev := func() *daemon { return start(t, program(t, "dev", "--dir", dir, "--port-base", "0")) }
	d := dev()
	for _, want := range []string{"export KEYWRIGHT_CONFIG=" + dir, "keywright namespace create demo"} {
		if !strings.Contains(d.printed(), want) {
			t.Errorf("%q is not in\n%s", want, d.printed())
		}
	}
	if got := d.call(t, dir, "", "status"); !strings.Contains(got, "keywright-dev") {
		t.Errorf("status: %s", got)
	}
	d.call(t, dir, "", "namespace", "create", "demo")
	refused(t, finish(t, program(t, "dev", "--dir", dir, "--port-base", "0")), 9, "another")
	d.stop(t)

	d = dev()
	if got := d.call(t, dir, "", "namespace", "list"); !strings.Contains(got, "demo") {
		t.Errorf("the namespace was lost: %s", got)
	}
	_, port, err := net.SplitHostPort(d.grpc)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, finish(t, program(t, "dev", "--dir", t.TempDir(), "--port-base", port)), 10, "--port-base")
	d.stop(t)
}

func TestDevSaysWhatToInstall(t *testing.T) {
	cmd := program(t, "dev", "--dir", t.TempDir())
	cmd.Env = append(cmd.Env, "SOFTHSM2_MODULE=/no/such/module.so")
	refused(t, finish(t, cmd), 4, "apt-get install softhsm2")
}
