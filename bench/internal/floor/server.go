// Package floor is what no server can be faster than: servers that speak the same
// protocols with messages of the same sizes and do nothing, and the bare
// primitives. Servers run in a process of their own, as the server under test
// does, so that both share the machine with their clients alike.
//
// A Server serves any number of calls at once, from Listen to Close.
package floor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keywright/keywright/bench/internal/rig"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// Addresses are where the no-op servers listen, host:port.
type Addresses struct {
	GRPC    string `json:"grpc"`
	GRPCTLS string `json:"grpc_tls"`
	REST    string `json:"rest"`
	RESTTLS string `json:"rest_tls"`
}

// AddrGRPC is where gRPC is served, with TLS or without.
func (a Addresses) AddrGRPC(plaintext bool) string {
	if plaintext {
		return a.GRPC
	}
	return a.GRPCTLS
}

// AddrREST is where HTTP is served, with TLS or without.
func (a Addresses) AddrREST(plaintext bool) string {
	if plaintext {
		return a.REST
	}
	return a.RESTTLS
}

// Server is four no-op servers on loopback: gRPC and HTTP, each plain and with TLS.
type Server struct {
	Addresses
	grpc []*grpc.Server
	http []*http.Server
}

// Listen starts them with the server certificate in two PEM files. All run with
// the libraries' defaults.
func Listen(certFile, keyFile string) (*Server, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("the floor's certificate: %w", err)
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	s := &Server{}
	s.GRPC, err = s.listenGRPC()
	if err == nil {
		s.GRPCTLS, err = s.listenGRPC(grpc.Creds(credentials.NewTLS(secure)))
	}
	if err == nil {
		s.REST, err = s.listenREST(nil)
	}
	if err == nil {
		s.RESTTLS, err = s.listenREST(secure)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends all of them at once.
func (s *Server) Close() error {
	for _, g := range s.grpc {
		g.Stop()
	}
	var failed error
	for _, h := range s.http {
		failed = errors.Join(failed, h.Close())
	}
	return failed
}

func listen() (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
}

func (s *Server) listenGRPC(options ...grpc.ServerOption) (string, error) {
	listener, err := listen()
	if err != nil {
		return "", err
	}
	g := grpc.NewServer(options...)
	pb.RegisterCryptoServer(g, echo{})
	s.grpc = append(s.grpc, g)
	go g.Serve(listener) //nolint:errcheck // it ends with Stop
	return listener.Addr().String(), nil
}

func (s *Server) listenREST(secure *tls.Config) (string, error) {
	listener, err := listen()
	if err != nil {
		return "", err
	}
	h := &http.Server{Handler: http.HandlerFunc(echoJSON), TLSConfig: secure, ReadHeaderTimeout: 10 * time.Second}
	s.http = append(s.http, h)
	if secure == nil {
		go h.Serve(listener) //nolint:errcheck // it ends with Close
	} else {
		go h.ServeTLS(listener, "", "") //nolint:errcheck // it ends with Close
	}
	return listener.Addr().String(), nil
}

// Sizes of answers beside the payload.
const (
	overhead         = 53 // XAES_256_GCM: header 13, nonce 24, tag 16
	signature        = 71 // ECDSA P-256 in DER, mostly
	signatureEd25519 = 64
)

// echo answers the hot operations with as many zeros as the real answer has bytes.
type echo struct{ pb.UnimplementedCryptoServer }

// Encrypt answers with a ciphertext's length.
func (echo) Encrypt(_ context.Context, q *pb.EncryptRequest) (*pb.EncryptResponse, error) {
	return &pb.EncryptResponse{Ciphertext: make([]byte, len(q.Plaintext)+overhead), Version: 1}, nil
}

// Decrypt answers with a plaintext's length.
func (echo) Decrypt(_ context.Context, q *pb.DecryptRequest) (*pb.DecryptResponse, error) {
	return &pb.DecryptResponse{Plaintext: make([]byte, max(len(q.Ciphertext)-overhead, 0)), Version: 1}, nil
}

// Sign answers with a signature's length. The echo has no keys: that of the rig's
// Ed25519 key is known by its name, and any other is taken for one of ECDSA P-256.
func (echo) Sign(_ context.Context, q *pb.SignRequest) (*pb.SignResponse, error) {
	length := signature
	if q.Key == rig.Ed25519Key {
		length = signatureEd25519
	}
	return &pb.SignResponse{Signature: make([]byte, length), Version: 1}, nil
}

// Batch answers encryptions.
func (e echo) Batch(ctx context.Context, q *pb.BatchRequest) (*pb.BatchResponse, error) {
	results := make([]*pb.OperationResult, len(q.Operations))
	for i, o := range q.Operations {
		answer, err := e.Encrypt(ctx, o.GetEncrypt())
		if err != nil {
			return nil, err
		}
		results[i] = &pb.OperationResult{Result: &pb.OperationResult_Encrypt{Encrypt: answer}}
	}
	return &pb.BatchResponse{Results: results}, nil
}

// Pipeline answers encryptions, one after another.
func (e echo) Pipeline(stream grpc.BidiStreamingServer[pb.PipelineRequest, pb.PipelineResponse]) error {
	for {
		q, err := stream.Recv()
		if err != nil {
			return err
		}
		answer, err := e.Encrypt(stream.Context(), q.Operation.GetEncrypt())
		if err != nil {
			return err
		}
		result := &pb.OperationResult{Result: &pb.OperationResult_Encrypt{Encrypt: answer}}
		if err := stream.Send(&pb.PipelineResponse{Id: q.Id, Result: result}); err != nil {
			return err
		}
	}
}

// echoJSON reads and writes what the REST encrypt does, base64 included.
func echoJSON(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Plaintext []byte `json:"plaintext"`
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct { // a client that has gone away reads no error either
		Ciphertext []byte `json:"ciphertext"`
		Version    int    `json:"version"`
	}{make([]byte, len(request.Plaintext)+overhead), 1})
}
