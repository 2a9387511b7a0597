package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/token"
)

// The bootstrap token is for the first call of all: to give a principal of the
// operator's own a policy. It works once, for an hour.
const (
	bootstrapName   = "bootstrap"
	BootstrapTTL    = time.Hour
	bootstrapPolicy = `permit (principal == Token::"` + bootstrapName + `", action in Action::"admin", resource);` + "\n"
)

// actionSpendToken is what the audit log calls it when a token that works once
// is used up.
const actionSpendToken policy.Action = "SpendToken"

// newBootstrap makes the bootstrap token. It is handed out before anything is
// stored: a crash in between leaves a text that is worth nothing, never an
// installation whose token was lost.
func (s *Service) newBootstrap(signer ed25519.PrivateKey) (string, error) {
	now := s.now().UTC().Truncate(time.Second)
	statement := token.Statement{Installation: s.installation.ID, Epoch: s.installation.TokenEpoch,
		Bearer: token.Bearer{Principal: bootstrapName}, Issued: now, Expires: now.Add(BootstrapTTL), Once: true}
	rand.Read(statement.ID[:])
	return token.Sign(statement, signer)
}

// spendIfOnce uses up the caller's token if it works for one call: durably, before
// that call does anything, and for all servers, because the record that revokes it
// can be written only once.
func (s *Service) spendIfOnce(t *trace) error {
	if !t.call.Caller.Token.Once {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	spent := s.begin(t.call, actionSpendToken)
	return s.conclude(spent, s.spendToken(ctx, spent))
}

func (s *Service) spendToken(ctx context.Context, t *trace) error {
	s.head.lock.Lock()
	defer s.head.lock.Unlock()
	id, err := parseTokenID(t.call.Caller.TokenID)
	if err != nil {
		return err
	}
	revocation := Revocation{ID: hex.EncodeToString(id[:]), Created: t.start.UTC()}
	if revocation.Expires, err = s.revocationEnd(ctx, revocation); err != nil {
		return err
	}
	for range maxAttempts {
		if _, revoked := s.revocations.current.Load().ids[id]; revoked {
			return errTokenRevoked()
		}
		tx := &transaction{}
		s.putRevocation(tx, revocation, 0)
		if err = s.auditIntent(t, tx); err == nil {
			err = tx.commit(ctx, s)
		}
		if !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if errors.Is(err, store.ErrUnknown) {
		s.reloadHead()
	}
	return storeError(err)
}
