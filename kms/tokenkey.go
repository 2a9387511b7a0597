package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/store"
)

// tokenKey is the key of a version on the token: a keyring.External. The token is
// asked for it on first use, so that loading a version, under a lock that other
// keys share, waits for nothing; and however many keys there are, starting asks
// for none.
type tokenKey struct {
	hsm       HSM
	id        ObjectID
	algorithm string
	public    []byte // SubjectPublicKeyInfo that is written down
	version   string // for messages
	found     atomic.Bool
}

var _ keyring.External = (*tokenKey)(nil)

// openObject makes a version that is used on the token.
func (s *Service) openObject(k *key, record versionRecord) (*keyring.Version, error) {
	held, err := s.tokenKeyOf(k, record)
	if err != nil {
		return nil, err
	}
	ready, err := keyring.ExternalVersion(k.algorithm, uint64(k.ID), record.Version, held.public, held)
	switch {
	case errors.Is(err, keyring.ErrNotFIPS):
		return nil, precondition("NOT_FIPS", "algorithm %s is not allowed while FIPS 140-3 mode is enforced", k.Algorithm)
	case err != nil:
		return nil, dataLoss(pathVersion(k.ns.ID, k.ID, record.Version), err)
	}
	return ready, nil
}

func (s *Service) tokenKeyOf(k *key, record versionRecord) (*tokenKey, error) {
	if record.Object == nil {
		return nil, dataLoss(pathVersion(k.ns.ID, k.ID, record.Version), errors.New("it names no object on the token"))
	}
	hsm, err := s.tokenHSM(k.ns.Token)
	if err != nil {
		return nil, err
	}
	return &tokenKey{hsm: hsm, id: record.Object.ID, algorithm: k.Algorithm, public: record.Object.PublicKey,
		version: fmt.Sprintf("version %d of key %s/%s", record.Version, k.ns.Name, k.Name)}, nil
}

// Use implements keyring.External. A device that was opened anew knows of no key
// until it is found again.
func (k *tokenKey) Use(ctx context.Context, use keyring.Use, data, extra []byte) ([]byte, error) {
	for again := k.found.Load(); ; again = false {
		if !again {
			if err := k.find(ctx); err != nil {
				return nil, err
			}
		}
		out, err := k.hsm.UseKey(ctx, k.id, k.algorithm, use, data, extra)
		switch {
		case !errors.Is(err, ErrNoKey):
			return out, err
		case !again:
			return nil, k.missing(err)
		}
	}
}

// find finds the key on the token, and makes sure that it is the one.
func (k *tokenKey) find(ctx context.Context) error {
	found, err := k.hsm.FindKey(ctx, k.id, k.algorithm)
	switch {
	case errors.Is(err, ErrNoKey):
		return k.missing(err)
	case errors.Is(err, ErrNotTheKey):
		return k.exchanged(err)
	case err != nil:
		return err
	case !bytes.Equal(found.PublicKey, k.public):
		return k.exchanged(ErrNotTheKey)
	}
	k.found.Store(true)
	return nil
}

func (k *tokenKey) exchanged(cause error) error {
	return &Error{Code: DataLoss, Reason: "HSM_KEY_EXCHANGED", Cause: cause,
		Message: fmt.Sprintf("the token has something else in the place of the key of %s (object %s), which is not used; look at the token with its own tools", k.version, k.id)}
}

// missing is UNAVAILABLE: a token that was put in the place of another, or whose
// files are gone, answers like one that never had the key.
func (k *tokenKey) missing(cause error) error {
	return &Error{Code: Unavailable, Reason: "HSM_KEY_MISSING", Cause: cause,
		Message: fmt.Sprintf("the token does not have the key of %s (object %s); bring back the token that has it. Other versions and keys are not affected", k.version, k.id)}
}

// describeTimeout bounds how long describing a version waits for the token.
const describeTimeout = 2 * time.Second

// describeObject asks the token where a version's key comes from. nil is for what
// is not on the token, or no longer.
func (s *Service) describeObject(ctx context.Context, k *key, v versionRecord) (*TokenKey, error) {
	if v.Object == nil {
		return nil, nil
	}
	described := &TokenKey{ID: v.Object.ID}
	if v.State == Destroyed {
		_, err := s.store.Get(ctx, pathOrphan(v.Object.ID))
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, nil
		case err != nil:
			return nil, storeError(err)
		}
		described.Removing = true
		return described, nil
	}
	asking, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	hsm, err := s.tokenHSM(k.ns.Token)
	if err != nil {
		described.Problem = "the token is not in this server's configuration"
		return described, nil //nolint:nilerr // told as the problem
	}
	found, err := hsm.FindKey(asking, v.Object.ID, k.Algorithm)
	switch {
	case err == nil:
		described.Origin = found.Origin
	case errors.Is(err, ErrNoKey):
		described.Problem = "the token does not have the key"
	case errors.Is(err, ErrNotTheKey):
		described.Problem = "the token has something else in the key's place"
	case ctx.Err() != nil:
		return nil, hsmError("", ctx.Err())
	default:
		described.Problem = "the token does not answer"
		s.log.Warn("the token does not say where a key comes from", "key", k.ID, "version", v.Version, "error", err)
	}
	return described, nil
}
