package server_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms"
)

func (d *device) GenerateKey(ctx context.Context, id kms.ObjectID, algorithm string) (kms.HSMKey, error) {
	k, err := d.Service.GenerateKey(ctx, hsm.KeyID(id), algorithm)
	return keyOf(k), keyError(err)
}

func (d *device) ImportKey(ctx context.Context, id kms.ObjectID, algorithm string, material []byte) (kms.HSMKey, error) {
	k, err := d.Service.ImportKey(ctx, hsm.KeyID(id), algorithm, material)
	return keyOf(k), keyError(err)
}

func (d *device) FindKey(ctx context.Context, id kms.ObjectID, algorithm string) (kms.HSMKey, error) {
	k, err := d.Service.FindKey(ctx, hsm.KeyID(id), algorithm)
	return keyOf(k), keyError(err)
}

func (d *device) UseKey(ctx context.Context, id kms.ObjectID, algorithm string, use keyring.Use, data, extra []byte) ([]byte, error) {
	out, err := d.Service.UseKey(ctx, hsm.KeyID(id), algorithm, hsm.Use(use), data, extra)
	return out, keyError(err)
}

func (d *device) ListKeys(ctx context.Context) ([]kms.ObjectID, error) {
	found, err := d.Service.ListKeys(ctx)
	ids := make([]kms.ObjectID, len(found))
	for i, id := range found {
		ids[i] = kms.ObjectID(id)
	}
	return ids, err
}

func keyOf(k hsm.Key) kms.HSMKey {
	return kms.HSMKey{ID: kms.ObjectID(k.ID), Algorithm: k.Algorithm, PublicKey: k.PublicKey, Origin: kms.Origin(k.Origin)}
}

func keyError(err error) error {
	for from, to := range map[error]error{hsm.ErrKeyNotFound: kms.ErrNoKey, hsm.ErrDecrypt: keyring.ErrDecrypt, hsm.ErrAlgorithm: kms.ErrKeyAlgorithm} {
		if errors.Is(err, from) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	if errors.Is(err, hsm.ErrInvalidArgument) {
		return &kms.TokenInputError{Reason: err.Error(), Err: err}
	}
	return err
}
