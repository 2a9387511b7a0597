package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms"
)

// GenerateKey implements kms.HSM.
func (d device) GenerateKey(ctx context.Context, id kms.ObjectID, algorithm string) (kms.HSMKey, error) {
	k, err := d.service.GenerateKey(ctx, hsm.KeyID(id), algorithm)
	return translateKey(k), translateKeyError(err)
}

// ImportKey implements kms.HSM.
func (d device) ImportKey(ctx context.Context, id kms.ObjectID, algorithm string, material []byte) (kms.HSMKey, error) {
	k, err := d.service.ImportKey(ctx, hsm.KeyID(id), algorithm, material)
	return translateKey(k), translateKeyError(err)
}

// FindKey implements kms.HSM.
func (d device) FindKey(ctx context.Context, id kms.ObjectID, algorithm string) (kms.HSMKey, error) {
	k, err := d.service.FindKey(ctx, hsm.KeyID(id), algorithm)
	return translateKey(k), translateKeyError(err)
}

// UseKey implements kms.HSM.
func (d device) UseKey(ctx context.Context, id kms.ObjectID, algorithm string, use keyring.Use, data, extra []byte) ([]byte, error) {
	out, err := d.service.UseKey(ctx, hsm.KeyID(id), algorithm, uses[use], data, extra)
	return out, translateKeyError(err)
}

// uses are the same on both sides, whatever their numbers.
var uses = map[keyring.Use]hsm.Use{
	keyring.UseEncrypt:           hsm.UseEncrypt,
	keyring.UseDecrypt:           hsm.UseDecrypt,
	keyring.UseSign:              hsm.UseSign,
	keyring.UseMAC:               hsm.UseMAC,
	keyring.UseDecryptAsymmetric: hsm.UseDecryptAsymmetric,
	keyring.UseAgree:             hsm.UseAgree,
}

// ListKeys implements kms.HSM.
func (d device) ListKeys(ctx context.Context) ([]kms.ObjectID, error) {
	found, err := d.service.ListKeys(ctx)
	ids := make([]kms.ObjectID, len(found))
	for i, id := range found {
		ids[i] = kms.ObjectID(id)
	}
	return ids, err
}

func translateKey(k hsm.Key) kms.HSMKey {
	return kms.HSMKey{ID: kms.ObjectID(k.ID), Algorithm: k.Algorithm, PublicKey: k.PublicKey, Origin: kms.Origin(k.Origin)}
}

// keyErrors are the errors that kms tells apart. One may be several of them: a full
// token, and it is not known whether it made the key all the same.
var keyErrors = []struct{ from, to error }{
	{hsm.ErrKeyNotFound, kms.ErrNoKey},
	{hsm.ErrAlgorithm, kms.ErrKeyAlgorithm},
	{hsm.ErrUnknownOutcome, kms.ErrUnknownOutcome},
	{hsm.ErrExhausted, kms.ErrTokenFull},
	{hsm.ErrDuplicateObject, kms.ErrNotTheKey},
	{hsm.ErrUnprotected, kms.ErrNotTheKey},
	{hsm.ErrDecrypt, keyring.ErrDecrypt},
}

// Return values of PKCS#11 (v2.40, section 5.1) for a token that takes no new objects.
const (
	sessionReadOnly     = 0xb5
	tokenWriteProtected = 0xe2
)

func translateKeyError(err error) error {
	var e *hsm.Error
	if !errors.As(err, &e) {
		return err
	}
	translated := err
	for _, known := range keyErrors {
		if errors.Is(err, known.from) {
			translated = fmt.Errorf("%w: %w", known.to, translated)
		}
	}
	if e.Code == sessionReadOnly || e.Code == tokenWriteProtected {
		translated = fmt.Errorf("%w: %w", kms.ErrTokenReadOnly, translated)
	}
	if errors.Is(err, hsm.ErrInvalidArgument) {
		translated = &kms.TokenInputError{Reason: strings.TrimPrefix(e.Err.Error(), hsm.ErrInvalidArgument.Error()+": "), Err: translated}
	}
	return translated
}
