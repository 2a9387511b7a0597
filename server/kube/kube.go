// Package kube speaks Kubernetes KMS v2 (k8s.io/kms, v2.KeyManagementService) for one
// key: the API server sends it the key-encryption keys of its secrets. It is an adapter
// without state; a Key belongs to its caller, and may be used by many goroutines.
//
// The key id that Kubernetes stores beside its data, and by which it sees that data is
// stale, is that of the key with the number of the version that encrypted: neither is
// ever used again, so that a key made anew under its old name is told apart. Both are
// read from the ciphertext itself, whose header has them. Annotations are not used.
package kube

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	kms "k8s.io/kms/apis/v2"
)

// ServiceName is the gRPC service's.
const ServiceName = "v2.KeyManagementService"

// MaxCiphertext is the most bytes that the API server takes as a ciphertext; it wants
// fewer than 1 KiB.
const MaxCiphertext = 1023

// Errors that are the caller's fault, for errors.Is.
var (
	// ErrTooLarge says that a plaintext would not fit when it is encrypted.
	ErrTooLarge = errors.New("the plaintext is too large for Kubernetes KMS v2, whose ciphertexts have fewer than 1024 bytes")
	// ErrFraming says that the key makes ciphertexts that do not name their version.
	ErrFraming = errors.New("the key's ciphertexts do not say which version made them; use a key of the usual framing")
)

// Context is the encryption context that binds what Kubernetes gives: nothing else that
// the key encrypted decrypts here.
func Context() map[string]string { return map[string]string{"kubernetes": "kms-v2"} }

// Key encrypts and decrypts with the one key of a plugin, in Context.
type Key interface {
	Encrypt(ctx context.Context, plaintext []byte) ([]byte, error)
	Decrypt(ctx context.Context, ciphertext []byte) ([]byte, error)
}

// healthy is what the API server wants to read; anything else is why it fails.
const healthy = "ok"

// version is that of the plugin interface.
const version = "v2"

// Status tells whether the key can be used, by using it, and which version encrypts.
func Status(ctx context.Context, k Key) *kms.StatusResponse {
	id, err := probe(ctx, k)
	if err != nil {
		return &kms.StatusResponse{Version: version, Healthz: err.Error(), KeyId: id}
	}
	return &kms.StatusResponse{Version: version, Healthz: healthy, KeyId: id}
}

// probe encrypts and decrypts, and returns the id of the version that did.
func probe(ctx context.Context, k Key) (string, error) {
	const text = "probe"
	ciphertext, err := k.Encrypt(ctx, []byte(text))
	if err != nil {
		return "", fmt.Errorf("cannot encrypt: %w", err)
	}
	id, err := keyID(ciphertext)
	if err != nil {
		return "", err
	}
	plaintext, err := k.Decrypt(ctx, ciphertext)
	if err != nil {
		return id, fmt.Errorf("cannot decrypt: %w", err)
	}
	if string(plaintext) != text {
		return id, errors.New("decrypts to something else")
	}
	return id, nil
}

// Encrypt answers with the ciphertext and the id of the version that made it: ErrTooLarge,
// ErrFraming, or the key's own error.
func Encrypt(ctx context.Context, k Key, q *kms.EncryptRequest) (*kms.EncryptResponse, error) {
	if len(q.Plaintext) > MaxCiphertext {
		return nil, ErrTooLarge
	}
	ciphertext, err := k.Encrypt(ctx, q.Plaintext)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) > MaxCiphertext {
		return nil, ErrTooLarge
	}
	id, err := keyID(ciphertext)
	if err != nil {
		return nil, err
	}
	return &kms.EncryptResponse{Ciphertext: ciphertext, KeyId: id}, nil
}

// Decrypt answers with the plaintext, whichever version made the ciphertext.
func Decrypt(ctx context.Context, k Key, q *kms.DecryptRequest) (*kms.DecryptResponse, error) {
	plaintext, err := k.Decrypt(ctx, q.Ciphertext)
	if err != nil {
		return nil, err
	}
	return &kms.DecryptResponse{Plaintext: plaintext}, nil
}

// The header of a native ciphertext (package keyring): its format, the key's id, the
// version.
const (
	native     = 0x01
	headerSize = 1 + 8 + 4
)

func keyID(ciphertext []byte) (string, error) {
	if len(ciphertext) < headerSize || ciphertext[0] != native {
		return "", ErrFraming
	}
	return fmt.Sprintf("keywright:%016x:%d", binary.BigEndian.Uint64(ciphertext[1:]), binary.BigEndian.Uint32(ciphertext[9:])), nil
}
