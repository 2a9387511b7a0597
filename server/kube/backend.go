package kube

import (
	"context"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/kube/kmsv2"
)

// handler adapts a method of the API to the gate.
func handler[Q, P any](p *Plugin, do func(context.Context, kmsv2.Backend, *Q) (*P, error)) gate.Handler[Q, P] {
	return func(ctx context.Context, call kms.Call, q *Q) (*P, error) { return do(ctx, backend{p, call}, q) }
}

// backend uses the socket's key for one call.
type backend struct {
	plugin *Plugin
	call   kms.Call
}

// Encrypt implements kmsv2.Backend.
func (b backend) Encrypt(ctx context.Context, plaintext []byte) ([]byte, error) {
	r, err := b.plugin.service.Encrypt(ctx, b.call, &kms.EncryptRequest{
		Namespace: b.plugin.socket.Namespace, Key: b.plugin.socket.Key, Plaintext: plaintext})
	return r.Ciphertext, err
}

// Decrypt implements kmsv2.Backend.
func (b backend) Decrypt(ctx context.Context, ciphertext []byte) ([]byte, error) {
	r, err := b.plugin.service.Decrypt(ctx, b.call, &kms.DecryptRequest{
		Namespace: b.plugin.socket.Namespace, Key: b.plugin.socket.Key, Ciphertext: ciphertext})
	return r.Plaintext, err
}
