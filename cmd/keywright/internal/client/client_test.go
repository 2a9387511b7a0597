package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// scripted is a server that answers each call with the next of its errors, nil
// being success, and remembers what it was sent.
type scripted struct {
	keywrightv1.UnimplementedKeysServer
	keywrightv1.UnimplementedAuditServer

	mu              sync.Mutex
	answers         []error
	idempotencyKeys []string
	authorization   []string
}

func (s *scripted) next(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	s.authorization = append(s.authorization, md.Get("authorization")...)
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return answer
}

func (s *scripted) RotateKey(ctx context.Context, request *keywrightv1.RotateKeyRequest) (*keywrightv1.KeyVersion, error) {
	s.idempotencyKeys = append(s.idempotencyKeys, request.GetIdempotencyKey())
	if err := grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, "req-1")); err != nil {
		return nil, err
	}
	return &keywrightv1.KeyVersion{Version: 7}, s.next(ctx)
}

func (s *scripted) GetKey(ctx context.Context, _ *keywrightv1.GetKeyRequest) (*keywrightv1.Key, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *scripted) TailEntries(_ *keywrightv1.TailEntriesRequest, stream grpc.ServerStreamingServer[keywrightv1.AuditEntry]) error {
	if err := stream.SetHeader(metadata.Pairs(requestIDHeader, "req-2")); err != nil {
		return err
	}
	if err := stream.Send(&keywrightv1.AuditEntry{Sequence: 1}); err != nil {
		return err
	}
	return s.next(stream.Context())
}

func (s *scripted) start(t *testing.T, settings Settings) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	keywrightv1.RegisterKeysServer(server, s)
	keywrightv1.RegisterAuditServer(server, s)
	go func() { _ = server.Serve(listener) }() // it ends with Stop
	t.Cleanup(server.Stop)
	settings.Addr, settings.Plaintext = listener.Addr().String(), true
	c, err := New(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func statusOf(code codes.Code, reason, message string) error {
	s, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "keywright"})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func rotate(ctx context.Context, c *Client) (*keywrightv1.KeyVersion, error) {
	return c.RotateKey(ctx, &keywrightv1.RotateKeyRequest{IdempotencyKey: "once"})
}

func TestUnavailableIsTriedAgain(t *testing.T) {
	away := statusOf(codes.Unavailable, "HSM_AWAY", "the HSM is away")
	s := &scripted{answers: []error{away, away, nil}}
	version, err := rotate(t.Context(), s.start(t, Settings{Token: "kwt_t"}))
	if err != nil || version.GetVersion() != 7 {
		t.Fatalf("got %v, %v", version, err)
	}
	if !slices.Equal(s.idempotencyKeys, []string{"once", "once", "once"}) {
		t.Fatalf("sent %q", s.idempotencyKeys)
	}
	if !slices.Equal(s.authorization, []string{"Bearer kwt_t", "Bearer kwt_t", "Bearer kwt_t"}) {
		t.Fatalf("authorized with %q", s.authorization)
	}
}

func TestTryingEnds(t *testing.T) {
	away := statusOf(codes.Unavailable, "HSM_AWAY", "the HSM is away")
	s := &scripted{answers: []error{away, away, away, nil}}
	_, err := rotate(t.Context(), s.start(t, Settings{}))
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != codes.Unavailable || e.Reason != "HSM_AWAY" || err.Error() != "the HSM is away (request id req-1)" {
		t.Fatalf("got %#v", err)
	}
	if len(s.idempotencyKeys) != attempts {
		t.Fatalf("sent %d times, want %d", len(s.idempotencyKeys), attempts)
	}
}

func TestOtherErrorsAreNotTriedAgain(t *testing.T) {
	for _, code := range []codes.Code{codes.NotFound, codes.Aborted, codes.ResourceExhausted, codes.PermissionDenied, codes.Internal, codes.DataLoss} {
		s := &scripted{answers: []error{statusOf(code, "WHY", "no\nluck"), nil}}
		_, err := rotate(t.Context(), s.start(t, Settings{}))
		if e, ok := errors.AsType[*Error](err); !ok || e.Code != code || e.RequestID != "req-1" {
			t.Errorf("%v: got %#v", code, err)
		}
		if len(s.idempotencyKeys) != 1 {
			t.Errorf("%v: sent %d times", code, len(s.idempotencyKeys))
		}
	}
}

func TestTimeoutBoundsACall(t *testing.T) {
	c := (&scripted{}).start(t, Settings{Timeout: 50 * time.Millisecond})
	start := time.Now()
	_, err := c.GetKey(t.Context(), &keywrightv1.GetKeyRequest{})
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != codes.DeadlineExceeded || !strings.Contains(err.Error(), "--timeout") {
		t.Fatalf("got %#v", err)
	}
	if elapsed := time.Since(start); elapsed > 10*time.Second {
		t.Fatalf("took %v", elapsed)
	}
}

func TestNobodyListens(t *testing.T) {
	c, err := New(Settings{Addr: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // there is no connection
	_, err = rotate(t.Context(), c)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != codes.Unavailable || !strings.HasPrefix(err.Error(), "cannot reach the server at 127.0.0.1:1: ") {
		t.Fatalf("got %#v", err)
	}
}

func TestStreamErrors(t *testing.T) {
	for _, test := range []struct {
		answer error
		want   string
	}{
		{nil, io.EOF.Error()},
		{statusOf(codes.PermissionDenied, "POLICY_DENIED", "you may not"), "you may not (request id req-2)"},
	} {
		c := (&scripted{answers: []error{test.answer}}).start(t, Settings{})
		stream, err := c.TailEntries(t.Context(), &keywrightv1.TailEntriesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if entry, err := stream.Recv(); err != nil || entry.GetSequence() != 1 {
			t.Fatalf("got %v, %v", entry, err)
		}
		if _, err := stream.Recv(); err == nil || err.Error() != test.want {
			t.Fatalf("got %v, want %q", err, test.want)
		}
	}
}

// TestTokenNeedsTLS: a token is not sent in the clear unless plaintext was asked for, which is for loopback only.
func TestTokenNeedsTLS(t *testing.T) {
	if !(bearer{"kwt_t", true}).RequireTransportSecurity() {
		t.Fatal("a token would be sent without TLS")
	}
	if _, err := New(Settings{Addr: "127.0.0.1:1", Token: "kwt_t", Plaintext: true}); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateIsReadAnew: a certificate that was renewed in place counts from the
// next handshake on.
func TestCertificateIsReadAnew(t *testing.T) {
	dir := t.TempDir()
	s := Settings{CertFile: filepath.Join(dir, "me.pem"), KeyFile: filepath.Join(dir, "me.key")}
	for _, name := range []string{"first", "second"} {
		writeCertificate(t, s, name)
		got, err := s.certificate(nil)
		if err != nil || got.Leaf.Subject.CommonName != name {
			t.Fatalf("%s: %v, %v", name, got.Leaf.Subject, err)
		}
	}
}

func writeCertificate(t *testing.T, s Settings, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{s.CertFile: {Type: "CERTIFICATE", Bytes: certificate}, s.KeyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
