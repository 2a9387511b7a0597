package kube

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
)

// server encrypts for who shows its token.
type server struct {
	keywrightv1.UnimplementedCryptoServer

	token atomic.Pointer[string]
	calls atomic.Int64
}

func (s *server) Encrypt(ctx context.Context, q *keywrightv1.EncryptRequest) (*keywrightv1.EncryptResponse, error) {
	s.calls.Add(1)
	if given := metadata.ValueFromIncomingContext(ctx, "authorization"); !slices.Equal(given, []string{"Bearer " + *s.token.Load()}) {
		return nil, status.Error(codes.Unauthenticated, "the token has expired")
	}
	return &keywrightv1.EncryptResponse{Ciphertext: q.GetPlaintext()}, nil
}

func startServer(t *testing.T, token string) (s *server, addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &server{}
	s.token.Store(&token)
	g := grpc.NewServer()
	keywrightv1.RegisterCryptoServer(g, s)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	return s, listener.Addr().String()
}

// TestRemoteRenewsCredentials: refused credentials are read anew, but not again and
// again, and the error is one that a gRPC server can answer.
func TestRemoteRenewsCredentials(t *testing.T) {
	s, addr := startServer(t, "first")
	token := "first" // what the file holds
	connects := 0
	r, err := newRemote(func() (*client.Client, error) {
		connects++
		return client.New(client.Settings{Addr: addr, Plaintext: true, Token: client.Token(token)})
	}, "n", "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	encrypt := func() error { _, err := r.Encrypt(t.Context(), []byte("x")); return err }
	if err := encrypt(); err != nil || connects != 1 {
		t.Fatalf("%v after %d connections", err, connects)
	}
	second := "second"
	s.token.Store(&second)
	token = second
	if err := encrypt(); err != nil || connects != 2 {
		t.Fatalf("with a new token: %v after %d connections", err, connects)
	}
	third := "third"
	s.token.Store(&third)
	s.calls.Store(0)
	for range 10 {
		if err := encrypt(); status.Code(err) != codes.Unauthenticated {
			t.Fatalf("with a token that has ended: %v", err)
		}
	}
	if connects != 2 || s.calls.Load() != 10 {
		t.Errorf("%d connections, %d calls", connects, s.calls.Load())
	}
}
