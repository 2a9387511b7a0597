package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

func httpGet(t testing.TB, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, string(must[[]byte](t)(io.ReadAll(response.Body)))
}

// slowCall begins a call that the device holds up, and returns once it is in flight.
func (h *harness) slowCall(c *grpc.ClientConn, name string) (outcome chan error) {
	h.t.Helper()
	outcome = make(chan error, 1)
	before := h.inFlight()
	go func() {
		_, err := pb.NewNamespacesClient(c).CreateNamespace(context.Background(), &pb.CreateNamespaceRequest{Namespace: name})
		outcome <- err
	}()
	eventually(h.t, func() bool { return h.inFlight() == before+1 })
	return outcome
}

func (h *harness) inFlight() (n int) {
	_, text := httpGet(h.t, "http://"+h.server.MetricsAddr().String()+"/metrics")
	_, rest, _ := strings.Cut(text, "\nkeywright_calls_in_flight ")
	_, _ = fmt.Sscan(rest, &n)
	return n
}

func TestAdmission(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.MaxInFlight = 1 })
	c, release := h.dial(h.admin()), h.device.holdWrap()
	slow := h.slowCall(c, "slow")
	start := time.Now()
	_, err := whoAmI(t.Context(), c)
	if info, _ := details(wantStatus(t, err, codes.ResourceExhausted)); info.GetReason() != "OVERLOADED" || time.Since(start) > 30*time.Second {
		t.Errorf("refused with %v after %s", info, time.Since(start))
	}
	if a := h.client(h.admin()).do("GET", "/v1/whoami", ""); a.status != http.StatusTooManyRequests {
		t.Errorf("REST: %d %s", a.status, a.text)
	}
	if _, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health while overloaded: %v", err)
	}
	release()
	if err := <-slow; err != nil {
		t.Errorf("the admitted call: %v", err)
	}
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), c))
}

// TestDeadlines: the client's own, and the server's for clients without one.
func TestDeadlines(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.CallTimeout = 300 * time.Millisecond })
	c, release := h.dial(h.admin()), h.device.holdWrap()
	defer release()
	n := pb.NewNamespacesClient(c)
	start := time.Now()
	_, err := n.CreateNamespace(t.Context(), &pb.CreateNamespaceRequest{Namespace: "slow"})
	wantStatus(t, err, codes.DeadlineExceeded)
	if took := time.Since(start); took < 250*time.Millisecond || took > 10*time.Second {
		t.Errorf("the server's deadline came after %s", took)
	}
	if a := h.client(h.admin()).do("POST", "/v1/namespaces", `{"namespace":"slow"}`); a.status != http.StatusGatewayTimeout {
		t.Errorf("REST: %d %s", a.status, a.text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = n.CreateNamespace(ctx, &pb.CreateNamespaceRequest{Namespace: "slow"})
	wantStatus(t, err, codes.DeadlineExceeded)
	eventually(t, func() bool { return h.inFlight() == 0 })
}

// TestDrain: what is in flight finishes, nothing new begins, streams are ended
// with a reason, and health says so first.
func TestDrain(t *testing.T) {
	h := newHarness(t, nil)
	c, release := h.dial(h.admin()), h.device.holdWrap()
	tail := must[grpc.ServerStreamingClient[pb.AuditEntry]](t)(pb.NewAuditClient(c).TailEntries(t.Context(), &pb.TailEntriesRequest{Backlog: 1}))
	must[*pb.AuditEntry](t)(tail.Recv())
	pipeline := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(c).Pipeline(t.Context()))
	if err := pipeline.Send(&pb.PipelineRequest{Id: 1}); err != nil {
		t.Fatal(err)
	}
	must[*pb.PipelineResponse](t)(pipeline.Recv())
	watch := must[grpc.ServerStreamingClient[healthpb.HealthCheckResponse]](t)(healthpb.NewHealthClient(c).Watch(t.Context(), &healthpb.HealthCheckRequest{}))
	slow := h.slowCall(c, "slow")
	h.stop()
	for must[*healthpb.HealthCheckResponse](t)(watch.Recv()).Status != healthpb.HealthCheckResponse_NOT_SERVING {
	}
	for {
		if _, err := tail.Recv(); err != nil {
			wantStatus(t, err, codes.Unavailable)
			break
		}
	}
	_, err := pipeline.Recv()
	if info, _ := details(wantStatus(t, err, codes.Unavailable)); info.GetReason() != "DRAINING" {
		t.Errorf("the pipeline ended with %v", info)
	}
	select {
	case err := <-slow:
		t.Fatalf("the call in flight ended early: %v", err)
	case err := <-h.served:
		t.Fatalf("Serve returned with a call in flight: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if code, text := httpGet(t, "http://"+h.server.MetricsAddr().String()+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "shutting down") {
		t.Errorf("readiness while draining: %d %q", code, text)
	}
	release()
	if err := <-slow; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := h.drain(); err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// TestDrainIsBounded: a call that does not finish is cancelled.
func TestDrainIsBounded(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.DrainTimeout = 300 * time.Millisecond })
	c, release := h.dial(h.admin()), h.device.holdWrap()
	defer release()
	slow := h.slowCall(c, "slow")
	start := time.Now()
	if err := h.drain(); err != nil || time.Since(start) > 30*time.Second {
		t.Errorf("Serve: %v after %s", err, time.Since(start))
	}
	if err := <-slow; err == nil {
		t.Error("the call was answered although its device never did")
	}
}

// TestPipelineSlowReader: one who does not read holds up nobody else, and takes
// no place among the calls in flight.
func TestPipelineSlowReader(t *testing.T) {
	h := newHarness(t, func(c *server.Config) { c.MaxInFlight = 8 })
	h.prepare()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	random := func(id uint64) *pb.PipelineRequest {
		return &pb.PipelineRequest{Id: id, Operation: &pb.Operation{Request: &pb.Operation_GenerateRandom{
			GenerateRandom: &pb.GenerateRandomRequest{Namespace: "app", NumBytes: 60_000}}}}
	}
	slow := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(h.dial(h.admin())).Pipeline(ctx))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for id := range uint64(1000) {
			if slow.Send(random(id)) != nil {
				return
			}
		}
	}()
	other := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(h.dial(h.admin())).Pipeline(ctx))
	time.Sleep(300 * time.Millisecond) // the slow one's answers fill its window meanwhile
	for id := range uint64(100) {
		if err := other.Send(random(id)); err != nil {
			t.Fatal(err)
		}
		if r := must[*pb.PipelineResponse](t)(other.Recv()); r.Id != id || len(r.Result.GetGenerateRandom().GetData()) != 60_000 {
			t.Fatalf("answer %d: %v", r.Id, r.Result.GetError())
		}
	}
	if n := h.inFlight(); n != 0 {
		t.Errorf("%d calls in flight while nobody works", n)
	}
	cancel()
	<-sent
}

// TestPipelineManyInFlight has more operations under way than there are workers;
// each is answered once.
func TestPipelineManyInFlight(t *testing.T) {
	h := newHarness(t, nil)
	c := h.prepare()
	s := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(c).Pipeline(t.Context()))
	const n = 5000
	go func() {
		for id := range uint64(n) {
			_ = s.Send(&pb.PipelineRequest{Id: id, Operation: &pb.Operation{Request: &pb.Operation_Encrypt{
				Encrypt: &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}}}})
		}
		_ = s.CloseSend()
	}()
	seen := make([]bool, n)
	for range n {
		r := must[*pb.PipelineResponse](t)(s.Recv())
		if seen[r.Id] || r.Result.GetEncrypt() == nil {
			t.Fatalf("answer %d: %v", r.Id, r)
		}
		seen[r.Id] = true
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
}

func TestConfig(t *testing.T) {
	h := newHarness(t, nil)
	for name, c := range map[string]struct {
		config server.Config
		says   string
	}{
		"no service":               {server.Config{}, "Service"},
		"no TLS":                   {server.Config{Service: h.service, GRPCAddress: "127.0.0.1:0"}, "plaintext must be asked for"},
		"plaintext everywhere":     {server.Config{Service: h.service, GRPCAddress: "0.0.0.0:0", Plaintext: true}, "not a loopback"},
		"REST in plaintext":        {server.Config{Service: h.service, GRPCAddress: "127.0.0.1:0", RESTAddress: ":0", Plaintext: true}, "not a loopback"},
		"missing certificate":      {server.Config{Service: h.service, TLS: server.TLS{CertFile: "none", KeyFile: "none"}}, "server certificate"},
		"missing CA":               {server.Config{Service: h.service, TLS: h.tlsFiles(server.Bundle{Name: "x", File: "none"})}, `client CA bundle "x"`},
		"CA file without a CA":     {server.Config{Service: h.service, TLS: h.tlsFiles(server.Bundle{Name: "x", File: h.file("server.key")})}, "no certificate"},
		"bad bundle name":          {server.Config{Service: h.service, TLS: h.tlsFiles(server.Bundle{Name: "a:b", File: h.file("ca.pem")})}, "must match"},
		"bundle named twice":       {server.Config{Service: h.service, TLS: h.tlsFiles(server.Bundle{Name: "x", File: h.file("ca.pem")}, server.Bundle{Name: "x", File: h.file("ca.pem")})}, "twice"},
		"address in use":           {server.Config{Service: h.service, GRPCAddress: h.server.GRPCAddr().String(), Plaintext: true}, "grpc listener"},
		"metrics of another":       {server.Config{Service: h.service, Plaintext: true, Metrics: h.metrics}, "metrics"},
		"plaintext on loopback ok": {server.Config{Service: h.service, GRPCAddress: "127.0.0.1:0", RESTAddress: "[::1]:0", Plaintext: true}, ""},
	} {
		s, err := server.New(c.config)
		if s != nil {
			s.Close()
		}
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want one that says %q", name, err, c.says)
		}
	}
}

func (h *harness) tlsFiles(bundles ...server.Bundle) server.TLS {
	return server.TLS{CertFile: h.file("server.pem"), KeyFile: h.file("server.key"), ClientCAs: bundles}
}

// TestMetrics looks for each family, and for names that must not be told.
func TestMetrics(t *testing.T) {
	h := newHarness(t, nil)
	x := pb.NewCryptoClient(h.prepare())
	must[*pb.EncryptResponse](t)(x.Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}))
	_, err := x.Decrypt(t.Context(), &pb.DecryptRequest{Namespace: "app", Key: "card", Ciphertext: []byte("x")})
	wantStatus(t, err, codes.InvalidArgument)
	_, text := httpGet(t, "http://"+h.server.MetricsAddr().String()+"/metrics")
	for _, want := range []string{
		`keywright_operations_total{action="Encrypt",algorithm="XAES_256_GCM",code="OK"} 1`,
		`code="INVALID_ARGUMENT"} 1`,
		`keywright_operation_seconds_count{action="Encrypt",algorithm="XAES_256_GCM"} 1`,
		"keywright_hsm_healthy 1", "keywright_hsm_sessions_max ", "keywright_audit_healthy 1", "keywright_audit_queue 0", "keywright_audit_synced_total ", "keywright_store_bytes ", "keywright_audit_entries_total ",
		"keywright_store_healthy 1", "keywright_store_revision ", "keywright_cache_keys ", "keywright_calls_in_flight 0",
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for _, name := range []string{"card", `"app"`, "admin"} {
		if strings.Contains(text, name) {
			t.Errorf("metrics tell the name %s", name)
		}
	}
	var _ kms.Observer = h.metrics
}

// limitFiles makes writes beyond the first byte of any file fail, as they do on
// a full disk, until the function it returns is called.
func limitFiles(t *testing.T) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	lift = sync.OnceFunc(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(lift)
	return lift
}

// TestFullDisk: without an audit line there is no answer, health says so, and
// service comes back by itself.
func TestFullDisk(t *testing.T) {
	h := newHarness(t, nil)
	c := h.prepare()
	lift := limitFiles(t)
	_, err := pb.NewCryptoClient(c).Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")})
	if info, _ := details(wantStatus(t, err, codes.Unavailable)); info.GetReason() != "AUDIT_UNAVAILABLE" {
		t.Errorf("refused with %v", info)
	}
	if a := h.client(h.admin()).do("POST", "/v1/namespaces/app/keys/card:encrypt", `{"plaintext":"AA=="}`); a.status != http.StatusServiceUnavailable {
		t.Errorf("REST: %d %s", a.status, a.text)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, text := h.askREST(identityOf{}, path); code != http.StatusServiceUnavailable || text != "the audit log cannot be written\n" {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	eventually(t, func() bool {
		r, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{})
		return err == nil && r.Status == healthpb.HealthCheckResponse_NOT_SERVING
	})
	lift()
	eventually(t, func() bool {
		code, _ := h.askREST(identityOf{}, "/readyz")
		return code == http.StatusOK
	})
	must[*pb.EncryptResponse](t)(pb.NewCryptoClient(c).Encrypt(t.Context(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}))
	if !strings.Contains(h.log.String(), "level=ERROR msg=\"call failed\" method=Encrypt") {
		t.Error("the server's own failure is not logged as an error")
	}
}
