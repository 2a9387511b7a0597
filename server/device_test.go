package server_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// device is a real SoftHSM2 token as kms sees it. A test can hold up its calls
// of Wrap, and so the creation of a namespace.
type device struct {
	hsm.Service
	hold atomic.Pointer[chan struct{}]
}

func openDevice(t testing.TB) *device {
	t.Helper()
	token := softhsmtest.Token(t)
	opened, err := hsm.Open(t.Context(), hsm.Config{Module: token.Module, TokenLabel: token.Label, PIN: hsm.PINFromFile(token.PINFile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return &device{Service: opened}
}

// holdWrap makes Wrap wait until the function it returns is called.
func (d *device) holdWrap() (release func()) {
	held := make(chan struct{})
	d.hold.Store(&held)
	return func() {
		if d.hold.CompareAndSwap(&held, nil) {
			close(held)
		}
	}
}

func (d *device) GenerateRoot(ctx context.Context, id kms.ObjectID) ([]byte, error) {
	root, err := d.Service.GenerateRootAs(ctx, hsm.KeyID(id))
	return root.CheckValue, err
}

func (d *device) FindRoot(ctx context.Context, id kms.ObjectID, checkValue []byte) error {
	_, err := d.Service.FindRoot(ctx, hsm.KeyID(id), checkValue)
	return err
}

func (d *device) Wrap(ctx context.Context, root kms.ObjectID, version uint32, secret, aad []byte) ([]byte, error) {
	if held := d.hold.Load(); held != nil {
		select {
		case <-*held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return d.Service.Wrap(ctx, hsm.KeyID(root), version, secret, aad)
}

func (d *device) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	secret, err := d.Service.Unwrap(ctx, blob, aad)
	if errors.Is(err, hsm.ErrUnwrap) {
		err = fmt.Errorf("%w: %w", kms.ErrUnwrap, err)
	}
	return secret, err
}

func (d *device) GenerateSigner(ctx context.Context) (kms.Signer, error) {
	s, err := d.Service.GenerateSigner(ctx)
	return kms.Signer{ID: kms.ObjectID(s.ID), Algorithm: s.Algorithm, Public: s.PublicKey}, err
}

func (d *device) FindSigner(ctx context.Context, id kms.ObjectID) (kms.Signer, error) {
	s, err := d.Service.FindSigner(ctx, hsm.KeyID(id))
	return kms.Signer{ID: kms.ObjectID(s.ID), Algorithm: s.Algorithm, Public: s.PublicKey}, err
}

func (d *device) Sign(ctx context.Context, signer kms.ObjectID, message []byte) ([]byte, error) {
	return d.Service.Sign(ctx, hsm.KeyID(signer), message)
}

func (d *device) Destroy(ctx context.Context, id kms.ObjectID) error {
	return d.Service.Destroy(ctx, hsm.KeyID(id))
}

func (d *device) Status() kms.HSMStatus {
	s := d.Service.Status()
	return kms.HSMStatus{Healthy: s.Healthy, TokenLabel: s.TokenLabel, TokenSerial: s.TokenSerial, Manufacturer: s.Manufacturer,
		Model: s.Model, SessionsInUse: s.SessionsInUse, SessionsMax: s.SessionsMax, KeyAlgorithms: s.Capabilities.Keys}
}
