package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/kms"
)

// device is the HSM as kms sees it. It translates types and errors, and adds
// nothing; hsm's own errors stay in the chain.
type device struct{ service hsm.Service }

var _ kms.HSM = device{}

// GenerateRoot implements kms.HSM.
func (d device) GenerateRoot(ctx context.Context, id kms.ObjectID) ([]byte, error) {
	root, err := d.service.GenerateRootAs(ctx, hsm.KeyID(id))
	return root.CheckValue, err
}

// FindRoot implements kms.HSM.
func (d device) FindRoot(ctx context.Context, id kms.ObjectID, checkValue []byte) error {
	_, err := d.service.FindRoot(ctx, hsm.KeyID(id), checkValue)
	for _, wrong := range []error{hsm.ErrRootNotFound, hsm.ErrWrongRoot, hsm.ErrUnprotected, hsm.ErrDuplicateObject} {
		if errors.Is(err, wrong) {
			return fmt.Errorf("%w: %w", kms.ErrWrongToken, err)
		}
	}
	return err
}

// Wrap implements kms.HSM.
func (d device) Wrap(ctx context.Context, root kms.ObjectID, version uint32, secret, aad []byte) ([]byte, error) {
	return d.service.Wrap(ctx, hsm.KeyID(root), version, secret, aad)
}

// Unwrap implements kms.HSM.
func (d device) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	secret, err := d.service.Unwrap(ctx, blob, aad)
	if errors.Is(err, hsm.ErrUnwrap) || errors.Is(err, hsm.ErrBlob) {
		err = fmt.Errorf("%w: %w", kms.ErrUnwrap, err)
	}
	return secret, err
}

// Random implements kms.HSM.
func (d device) Random(ctx context.Context, n int) ([]byte, error) {
	return d.service.Random(ctx, n)
}

// GenerateSigner implements kms.HSM; the id is returned as by GenerateRoot.
func (d device) GenerateSigner(ctx context.Context) (kms.Signer, error) {
	signer, err := d.service.GenerateSigner(ctx)
	if errors.Is(err, hsm.ErrNoSigningMechanism) {
		err = fmt.Errorf("%w: %w", kms.ErrNoSigningMechanism, err)
	}
	return translateSigner(signer), err
}

// FindSigner implements kms.HSM.
func (d device) FindSigner(ctx context.Context, id kms.ObjectID) (kms.Signer, error) {
	signer, err := d.service.FindSigner(ctx, hsm.KeyID(id))
	return translateSigner(signer), err
}

func translateSigner(s hsm.Signer) kms.Signer {
	return kms.Signer{ID: kms.ObjectID(s.ID), Algorithm: s.Algorithm, Public: s.PublicKey}
}

// Sign implements kms.HSM.
func (d device) Sign(ctx context.Context, signer kms.ObjectID, message []byte) ([]byte, error) {
	return d.service.Sign(ctx, hsm.KeyID(signer), message)
}

// Destroy implements kms.HSM.
func (d device) Destroy(ctx context.Context, id kms.ObjectID) error {
	return d.service.Destroy(ctx, hsm.KeyID(id))
}

// Probe implements kms.HSM.
func (d device) Probe(ctx context.Context) error { return d.service.Probe(ctx) }

// Status implements kms.HSM.
func (d device) Status() kms.HSMStatus {
	s := d.service.Status()
	status := kms.HSMStatus{
		Healthy:       s.Healthy,
		TokenLabel:    s.TokenLabel,
		TokenSerial:   s.TokenSerial,
		Manufacturer:  s.Manufacturer,
		Model:         s.Model,
		SessionsInUse: s.SessionsInUse,
		SessionsMax:   s.SessionsMax,

		Workers:        s.Workers,
		WorkerRestarts: s.WorkerRestarts,
		KeyAlgorithms:  s.Capabilities.Keys,
	}
	if !s.Healthy {
		status.Problem = "the token does not answer as it should: " + s.LastErrorClass.String()
	}
	return status
}
