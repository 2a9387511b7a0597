package server_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server"
)

// callersPerCore times the cores is how many callers a benchmark has.
const callersPerCore = 16

// plainHarness serves without TLS, so that a benchmark and its floor differ in
// what Keywright does alone. It returns a token for principal "app".
func plainHarness(b *testing.B) (*harness, string) {
	var token string
	h := newHarness(b, nil)
	h.prepare()
	token = h.createToken("app")
	h.start(server.Config{Service: h.service, GRPCAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0", Plaintext: true})
	return h, token
}

type plainBearer string

func (t plainBearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}
func (plainBearer) RequireTransportSecurity() bool { return false }

func benchmarkEncrypt(b *testing.B, address string, options ...grpc.DialOption) {
	c := must[*grpc.ClientConn](b)(grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...))
	defer c.Close()
	x := pb.NewCryptoClient(c)
	q := &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: make([]byte, 32)}
	must[*pb.EncryptResponse](b)(x.Encrypt(context.Background(), q))
	b.ReportAllocs()
	b.SetParallelism(callersPerCore)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := x.Encrypt(context.Background(), q); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkGRPCEncrypt is one call of 32 bytes, with token, policies and audit.
func BenchmarkGRPCEncrypt(b *testing.B) {
	h, token := plainHarness(b)
	benchmarkEncrypt(b, h.server.GRPCAddr().String(), grpc.WithPerRPCCredentials(plainBearer(token)))
}

// echo answers as long as an encryption of 32 bytes, and does nothing.
type echo struct{ pb.UnimplementedCryptoServer }

func (echo) Encrypt(_ context.Context, q *pb.EncryptRequest) (*pb.EncryptResponse, error) {
	return &pb.EncryptResponse{Ciphertext: make([]byte, 85), Version: 1}, nil
}

// BenchmarkGRPCEcho is the floor of BenchmarkGRPCEncrypt.
func BenchmarkGRPCEcho(b *testing.B) {
	s := grpc.NewServer()
	pb.RegisterCryptoServer(s, echo{})
	l := must[net.Listener](b)(net.Listen("tcp", "127.0.0.1:0"))
	go s.Serve(l)
	defer s.Stop()
	benchmarkEncrypt(b, l.Addr().String(), grpc.WithPerRPCCredentials(plainBearer("kwt_0123456789012345678901234567890123456789012345678901234567890123456789")))
}

func benchmarkREST(b *testing.B, url, token string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	body := []byte(`{"plaintext":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`)
	b.ReportAllocs()
	b.SetParallelism(callersPerCore)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			request, _ := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
			request.Header.Set("Authorization", "Bearer "+token)
			response, err := client.Do(request)
			if err != nil || response.StatusCode != http.StatusOK {
				b.Error(response, err)
				return
			}
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	})
}

// BenchmarkRESTEncrypt is the same call over REST.
func BenchmarkRESTEncrypt(b *testing.B) {
	h, token := plainHarness(b)
	benchmarkREST(b, "http://"+h.server.RESTAddr().String()+"/v1/namespaces/app/keys/card:encrypt", token)
}

// BenchmarkHTTPEcho is the floor of BenchmarkRESTEncrypt.
func BenchmarkHTTPEcho(b *testing.B) {
	answer := []byte(`{"ciphertext":"` + b64(make([]byte, 85)) + `","version":1}`)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})}
	l := must[net.Listener](b)(net.Listen("tcp", "127.0.0.1:0"))
	go s.Serve(l)
	defer s.Close()
	benchmarkREST(b, "http://"+l.Addr().String()+"/", "kwt_0123456789012345678901234567890123456789012345678901234567890123456789")
}
