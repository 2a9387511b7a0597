package floor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/bench/internal/rig"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// certificate writes a self-signed server certificate and returns its files.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "CERTIFICATE", der), write(t, "PRIVATE KEY", keyDER)
}

func write(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNoopServersAnswerEveryCall(t *testing.T) {
	certFile, keyFile := certificate(t)
	s, err := Listen(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, plaintext := range []bool{true, false} {
		rpc := load.Target{Addr: s.AddrGRPC(plaintext), Plaintext: plaintext, CAFile: certFile}
		for _, w := range []load.Work{{Operation: "encrypt"}, {Operation: "decrypt"}, {Operation: "sign"}, {Operation: "encrypt", Batch: 7}} {
			w.Namespace, w.Key, w.Payload = "n", "k", 32
			pool, err := load.GRPC(t.Context(), rpc, w, 2, 4)
			answers(t, pool, err)
		}
		streams, err := load.Pipeline(t.Context(), rpc, load.Work{Operation: "encrypt", Namespace: "n", Key: "k", Payload: 32}, 2, 3, 16)
		answers(t, streams, err)
		web := load.Target{Addr: s.AddrREST(plaintext), Plaintext: plaintext, CAFile: certFile}
		pool, err := load.REST(t.Context(), web, load.Work{Operation: "encrypt", Namespace: "n", Key: "k", Payload: 32}, 4)
		answers(t, pool, err)
	}
}

func answers(t *testing.T, pool *load.Pool, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	r, err := load.Run(t.Context(), pool.Callers, load.Plan{Duration: 20 * time.Millisecond})
	if err != nil || r.Latency.Count() < 4 {
		t.Fatalf("%d calls answered, %v", r.Latency.Count(), err)
	}
}

func TestSignaturesHaveTheirLength(t *testing.T) {
	for key, length := range map[string]int{rig.SigningKey: 71, rig.Ed25519Key: 64} {
		if a, err := (echo{}).Sign(t.Context(), &pb.SignRequest{Key: key}); err != nil || len(a.Signature) != length {
			t.Errorf("%s: %d bytes, %v; want %d", key, len(a.GetSignature()), err, length)
		}
	}
}

func TestTargetsThatCannotServe(t *testing.T) {
	certFile, keyFile := certificate(t)
	otherCA, _ := certificate(t)
	s, err := Listen(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	closed, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	encrypt := load.Work{Operation: "encrypt", Namespace: "n", Key: "k", Payload: 1}
	tests := map[string]struct {
		rest   bool
		target load.Target
		work   load.Work
		want   string
	}{
		"gRPC, nothing there":       {false, load.Target{Addr: closed.Addr().String(), Plaintext: true}, encrypt, "does not serve"},
		"REST, nothing there":       {true, load.Target{Addr: closed.Addr().String(), Plaintext: true}, encrypt, "does not serve"},
		"gRPC, another CA":          {false, load.Target{Addr: s.GRPCTLS, CAFile: otherCA}, encrypt, "certificate"},
		"REST, another CA":          {true, load.Target{Addr: s.RESTTLS, CAFile: otherCA}, encrypt, "certificate"},
		"gRPC, plaintext to TLS":    {false, load.Target{Addr: s.GRPCTLS, Plaintext: true}, encrypt, "does not serve"},
		"REST, TLS to plaintext":    {true, load.Target{Addr: s.REST}, encrypt, "does not serve"},
		"REST to a gRPC port":       {true, load.Target{Addr: s.GRPC, Plaintext: true}, encrypt, "does not answer HTTP"},
		"operation that is missing": {false, load.Target{Addr: s.GRPC, Plaintext: true}, load.Work{Operation: "mac", Payload: 1}, "Unimplemented"},
		"unknown operation":         {false, load.Target{Addr: s.GRPC, Plaintext: true}, load.Work{Operation: "x"}, "give one of"},
		"missing CA file":           {false, load.Target{Addr: s.GRPCTLS, CAFile: "/nonexistent"}, encrypt, "CA file"},
		"CA file without PEM":       {true, load.Target{Addr: s.RESTTLS, CAFile: "floor_test.go"}, encrypt, "no certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var err error
			if test.rest {
				_, err = load.REST(t.Context(), test.target, test.work, 1)
			} else {
				_, err = load.GRPC(t.Context(), test.target, test.work, 1, 1)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v; want one line with %q", err, test.want)
			}
		})
	}
}

func TestBareLoops(t *testing.T) {
	for name, newCall := range map[string]func() (func() error, error){
		"seal": Seal("XAES_256_GCM", 32), "sign": Sign("ECDSA_P256_SHA256", 32),
	} {
		if rate, err := Loop(t.Context(), 20*time.Millisecond, 2, newCall); err != nil || rate <= 0 {
			t.Errorf("%s: %v/s, %v", name, rate, err)
		}
	}
	if _, err := Loop(t.Context(), time.Second, 1, Seal("NOTHING", 32)); err == nil {
		t.Error("an algorithm that does not exist was measured")
	}
	broken := errors.New("broken")
	if _, err := Loop(t.Context(), time.Hour, 2, func() (func() error, error) { return func() error { return broken }, nil }); !errors.Is(err, broken) {
		t.Errorf("got %v, want the call's error", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Loop(ended, time.Hour, 1, Seal("XAES_256_GCM", 32)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want to be interrupted", err)
	}
}

func TestFsync(t *testing.T) {
	r, err := Fsync(t.Context(), t.TempDir(), 20*time.Millisecond)
	if err != nil || r.Latency.Count() == 0 {
		t.Errorf("%d synced, %v", r.Latency.Count(), err)
	}
	if _, err := Fsync(t.Context(), "/nonexistent", time.Second); err == nil {
		t.Error("a folder that does not exist was measured")
	}
}
