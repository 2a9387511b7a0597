// Package kmsv2 is the KMS v2 API of Kubernetes (v2.KeyManagementService) on top of
// a Backend: it checks what the API server sends, names keys as it wants them named,
// and tells how the key is. Package kube serves it inside keywrightd, and the command
// line tool beside the API server, so it imports nothing of the project.
//
// Nothing is stored here. A key id is read off each ciphertext, and Status finds out
// how the key is by using it, so that what Status, Encrypt and Decrypt say of a key
// is true at that moment and agrees.
//
// Lifetimes: a Service lives as long as its socket is served.
//
// Threading: everything is safe for concurrent use.
package kmsv2

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	v2 "k8s.io/kms/apis/v2"
)

const (
	// Version is the version of the API.
	Version = "v2"
	// Healthy is what Status says of a key that can be used; all else is a reason.
	Healthy = "ok"
	// probeTimeout is shorter than the 3 seconds that the API server waits unless it
	// is configured otherwise, so that it gets a reason and not just no answer.
	probeTimeout = 2 * time.Second
	maxReason    = 1 << 10

	maxMessageBytes  = 64 << 10 // of a request; the API's own bounds are well below
	maxHeaderBytes   = 32 << 10
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 2 * time.Minute
)

// probeText is what Status encrypts and decrypts.
const probeText = "Keywright's probe of a Kubernetes KMS key"

// Backend uses the one key that a socket is bound to. Ciphertexts are Keywright's
// native ones. Errors hold what the API server's operator may read: a gRPC status, or
// a message of one line.
type Backend interface {
	// Encrypt encrypts under the key's primary version.
	Encrypt(ctx context.Context, plaintext []byte) (ciphertext []byte, err error)
	// Decrypt decrypts what any version of the key encrypted, and nothing of others.
	Decrypt(ctx context.Context, ciphertext []byte) (plaintext []byte, err error)
}

// Service answers the API's methods.
type Service struct {
	logger *slog.Logger
	health atomic.Pointer[string] // what Status said last
}

// New returns a Service that tells the logger when the key's health changes.
func New(logger *slog.Logger) *Service { return &Service{logger: logger} }

// ServerOptions bound what a client of the socket can ask a gRPC server for.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: handshakeTimeout, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: idleTimeout}),
		grpc.WaitForHandlers(true),
	}
}

// Status says whether the key can be used, and its id. It is honest, since it
// encrypts and decrypts a few bytes, through the same policy and into the same audit
// log as any other use. Of a key that cannot be used it gives no id: with one, the API
// server would go on writing, for ever, what can be read back no more once it restarts.
func (s *Service) Status(ctx context.Context, b Backend, _ *v2.StatusRequest) (*v2.StatusResponse, error) {
	keyID, err := probe(ctx, b)
	answer := &v2.StatusResponse{Version: Version, Healthz: Healthy, KeyId: keyID}
	if err != nil {
		answer.Healthz = reasonOf(err)
	}
	s.note(ctx, answer)
	return answer, nil
}

func probe(ctx context.Context, b Backend) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ciphertext, keyID, err := encrypt(ctx, b, []byte(probeText))
	if err != nil {
		return "", err
	}
	plaintext, err := b.Decrypt(ctx, ciphertext)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(plaintext, []byte(probeText)) {
		return "", status.Error(codes.DataLoss, "what was encrypted is not what came back when it was decrypted")
	}
	return keyID, nil
}

// reasonOf is an error's text in one line, and never "ok" or nothing.
func reasonOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "the key did not answer within " + probeTimeout.String()
	}
	text := strings.Join(strings.Fields(status.Convert(err).Message()), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "")
	}
	if text == "" || text == Healthy {
		return "the key cannot be used: " + status.Code(err).String()
	}
	return text
}

// note logs when health changes: Status is asked for again and again.
func (s *Service) note(ctx context.Context, answer *v2.StatusResponse) {
	now := answer.GetHealthz()
	last := s.health.Swap(&now)
	switch {
	case last != nil && *last == now:
	case now == Healthy:
		s.logger.InfoContext(ctx, "the Kubernetes key can be used", "key_id", answer.GetKeyId())
	default:
		s.logger.WarnContext(ctx, "the Kubernetes key cannot be used", "reason", now)
	}
}

// Encrypt encrypts under the key's primary version, which it names.
func (s *Service) Encrypt(ctx context.Context, b Backend, q *v2.EncryptRequest) (*v2.EncryptResponse, error) {
	if err := checkEncrypt(q); err != nil {
		return nil, err
	}
	ciphertext, keyID, err := encrypt(ctx, b, q.GetPlaintext())
	if err != nil {
		return nil, err
	}
	return &v2.EncryptResponse{Ciphertext: ciphertext, KeyId: keyID}, nil
}

func encrypt(ctx context.Context, b Backend, plaintext []byte) (ciphertext []byte, keyID string, err error) {
	if ciphertext, err = b.Encrypt(ctx, plaintext); err != nil {
		return nil, "", err
	}
	if len(ciphertext) > MaxCiphertextBytes {
		return nil, "", invalid("plaintext has %d bytes, whose ciphertext has %d; the limit is %d", len(plaintext), len(ciphertext), MaxCiphertextBytes)
	}
	keyID, ok := KeyID(ciphertext)
	if !ok {
		return nil, "", status.Error(codes.Internal, "the key made a ciphertext of a format that is not known here; update this program")
	}
	return ciphertext, keyID, nil
}

// Decrypt decrypts what any version of the key encrypted.
func (s *Service) Decrypt(ctx context.Context, b Backend, q *v2.DecryptRequest) (*v2.DecryptResponse, error) {
	if err := checkDecrypt(q); err != nil {
		return nil, err
	}
	plaintext, err := b.Decrypt(ctx, q.GetCiphertext())
	if err != nil {
		return nil, err
	}
	return &v2.DecryptResponse{Plaintext: plaintext}, nil
}
