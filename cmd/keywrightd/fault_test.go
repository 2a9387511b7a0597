package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	transport "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/keywright/keywright/hsm/hsmtest"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// truthWithin is how long health and metrics may take to tell the truth.
const truthWithin = slower * 5 * time.Second

// faultSite is a server on the fault module, with a key in use.
type faultSite struct {
	*site
	*testing.T
	module *hsmtest.Module
	daemon *daemon
	conn   *grpc.ClientConn
}

// newFaultSite starts a server as shipped, apart from more in its hsm section.
func newFaultSite(t *testing.T, more string) *faultSite {
	t.Helper()
	s := &faultSite{site: newSite(t), T: t}
	s.module = hsmtest.New(t, s.token.Module)
	text := fmt.Sprintf("data_dir: data\nhsm:\n  module: %s\n  token_label: %s\n  pin: {file: %s}\n%s"+
		"listen: {grpc: '127.0.0.1:0', rest: '127.0.0.1:0', metrics: '127.0.0.1:0'}\n", s.module.Path, s.token.Label, s.token.PINFile, more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, s.run(t, "init"))
	s.daemon = s.serve(t)
	for _, args := range [][]string{{"namespace", "create", "demo"}, {"key", "create", "demo/first"}} {
		s.daemon.call(t, s.data(), "", args...)
	}
	s.daemon.call(t, s.data(), `permit (principal, action in Action::"encrypter", resource in Namespace::"demo");`, "policy", "put", "demo/all")
	s.dial()
	return s
}

// dial connects as the administrator.
func (s *faultSite) dial() {
	s.Helper()
	f := func(name string) string { return filepath.Join(s.data(), "tls", name) }
	pair, err := tls.LoadX509KeyPair(f("admin.pem"), f("admin-key.pem"))
	if err != nil {
		s.Fatal(err)
	}
	ca, err := os.ReadFile(f("ca.pem"))
	if err != nil {
		s.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	s.conn, err = grpc.NewClient("passthrough:///"+s.daemon.grpc,
		grpc.WithTransportCredentials(transport.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "localhost"})))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = s.conn.Close() })
}

// encrypt is a hot-path call on a key that was unwrapped.
func (s *faultSite) encrypt() error {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	_, err := pb.NewCryptoClient(s.conn).Encrypt(ctx, &pb.EncryptRequest{Namespace: "demo", Key: "first", Plaintext: []byte("x")})
	return err
}

// createNamespace is a call that needs the token.
func (s *faultSite) createNamespace(name string) error {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	_, err := pb.NewNamespacesClient(s.conn).CreateNamespace(ctx, &pb.CreateNamespaceRequest{Namespace: name})
	return err
}

// load encrypts all the time until the function that it returns is called, which
// tells how often, and how often in vain.
func (s *faultSite) load() (stop func() (served, failed int64)) {
	var done sync.WaitGroup
	var served, failed atomic.Int64
	ctx, cancel := context.WithCancel(s.Context())
	for range 2 {
		done.Go(func() {
			for ctx.Err() == nil {
				if err := s.encrypt(); err != nil {
					failed.Add(1)
					s.Logf("a call on an unwrapped key failed: %v", err)
				}
				served.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		done.Wait()
		return served.Load(), failed.Load()
	}
}

// healthy reads the metric.
func (s *faultSite) healthy() bool {
	s.Helper()
	return field(get(s.T, "http://"+s.daemon.metrics+"/metrics"), "\nkeywright_hsm_healthy ") == "1"
}

// until waits for the metric and tells how long that took.
func (s *faultSite) until(healthy bool, limit time.Duration) time.Duration {
	s.Helper()
	began := time.Now()
	for s.healthy() != healthy {
		if time.Since(began) > limit {
			s.Fatalf("keywright_hsm_healthy is still %v after %v\n%s", !healthy, limit, s.daemon.printed())
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// objects counts the token's objects by SoftHSM2's files.
func (s *faultSite) objects() int {
	s.Helper()
	files, err := filepath.Glob(filepath.Join(s.token.Dir, "tokens", "*", "*.object"))
	if err != nil {
		s.Fatal(err)
	}
	n := 0
	for _, file := range files {
		if filepath.Base(file) != "token.object" {
			n++
		}
	}
	return n
}

// descriptors counts the server's open files.
func (s *faultSite) descriptors() int {
	s.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.daemon.cmd.Process.Pid))
	needProc(s, err)
	return len(open)
}

// serverFault is a fault as the whole server meets it.
type serverFault struct {
	name       string
	more       string // of the hsm section
	begin, end func(*faultSite)
	unnoticed  bool // it is over before anybody could notice
}

func TestFaultServer(t *testing.T) {
	tokens := func(s *faultSite) string { return filepath.Join(s.token.Dir, "tokens") }
	all := func(f hsmtest.Fault) func(*faultSite) { return func(s *faultSite) { s.module.InjectAll(f) } }
	deviceError := all(hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_ERROR})
	hang := all(hsmtest.Fault{Do: hsmtest.Hang})
	inProcess := "  in_process: true\n"
	for _, f := range []serverFault{
		{name: "device error", begin: deviceError},
		{name: "device error, module in process", more: inProcess, begin: deviceError},
		{name: "everything hangs", begin: hang},
		{name: "everything hangs, module in process", more: inProcess, begin: hang},
		{name: "module crashes in every call", begin: all(hsmtest.Fault{Do: hsmtest.Crash})},
		{name: "worker killed once", begin: func(s *faultSite) {
			s.module.Inject("C_Encrypt", hsmtest.Fault{Do: hsmtest.Kill, Times: 1})
			s.eventually(func() error { return unless(s.module.Fired("C_Encrypt") == 1, "not killed yet") })
		}, unnoticed: true},
		{name: "token directory away",
			begin: func(s *faultSite) { s.must(os.Rename(tokens(s), tokens(s)+".away")) },
			end:   func(s *faultSite) { s.must(os.Rename(tokens(s)+".away", tokens(s))) }},
		{name: "no session to be had", begin: func(s *faultSite) {
			s.module.LimitSessions(1)
			for _, use := range []string{"C_EncryptInit", "C_DecryptInit", "C_SignInit"} {
				s.module.Inject(use, hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_SESSION_HANDLE_INVALID})
			}
		}},
	} {
		t.Run(f.name, func(t *testing.T) { f.run(newFaultSite(t, f.more)) })
	}
}

// run goes through a fault's whole life, under load.
func (f serverFault) run(s *faultSite) {
	s.until(true, patience)
	objects, logins, descriptors := s.objects(), s.module.Calls("C_Login"), s.descriptors()
	stop := s.load()
	began := time.Now()
	f.begin(s)
	answer, truth := "ok", "well"
	if !f.unnoticed {
		s.until(false, time.Until(began.Add(truthWithin)))
		truth = fmt.Sprintf("keywright_hsm_healthy 0 after %.1f s", time.Since(began).Seconds())
		err := s.createNamespace("during")
		if code := status.Code(err); code != codes.Unavailable && code != codes.ResourceExhausted {
			s.Errorf("a call that needs the token: %v", err)
		}
		answer = status.Code(err).String()
		if s.healthy() {
			s.Error("health changed its mind while the fault lasts")
		}
	}
	// What was unwrapped is served, so the server is alive and ready.
	for _, path := range []string{"/healthz", "/readyz"} {
		get(s.T, "http://"+s.daemon.metrics+path)
	}
	healed := time.Now()
	s.module.Reset()
	if f.end != nil {
		f.end(s)
	}
	s.until(true, patience)
	s.eventually(func() error { return s.createNamespace("after") })
	recovery := time.Since(healed)
	served, failed := stop()
	if failed != 0 || served == 0 {
		s.Errorf("%d of %d calls on an unwrapped key failed", failed, served)
	}
	if n := s.objects(); n != objects {
		s.Errorf("%d objects on the token, %d before", n, objects)
	}
	s.eventually(func() error { return unless(s.descriptors() <= descriptors+2, "descriptors were left behind") }) // one may be the test's own connection
	tried := s.module.Calls("C_Login") - logins
	if tried > 12 {
		s.Errorf("%d logins", tried)
	}
	s.daemon.stop(s.T)
	s.Logf("fault: server: %s | callers: %d hot-path calls, %d failed, others %s | health: %s, /healthz ok | recovery: %.1f s | keys: %d→%d | logins: +%d",
		f.name, served, failed, answer, truth, recovery.Seconds(), objects, s.objects(), tried)
}

func (s *faultSite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *faultSite) eventually(op func() error) {
	s.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := op()
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			s.Fatalf("still failing: %v\n%s", err, s.daemon.printed())
		}
	}
}

func unless(ok bool, text string) error {
	if ok {
		return nil
	}
	return errors.New(text)
}

// Two servers start at once on one installation: one serves, the other says why it
// does not, and the token holds what it held.
func TestFaultTwoServersAtOnce(t *testing.T) {
	s := newFaultSite(t, "")
	s.daemon.stop(t)
	objects, logins := s.objects(), s.module.Calls("C_Login")
	first, second := s.begin(), s.begin()
	select {
	case <-first.ended:
		first, second = second, first
	case <-second.ended:
	case <-time.After(patience):
		t.Fatal("both serve, or neither does")
	}
	if code := second.cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d: %s", code, second.printed())
	}
	s.eventually(func() error { return unless(strings.Contains(first.printed(), "is ready"), "the other does not serve") })
	first.stop(t)
	tried := s.module.Calls("C_Login") - logins
	if s.objects() != objects || tried != 1 {
		t.Errorf("%d objects, %d before; %d logins for one that served", s.objects(), objects, tried)
	}
	t.Logf("fault: server: two servers start at once | callers: exit code 9 for one | health: the other serves | recovery: not needed | keys: %d→%d | logins: +%d", objects, s.objects(), tried)
}

// begin starts a server that may end by itself.
func (s *faultSite) begin() *daemon {
	s.Helper()
	d := &daemon{cmd: s.keywrightd(s.T, "serve"), ended: make(chan struct{})}
	stdout, err := d.cmd.StdoutPipe()
	s.must(err)
	d.cmd.Stderr = d
	s.must(d.cmd.Start())
	go d.read(stdout, make(chan []string, 1))
	s.Cleanup(d.kill)
	return d
}
