package api

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	kmsv2 "k8s.io/kms/apis/v2"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/kube"
)

// RegisterKubernetes offers Kubernetes KMS v2 for one key.
func (a *API) RegisterKubernetes(server *grpc.Server, namespace, name string) {
	of := func(call kms.Call, uid string) kube.Key {
		if uid != "" { // by which the API server's own log names the request
			call.RequestID = gate.RequestID([]string{uid})
		}
		return kubernetesKey{a.service, call, namespace, name}
	}
	status := func(ctx context.Context, call kms.Call, _ *kmsv2.StatusRequest) (*kmsv2.StatusResponse, error) {
		return kube.Status(ctx, of(call, "")), nil
	}
	encrypt := func(ctx context.Context, call kms.Call, q *kmsv2.EncryptRequest) (*kmsv2.EncryptResponse, error) {
		answer, err := kube.Encrypt(ctx, of(call, q.Uid), q)
		return answer, kubernetesError(err)
	}
	decrypt := func(ctx context.Context, call kms.Call, q *kmsv2.DecryptRequest) (*kmsv2.DecryptResponse, error) {
		return kube.Decrypt(ctx, of(call, q.Uid), q)
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: kube.ServiceName, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{
		operation(a, "Status", status).Descriptor(), operation(a, "Encrypt", encrypt).Descriptor(), operation(a, "Decrypt", decrypt).Descriptor(),
	}}, nil)
}

// kubernetesError words what the adapter refuses itself.
func kubernetesError(err error) error {
	switch {
	case errors.Is(err, kube.ErrTooLarge):
		return &kms.Error{Code: kms.InvalidArgument, Reason: gate.ReasonTooLarge, Field: "plaintext", Message: err.Error()}
	case errors.Is(err, kube.ErrFraming):
		return &kms.Error{Code: kms.FailedPrecondition, Reason: "WRONG_FRAMING", Message: err.Error()}
	}
	return err
}

// kubernetesKey is a key as a caller may use it.
type kubernetesKey struct {
	service         *kms.Service
	call            kms.Call
	namespace, name string
}

// Encrypt implements kube.Key.
func (k kubernetesKey) Encrypt(ctx context.Context, plaintext []byte) ([]byte, error) {
	r, err := k.service.Encrypt(ctx, k.call, &kms.EncryptRequest{Namespace: k.namespace, Key: k.name,
		Plaintext: plaintext, Binding: kms.Binding{Context: kube.Context()}})
	return r.Ciphertext, err
}

// Decrypt implements kube.Key.
func (k kubernetesKey) Decrypt(ctx context.Context, ciphertext []byte) ([]byte, error) {
	r, err := k.service.Decrypt(ctx, k.call, &kms.DecryptRequest{Namespace: k.namespace, Key: k.name,
		Ciphertext: ciphertext, Binding: kms.Binding{Context: kube.Context()}})
	return r.Plaintext, err
}
