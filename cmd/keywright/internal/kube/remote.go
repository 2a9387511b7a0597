package kube

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	v2 "k8s.io/kms/apis/v2"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	keywrightv1 "github.com/keywright/keywright/proto/keywright/v1"
	"github.com/keywright/keywright/server/kube/kmsv2"
)

// requestIDKey is the request metadata by which the server names an operation.
const requestIDKey = "x-request-id"

// service is the API's, for one remote key. The server's audit log has each operation
// under the API server's own id.
type service struct {
	v2.UnimplementedKeyManagementServiceServer

	api     *kmsv2.Service
	backend *remote
}

// Status implements v2.KeyManagementServiceServer.
func (s *service) Status(ctx context.Context, q *v2.StatusRequest) (*v2.StatusResponse, error) {
	return s.api.Status(named(ctx, kmsv2.StatusRequestID()), s.backend, q)
}

// Encrypt implements v2.KeyManagementServiceServer.
func (s *service) Encrypt(ctx context.Context, q *v2.EncryptRequest) (*v2.EncryptResponse, error) {
	return s.api.Encrypt(named(ctx, kmsv2.RequestID(q.GetUid())), s.backend, q)
}

// Decrypt implements v2.KeyManagementServiceServer.
func (s *service) Decrypt(ctx context.Context, q *v2.DecryptRequest) (*v2.DecryptResponse, error) {
	return s.api.Decrypt(named(ctx, kmsv2.RequestID(q.GetUid())), s.backend, q)
}

func named(ctx context.Context, id string) context.Context {
	if id == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, requestIDKey, id)
}

const (
	// renewInterval bounds how often credentials that are refused are read anew.
	renewInterval = 5 * time.Second
	// retireAfter lets the calls on an old connection finish.
	retireAfter = time.Minute
)

// remote is a key of a Keywright server.
type remote struct {
	connect        func() (*client.Client, error)
	namespace, key string

	current atomic.Pointer[client.Client]

	mu      sync.Mutex // guards renewed, and who connects anew
	renewed time.Time
}

func newRemote(connect func() (*client.Client, error), namespace, key string) (*remote, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	r := &remote{connect: connect, namespace: namespace, key: key}
	r.current.Store(c)
	return r, nil
}

func (r *remote) close() { _ = r.current.Load().Close() }

// Encrypt implements kmsv2.Backend.
func (r *remote) Encrypt(ctx context.Context, plaintext []byte) ([]byte, error) {
	return r.call(func(c *client.Client) ([]byte, error) {
		p, err := c.Encrypt(ctx, &keywrightv1.EncryptRequest{Namespace: r.namespace, Key: r.key, Plaintext: plaintext})
		return p.GetCiphertext(), err
	})
}

// Decrypt implements kmsv2.Backend.
func (r *remote) Decrypt(ctx context.Context, ciphertext []byte) ([]byte, error) {
	return r.call(func(c *client.Client) ([]byte, error) {
		p, err := c.Decrypt(ctx, &keywrightv1.DecryptRequest{Namespace: r.namespace, Key: r.key, Ciphertext: ciphertext})
		return p.GetPlaintext(), err
	})
}

// call calls the server and, where that refuses the credentials, calls again with
// those that are in the files by now: certificates and tokens end, the plugin goes on.
func (r *remote) call(do func(*client.Client) ([]byte, error)) ([]byte, error) {
	c := r.current.Load()
	answer, err := do(c)
	if codeOf(err) == codes.Unauthenticated {
		if next := r.renew(c); next != c {
			answer, err = do(next)
		}
	}
	return answer, statusOf(err)
}

// renew makes a client of what the files hold now and returns it, or the one that
// another call has made meanwhile. It returns the refused one where the files were read
// a moment ago, or cannot be read.
func (r *remote) renew(refused *client.Client) *client.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.current.Load(); c != refused || time.Since(r.renewed) < renewInterval {
		return c
	}
	r.renewed = time.Now()
	next, err := r.connect()
	if err != nil { // half-written files, perhaps
		return refused
	}
	r.current.Store(next)
	time.AfterFunc(retireAfter, func() { _ = refused.Close() })
	return next
}

func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Code
	}
	return codes.OK
}

// statusOf makes the client's errors what a gRPC server answers.
func statusOf(err error) error {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return status.Error(e.Code, e.Error())
	}
	return err
}
