package server_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

// TestResumedSessionsAreVerified: a resumed TLS session has its client's
// principal, and is refused once the client's CA is gone.
func TestResumedSessionsAreVerified(t *testing.T) {
	h := newHarness(t, nil)
	r := h.client(h.admin())
	transport := r.http.Transport.(*http.Transport)
	transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	resumed := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{TLSHandshakeDone: func(s tls.ConnectionState, _ error) { resumed = s.DidResume }})
	ask := func() (string, error) {
		transport.CloseIdleConnections()
		request := must[*http.Request](t)(http.NewRequestWithContext(ctx, http.MethodGet, r.base+"/v1/whoami", nil))
		response, err := r.http.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		var text strings.Builder
		err = response.Write(&text)
		return text.String(), err
	}
	for range 2 {
		if text, err := ask(); err != nil || !strings.Contains(text, `User::\"local:CN=admin\"`) {
			t.Fatalf("%s, %v", text, err)
		}
	}
	if !resumed {
		t.Fatal("the session was not resumed, so nothing was tested")
	}
	certificate := h.ca.issue(t, leaf{name: "localhost", server: true})
	newAuthority(t, "Next CA").writeFiles(h.dir, certificate)
	eventually(t, func() bool { return strings.Contains(h.log.String(), "certificates loaded anew") })
	if text, err := ask(); err == nil {
		t.Errorf("a client of a CA that is gone was answered: %s", text)
	}
}

// TestAmbiguousTrust: which domain a client belongs to is never guessed.
func TestAmbiguousTrust(t *testing.T) {
	h := newHarness(t, func(c *server.Config) {
		c.TLS.ClientCAs = append(c.TLS.ClientCAs, server.Bundle{Name: "twin", File: c.TLS.ClientCAs[0].File})
	})
	_, err := whoAmI(t.Context(), h.dial(h.admin()))
	wantStatus(t, err, codes.Unavailable)
	if _, metrics := httpGet(t, "http://"+h.server.MetricsAddr().String()+"/metrics"); !strings.Contains(metrics, `reason="AMBIGUOUS_CA"`) {
		t.Error("metrics do not say why")
	}
}

func TestTLSVersion(t *testing.T) {
	h := newHarness(t, nil)
	for name, address := range map[string]string{"gRPC": h.server.GRPCAddr().String(), "REST": h.server.RESTAddr().String()} {
		c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: h.ca.pool, ServerName: "localhost", MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}})
		if err == nil {
			c.Close()
			t.Errorf("%s accepts TLS 1.2", name)
		}
	}
}

// TestPlaintext serves tokens on loopback; there are no certificates then.
func TestPlaintext(t *testing.T) {
	h := newHarness(t, nil)
	h.prepare()
	token := h.createToken("app")
	h.start(server.Config{Service: h.service, GRPCAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0", Plaintext: true})
	c := must[*grpc.ClientConn](t)(grpc.NewClient(h.server.GRPCAddr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer c.Close()
	_, err := whoAmI(t.Context(), c)
	wantStatus(t, err, codes.Unauthenticated)
	x := pb.NewCryptoClient(c)
	q := &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")}
	must[*pb.EncryptResponse](t)(x.Encrypt(t.Context(), q, grpc.PerRPCCredentials(plainBearer(token))))
	r := &restClient{t: t, base: "http://" + h.server.RESTAddr().String(), token: token, http: http.DefaultClient}
	r.ok("POST", "/v1/namespaces/app/keys/card:encrypt", `{"plaintext":"AA=="}`)
}

// TestManyClients runs all surfaces at once, for the race detector.
func TestManyClients(t *testing.T) {
	h := newHarness(t, nil)
	h.prepare()
	who := identityOf{token: h.createToken("app")}
	x, r := pb.NewCryptoClient(h.dial(who)), h.client(who)
	done := make(chan error, 8)
	for worker := range 8 {
		go func() {
			for range 50 {
				if worker%2 == 0 {
					r.ok("POST", "/v1/namespaces/app/keys/card:encrypt", `{"plaintext":"AA=="}`)
					continue
				}
				sealed, err := x.Encrypt(context.Background(), &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("x")})
				if err == nil {
					_, err = x.Decrypt(context.Background(), &pb.DecryptRequest{Namespace: "app", Ciphertext: sealed.Ciphertext})
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
