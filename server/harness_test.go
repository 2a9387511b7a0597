package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store/badger"
	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

const testPolicy = `
	permit (principal == User::"local:CN=admin", action, resource);
	permit (principal == Token::"app", action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"app");
	permit (principal == Workload::"local:spiffe://example.org/billing", action in Action::"encrypter", resource in Namespace::"app");
`

// harness is a whole server on a real token, store and audit log.
type harness struct {
	t       testing.TB
	device  *device
	service *kms.Service
	server  *server.Server
	metrics *server.Metrics
	dir     string
	ca      *authority
	log     *lockedBuffer
	stop    context.CancelFunc
	served  chan error
}

func newHarness(t testing.TB, change func(*server.Config)) *harness {
	t.Helper()
	return newHarnessAt(t, &clock{}, change)
}

func newHarnessAt(t testing.TB, at *clock, change func(*server.Config)) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir(), device: openDevice(t), ca: newAuthority(t, "Local CA"), log: &lockedBuffer{}, served: make(chan error, 1)}
	h.metrics = server.NewMetrics()
	h.openService(at)
	h.ca.writeFiles(h.dir, h.ca.issue(t, leaf{name: "localhost", server: true}))
	config := server.Config{
		Service: h.service, GRPCAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0", MetricsAddress: "127.0.0.1:0",
		TLS:     server.TLS{CertFile: h.file("server.pem"), KeyFile: h.file("server.key"), ClientCAs: []server.Bundle{{Name: "local", File: h.file("ca.pem")}}},
		Metrics: h.metrics, Clock: at.now, Version: "test", DrainTimeout: 10 * time.Second,
		Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&config)
	}
	h.start(config)
	return h
}

func (h *harness) openService(at *clock) {
	h.t.Helper()
	store := must[*badger.Store](h.t)(badger.Open(badger.Options{Dir: h.file("store")}))
	log := must[*audit.Log](h.t)(audit.Open(h.file("audit"), audit.Options{}))
	config := kms.Config{Store: store, Audit: log, HSM: h.device, Observer: h.metrics, Clock: at.now}
	must[kms.Installation](h.t)(kms.Initialize(h.t.Context(), config, kms.InitOptions{DevMode: true,
		Policies: []policy.Policy{{Name: "test", Text: testPolicy}}}))
	h.service = must[*kms.Service](h.t)(kms.Open(h.t.Context(), config))
	h.t.Cleanup(func() {
		if err := h.service.Close(context.Background()); err != nil {
			h.t.Error(err)
		}
		_, _ = store.Close(), log.Close()
	})
}

func (h *harness) start(config server.Config) {
	h.t.Helper()
	h.server = must[*server.Server](h.t)(server.New(config))
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	go func() { h.served <- h.server.Serve(ctx) }()
	h.t.Cleanup(func() { h.drain() })
	if !config.Plaintext {
		h.waitServing()
	}
}

// drain ends the server and returns what Serve returned.
func (h *harness) drain() error {
	h.stop()
	err := <-h.served
	h.served <- err
	return err
}

func (h *harness) waitServing() {
	h.t.Helper()
	eventually(h.t, func() bool {
		c, err := tls.Dial("tcp", h.server.GRPCAddr().String(), &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", NextProtos: []string{"h2"}})
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (h *harness) file(name string) string { return filepath.Join(h.dir, name) }

// identityOf is how a test's client authenticates; the zero value does not.
type identityOf struct {
	certificate *tls.Certificate
	token       string
}

func (h *harness) admin() identityOf {
	c := h.ca.issue(h.t, leaf{name: "admin"})
	return identityOf{certificate: &c}
}

func (h *harness) tlsConfig(who identityOf) *tls.Config {
	c := &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost"}
	if who.certificate != nil {
		// Sent whether or not the server's list of CAs asks for it.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who.certificate, nil }
	}
	return c
}

func (h *harness) dial(who identityOf, options ...grpc.DialOption) *grpc.ClientConn {
	h.t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(h.tlsConfig(who))), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if who.token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(who.token)))
	}
	c := must[*grpc.ClientConn](h.t)(grpc.NewClient("passthrough:///"+h.server.GRPCAddr().String(), options...))
	h.t.Cleanup(func() { c.Close() })
	return c
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }

func (h *harness) client(who identityOf) *restClient {
	transport := &http.Transport{TLSClientConfig: h.tlsConfig(who), ForceAttemptHTTP2: true}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &restClient{t: h.t, base: "https://" + h.server.RESTAddr().String(), token: who.token, http: &http.Client{Transport: transport}}
}

// createToken makes a token by the administrator.
func (h *harness) createToken(principal string) string {
	h.t.Helper()
	r, err := pb.NewTokensClient(h.dial(h.admin())).CreateToken(h.t.Context(), &pb.CreateTokenRequest{Principal: principal})
	if err != nil {
		h.t.Fatal(err)
	}
	return r.Token
}

// prepare makes namespace "app" with a key "card", and returns the administrator's connection.
func (h *harness) prepare() *grpc.ClientConn {
	h.t.Helper()
	c := h.dial(h.admin())
	must[*pb.Namespace](h.t)(pb.NewNamespacesClient(c).CreateNamespace(h.t.Context(), &pb.CreateNamespaceRequest{Namespace: "app"}))
	must[*pb.Key](h.t)(pb.NewKeysClient(c).CreateKey(h.t.Context(), &pb.CreateKeyRequest{Namespace: "app", Key: "card"}))
	return c
}

// authority is a CA of the tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

type leaf struct {
	name    string
	uris    []string
	expires time.Time // zero: in an hour
	server  bool
}

func newAuthority(t testing.TB, name string) *authority {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	cert := must[*x509.Certificate](t)(x509.ParseCertificate(der))
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a *authority) issue(t testing.TB, l leaf) tls.Certificate {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	serial := must[*big.Int](t)(rand.Int(rand.Reader, big.NewInt(1<<62)))
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: l.name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: l.expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if l.expires.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if l.server {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames, template.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	for _, u := range l.uris {
		template.URIs = append(template.URIs, must[*url.URL](t)(url.Parse(u)))
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// writeFiles writes the CA and a server certificate where the harness has them.
func (a *authority) writeFiles(dir string, server tls.Certificate) {
	a.t.Helper()
	key := must[[]byte](a.t)(x509.MarshalPKCS8PrivateKey(server.PrivateKey))
	for name, block := range map[string]*pem.Block{
		"ca.pem":     {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"server.pem": {Type: "CERTIFICATE", Bytes: server.Certificate[0]},
		"server.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

// lockedBuffer collects the log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func must[V any](t testing.TB) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatal("it never happened")
}

func wantStatus(t testing.TB, err error, code codes.Code) *status.Status {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("error %v, want %s", err, code)
	}
	return s
}

func withRequestID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
}
