package server_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/keywright/keywright/kms/audit"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

func whoAmI(ctx context.Context, c grpc.ClientConnInterface) (*pb.WhoAmIResponse, error) {
	return pb.NewTokensClient(c).WhoAmI(ctx, &pb.WhoAmIRequest{})
}

// TestWhoIsWho tries each way to authenticate, over gRPC and over REST.
func TestWhoIsWho(t *testing.T) {
	h := newHarness(t, nil)
	token := h.createToken("app")
	issue := func(l leaf) *tls.Certificate {
		c := h.ca.issue(t, l)
		return &c
	}
	stranger := newAuthority(t, "Local CA").issue(t, leaf{name: "admin"})
	serverCert := h.ca.issue(t, leaf{name: "localhost", server: true})
	for name, c := range map[string]struct {
		who       identityOf
		principal string // "" means refused
		reason    string // of the status; "" means that the handshake fails
	}{
		"nobody":               {identityOf{}, "", "NO_CREDENTIALS"},
		"certificate":          {identityOf{certificate: issue(leaf{name: "admin"})}, `User::"local:CN=admin"`, ""},
		"SPIFFE":               {identityOf{certificate: issue(leaf{name: "x", uris: []string{"spiffe://example.org/billing"}})}, `Workload::"local:spiffe://example.org/billing"`, ""},
		"two SPIFFE URIs":      {identityOf{certificate: issue(leaf{name: "x", uris: []string{"spiffe://a/b", "spiffe://a/c"}})}, `User::"local:CN=x"`, ""},
		"another URI":          {identityOf{certificate: issue(leaf{name: "x", uris: []string{"https://a/b"}})}, `User::"local:CN=x"`, ""},
		"name to be escaped":   {identityOf{certificate: issue(leaf{name: "a,b+c"})}, `User::"local:CN=a\\,b\\+c"`, ""},
		"nameless":             {identityOf{certificate: issue(leaf{})}, "", ""},
		"wrong CA":             {identityOf{certificate: &stranger}, "", ""},
		"expired certificate":  {identityOf{certificate: issue(leaf{name: "admin", expires: time.Now().Add(-time.Minute)})}, "", ""},
		"server's certificate": {identityOf{certificate: &serverCert}, "", ""},
		"token":                {identityOf{token: token}, `Token::"app"`, ""},
		"token over certificate": {identityOf{token: token, certificate: issue(leaf{name: "admin"})},
			`Token::"app"`, ""},
		"tampered token": {identityOf{token: tamper(token)}, "", "INVALID_TOKEN"},
		"tampered token over certificate": {identityOf{token: tamper(token), certificate: issue(leaf{name: "admin"})},
			"", "INVALID_TOKEN"},
		"no token at all": {identityOf{token: "kwt_"}, "", "INVALID_TOKEN"},
	} {
		r, err := whoAmI(t.Context(), h.dial(c.who))
		code, a := h.askREST(c.who, "/v1/whoami")
		switch {
		case c.principal != "":
			if err != nil || r.Principal != c.principal || code != http.StatusOK || !strings.Contains(a, strings.ReplaceAll(c.principal, `"`, `\"`)[:12]) {
				t.Errorf("%s: gRPC %v, %v; REST %d %s; want %s", name, r, err, code, a, c.principal)
			}
		case c.reason != "":
			info, _ := details(status.Convert(err))
			if status.Code(err) != codes.Unauthenticated || info.GetReason() != c.reason || code != http.StatusUnauthorized || !strings.Contains(a, c.reason) {
				t.Errorf("%s: gRPC %v, REST %d %s; want %s", name, err, code, a, c.reason)
			}
		default:
			if status.Code(err) != codes.Unavailable || code != 0 {
				t.Errorf("%s: gRPC %v, REST %d %s; want no connection", name, err, code, a)
			}
		}
	}
	if strings.Contains(h.log.String(), token) || strings.Contains(h.log.String(), tamper(token)) {
		t.Error("the log has a token")
	}
}

func tamper(token string) string {
	last := token[len(token)-10]
	return token[:len(token)-10] + string(either(last == 'a', byte('b'), byte('a'))) + token[len(token)-9:]
}

// askREST returns status 0 if there was no answer.
func (h *harness) askREST(who identityOf, path string) (int, string) {
	c := h.client(who)
	request := must[*http.Request](h.t)(http.NewRequest(http.MethodGet, c.base+path, nil))
	if who.token != "" {
		request.Header.Set("Authorization", "Bearer "+who.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text := must[[]byte](h.t)(io.ReadAll(response.Body))
	return response.StatusCode, string(text)
}

func TestDenialsAreRecorded(t *testing.T) {
	h := newHarness(t, nil)
	for range 3 {
		_, err := whoAmI(t.Context(), h.dial(identityOf{}))
		wantStatus(t, err, codes.Unauthenticated)
	}
	stranger := newAuthority(t, "Nobody's CA").issue(t, leaf{name: "admin"})
	_, _ = whoAmI(t.Context(), h.dial(identityOf{certificate: &stranger}))
	_, metrics := httpGet(t, "http://"+h.server.MetricsAddr().String()+"/metrics")
	for _, want := range []string{`keywright_auth_failures_total{reason="NO_CREDENTIALS"} 3`, `keywright_auth_failures_total{reason="UNKNOWN_CA"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if err := h.drain(); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateExpiresOnOpenConnection: its calls and its streams end with it.
func TestCertificateExpiresOnOpenConnection(t *testing.T) {
	h := newHarness(t, nil)
	short := h.ca.issue(t, leaf{name: "admin", expires: time.Now().Add(3 * time.Second)})
	c := h.dial(identityOf{certificate: &short})
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), c))
	tail := must[grpc.ServerStreamingClient[pb.AuditEntry]](t)(pb.NewAuditClient(c).TailEntries(t.Context(), &pb.TailEntriesRequest{Filter: &pb.AuditFilter{Action: "none"}}))
	pipeline := must[grpc.BidiStreamingClient[pb.PipelineRequest, pb.PipelineResponse]](t)(pb.NewCryptoClient(c).Pipeline(t.Context()))
	_, err := tail.Recv()
	if info, _ := details(wantStatus(t, err, codes.Unauthenticated)); info.GetReason() != "CERTIFICATE_EXPIRED" {
		t.Errorf("tail ended with %v", info)
	}
	_, err = pipeline.Recv()
	wantStatus(t, err, codes.Unauthenticated)
	_, err = whoAmI(t.Context(), c)
	if info, _ := details(wantStatus(t, err, codes.Unauthenticated)); info.GetReason() != "CERTIFICATE_EXPIRED" {
		t.Errorf("call ended with %v", info)
	}
}

func TestHealthNeedsNoCredentials(t *testing.T) {
	h := newHarness(t, nil)
	c := h.dial(identityOf{})
	for _, service := range []string{"", "keywright.v1.Crypto"} {
		eventually(t, func() bool {
			r, err := healthpb.NewHealthClient(c).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			return err == nil && r.Status == healthpb.HealthCheckResponse_SERVING
		})
	}
	watch := must[grpc.ServerStreamingClient[healthpb.HealthCheckResponse]](t)(healthpb.NewHealthClient(c).Watch(t.Context(), &healthpb.HealthCheckRequest{}))
	must[*healthpb.HealthCheckResponse](t)(watch.Recv())
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := h.askREST(identityOf{}, path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %q", path, code, body)
		}
		if code, body := httpGet(t, "http://"+h.server.MetricsAddr().String()+path); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s of the metrics: %d %q", path, code, body)
		}
	}
}

func TestReflectionNeedsCredentials(t *testing.T) {
	h := newHarness(t, nil)
	list := func(who identityOf) (*reflectionpb.ServerReflectionResponse, error) {
		s := must[grpc.BidiStreamingClient[reflectionpb.ServerReflectionRequest, reflectionpb.ServerReflectionResponse]](t)(
			reflectionpb.NewServerReflectionClient(h.dial(who)).ServerReflectionInfo(t.Context()))
		_ = s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "keywright.v1.Crypto"}})
		return s.Recv()
	}
	_, err := list(identityOf{})
	wantStatus(t, err, codes.Unauthenticated)
	if r, err := list(h.admin()); err != nil || len(r.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("administrator: %v, %v", r, err)
	}
}

// TestCertificatesAreReloaded replaces server certificate and client CA under a
// running server, at first by files that are no good.
func TestCertificatesAreReloaded(t *testing.T) {
	h := newHarness(t, nil)
	old := h.dial(h.admin())
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), old))
	before := h.ca
	next := newAuthority(t, "Next CA")
	certificate := next.issue(t, leaf{name: "localhost", server: true})
	broken := certificate
	broken.Certificate = [][]byte{[]byte("no certificate")}
	next.writeFiles(h.dir, broken)
	eventually(t, func() bool { return strings.Contains(h.log.String(), "changed certificates cannot be loaded") })
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), h.dial(h.admin())))

	next.writeFiles(h.dir, certificate)
	eventually(t, func() bool { return strings.Contains(h.log.String(), "certificates loaded anew") })
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), old)) // what is open goes on
	h.ca = next
	must[*pb.WhoAmIResponse](t)(whoAmI(t.Context(), h.dial(h.admin())))
	formerly := before.issue(t, leaf{name: "admin"})
	_, err := whoAmI(t.Context(), h.dial(identityOf{certificate: &formerly}))
	wantStatus(t, err, codes.Unavailable)
}

func TestAuditNamesTheCaller(t *testing.T) {
	h := newHarness(t, nil)
	h.prepare()
	app := h.dial(identityOf{token: h.createToken("app")})
	must[*pb.EncryptResponse](t)(pb.NewCryptoClient(app).Encrypt(withRequestID(t.Context(), "by-token"), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}))
	admin := pb.NewAuditClient(h.dial(h.admin()))
	r := must[*pb.ListEntriesResponse](t)(admin.ListEntries(t.Context(), &pb.ListEntriesRequest{Filter: &pb.AuditFilter{RequestId: "by-token"}}))
	if len(r.Entries) != 1 {
		t.Fatalf("%d entries", len(r.Entries))
	}
	e := must[audit.Entry](t)(audit.ParseEntry([]byte(r.Entries[0].Line)))
	if e.Principal != `Token::"app"` || e.Method != "token" || e.TokenID == "" || e.Source != "127.0.0.1" || e.Sequence != r.Entries[0].Sequence {
		t.Errorf("entry %+v", e)
	}
}
