package kms

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/policy"
)

// auditKey is the key that signs checkpoints.
type auditKey struct {
	ref    signerRef
	key    checkpoint.Key
	signer checkpoint.Signer
}

// deviceSigner signs with a key on the token.
type deviceSigner struct {
	hsm HSM
	id  ObjectID
}

// Sign implements checkpoint.Signer.
func (d deviceSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	return d.hsm.Sign(ctx, d.id, message)
}

// sealedSigner signs with a key that was sealed under the root key, for want of
// a token that signs.
type sealedSigner struct{ key ed25519.PrivateKey }

// Sign implements checkpoint.Signer.
func (s sealedSigner) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(s.key, message), nil
}

// String and GoString keep the key out of texts.
func (sealedSigner) String() string   { return "[redacted]" }
func (sealedSigner) GoString() string { return "[redacted]" }

// origin is the name of an installation's audit log (C2SP tlog-checkpoint) and of
// its keys.
func origin(installation ObjectID) string { return "keywright/" + installation.String() }

// Origin is the name of the audit log, in its checkpoints.
func (s *Service) Origin() string { return origin(s.installation.ID) }

// makeAuditKey makes a key on the token or, where the token can make none that
// signs, an Ed25519 key sealed in tx under the root key.
func (s *Service) makeAuditKey(ctx context.Context, tx *transaction) (made auditKey, err error) {
	signer, err := s.hsm.GenerateSigner(ctx)
	made.ref = signerRef{ID: signer.ID, Algorithm: signer.Algorithm, Protection: signerOnToken}
	made.signer = deviceSigner{s.hsm, signer.ID}
	if errors.Is(err, ErrNoSigningMechanism) {
		var seed []byte
		if signer.Public, seed, err = s.newSigningKey(); err == nil {
			made.ref = signerRef{Algorithm: "ED25519", Protection: signerSealed, Secret: secretAuditSigner + newID().String()}
			made.signer = sealedSigner{ed25519.NewKeyFromSeed(seed)}
			err = s.putSecret(tx, made.ref.Secret, seed)
		}
	}
	if err == nil {
		made.ref.PublicKey, err = x509.MarshalPKIXPublicKey(signer.Public)
	}
	if err != nil {
		return made, fmt.Errorf("make the audit key: %w", err)
	}
	made.key, err = checkpoint.NewKey(s.Origin(), signer.Public)
	return made, err
}

// openAuditKey makes a key that the store remembers ready to sign, and makes sure
// that it is where the record says: a token signs with no key that was not found.
func (s *Service) openAuditKey(ctx context.Context, ref signerRef) (auditKey, error) {
	opened := auditKey{ref: ref, signer: deviceSigner{s.hsm, ref.ID}}
	public, err := x509.ParsePKIXPublicKey(ref.PublicKey)
	if err != nil {
		return opened, dataLoss(pathInstallation, err)
	}
	if opened.key, err = checkpoint.NewKey(s.Origin(), public); err != nil {
		return opened, dataLoss(pathInstallation, err)
	}
	if ref.Protection == signerOnToken {
		return opened, s.findSigner(ctx, ref)
	}
	seed, err := s.SystemSecret(ctx, ref.Secret)
	if err != nil {
		return opened, err
	}
	defer clear(seed)
	if len(seed) != ed25519.SeedSize {
		return opened, dataLoss(prefixSecret+ref.Secret, errors.New("wrong length"))
	}
	opened.signer = sealedSigner{ed25519.NewKeyFromSeed(seed)}
	return opened, nil
}

func (s *Service) findSigner(ctx context.Context, ref signerRef) error {
	if s.auditKeyLost {
		return nil
	}
	found, err := s.hsm.FindSigner(ctx, ref.ID)
	if err != nil {
		return fmt.Errorf("find audit signing key %s on the token: %w", ref.ID, err)
	}
	return samePublicKey(found.Public, ref.PublicKey)
}

// loadAuditKey makes the audit key ready to sign.
func (s *Service) loadAuditKey(ctx context.Context) error {
	current, err := s.openAuditKey(ctx, s.installation.Signer)
	if err == nil {
		s.checkpoints.current.Store(&current)
	}
	return err
}

// succession reads the log's keys.
func (s *Service) succession() (checkpoint.Succession, error) {
	succession, err := checkpoint.ParseSuccession(s.audit.Keys())
	if err == nil && succession.Origin() != s.Origin() {
		err = fmt.Errorf("they are of %s, not of %s", succession.Origin(), s.Origin())
	}
	if err != nil {
		err = fmt.Errorf("the audit log's keys: %w: restore the log's file keys from a copy", err)
	}
	return succession, err
}

// beginSuccession writes the log's first key.
func (s *Service) beginSuccession(ctx context.Context, first auditKey) error {
	succession, err := checkpoint.BeginSuccession(ctx, first.key, first.signer)
	if err != nil {
		return hsmError("audit key", err)
	}
	return s.audit.SaveKeys(succession.Text())
}

// completeSuccession has the log's keys lead to the one that the store
// remembers: its forerunner signs it or, if that is lost, the break is declared.
// At start it finishes what a crash interrupted.
func (s *Service) completeSuccession(ctx context.Context, in installationRecord) error {
	s.checkpoints.lock.Lock()
	defer s.checkpoints.lock.Unlock()
	return s.complete(ctx, in)
}

// completeLatest is completeSuccession with the record as it is in the turn: of one
// that was read before, another rotation may have removed the key by now.
func (s *Service) completeLatest(ctx context.Context) error {
	s.checkpoints.lock.Lock()
	defer s.checkpoints.lock.Unlock()
	record, err := read[installationRecord](ctx, s, s.system, pathInstallation)
	if err != nil {
		return err
	}
	return s.complete(ctx, record.value)
}

func (s *Service) complete(ctx context.Context, in installationRecord) error {
	succession, err := s.succession()
	if err != nil {
		return err
	}
	next, err := s.openAuditKey(ctx, in.Signer)
	if err != nil {
		return err
	}
	if succession.Current().Equal(next.key) {
		s.dropAuditKey(ctx, in) // which a crash may have prevented
		return nil
	}
	from, err := s.audit.SyncAll()
	if err != nil {
		return auditError(err)
	}
	if in.SignerBreak != "" {
		succession, err = succession.Break(ctx, from, in.SignerBreak, next.key, next.signer)
	} else {
		succession, err = s.follow(ctx, succession, from, in, next)
	}
	if err != nil {
		return hsmError("audit key", err)
	}
	if err := s.audit.SaveKeys(succession.Text()); err != nil {
		return auditError(err)
	}
	s.checkpoints.current.Store(&next)
	s.dropAuditKey(ctx, in)
	return nil
}

func (s *Service) follow(ctx context.Context, succession checkpoint.Succession, from uint64, in installationRecord, next auditKey) (checkpoint.Succession, error) {
	if in.PreviousSigner == nil {
		return succession, errors.New("the audit log's keys do not lead to the key that the store remembers: restore the log's file keys from a copy")
	}
	before, err := s.openAuditKey(ctx, *in.PreviousSigner)
	if err != nil {
		return succession, err
	}
	return succession.Follow(ctx, from, before.signer, next.key, next.signer)
}

// dropAuditKey removes a key that has vouched for its successor from the token, if
// it is still there, so that nobody can sign another past with it.
func (s *Service) dropAuditKey(ctx context.Context, in installationRecord) {
	if in.PreviousSigner == nil || in.PreviousSigner.Protection != signerOnToken {
		return
	}
	if err := s.hsm.Destroy(ctx, in.PreviousSigner.ID); err != nil {
		s.log.Warn("the old audit key is still on the token; remove it there", "id", in.PreviousSigner.ID, "error", err)
	}
}

// AuditKey is a key that signs checkpoints from a size of the log on.
type AuditKey struct {
	Key  string // a vkey (C2SP signed-note)
	From uint64
}

// RotateAuditKey makes a new audit key, which the old one vouches for, and
// removes the old one from the token.
func (s *Service) RotateAuditKey(ctx context.Context, call Call, idempotency string) (AuditKey, error) {
	var made *auditKey
	c := change{action: policy.RotateAuditKey, idempotency: idempotency, request: struct{}{},
		resource: func(context.Context) (*policy.Resource, error) { return &policy.Resource{}, nil },
		lock:     func() *sync.Mutex { return &s.head.lock }, forget: s.reloadHead}
	answer, err := mutate(ctx, s, call, c, func(ctx context.Context, _ *trace, tx *transaction) (AuditKey, error) {
		record, err := read[installationRecord](ctx, s, s.system, pathInstallation)
		if err != nil {
			return AuditKey{}, err
		}
		if err := s.completeSuccession(ctx, record.value); err != nil { // only the newest forerunner can be made up for
			return AuditKey{}, err
		}
		if err := s.roomForAuditKey(); err != nil {
			return AuditKey{}, err
		}
		if made == nil || made.ref.Protection == signerSealed { // a sealed one is new in each plan
			fresh, err := s.makeAuditKey(ctx, tx)
			if err != nil {
				return AuditKey{}, hsmError("audit key", err)
			}
			made = &fresh
		}
		before := record.value.Signer
		record.value.PreviousSigner, record.value.Signer, record.value.SignerBreak = &before, made.ref, ""
		tx.put(s.system, pathInstallation, record.revision, record.value)
		tx.detail("audit_key", made.key.String())
		tx.detail("before", s.checkpoints.current.Load().key.String())
		return AuditKey{Key: made.key.String()}, nil
	})
	if err != nil {
		return AuditKey{}, err
	}
	if err = s.completeLatest(ctx); err == nil {
		answer.From, err = s.auditKeyFrom(answer.Key)
	}
	return answer, err
}

// auditKeyFrom tells from which size of the log on a key signs.
func (s *Service) auditKeyFrom(vkey string) (uint64, error) {
	key, err := checkpoint.ParseKey(vkey)
	if err != nil {
		return 0, err
	}
	succession, err := s.succession()
	if err != nil {
		return 0, err
	}
	spans, _, err := succession.Trusted(key)
	if err != nil {
		return 0, err
	}
	return spans[0].From, nil
}

// roomForAuditKey refuses a key that the log's keys could not take up any more,
// before the store remembers it.
func (s *Service) roomForAuditKey() error {
	succession, err := s.succession()
	if err == nil && succession.Full() {
		err = precondition("TOO_MANY_AUDIT_KEYS", "the log has had %d audit keys, as many as can follow each other; go on with the last", checkpoint.MaxKeys)
	}
	return err
}

// ReplaceAuditKey makes a new audit key in place of one that is lost and cannot
// vouch for it: the log's keys say so, with the reason, and whoever verifies must
// be given the new key, which is returned as a vkey. The server must be stopped.
func ReplaceAuditKey(ctx context.Context, c Config, reason string) (string, error) {
	s := newService(c.withDefaults())
	s.auditKeyLost = true
	if err := s.load(ctx); err != nil {
		return "", err
	}
	if err := s.checkAnchorAlone(ctx); err != nil {
		return "", err
	}
	record, err := read[installationRecord](ctx, s, s.system, pathInstallation)
	if err == nil {
		err = s.roomForAuditKey()
	}
	if err != nil {
		return "", err
	}
	tx := &transaction{}
	made, err := s.makeAuditKey(ctx, tx)
	if err != nil {
		return "", err
	}
	record.value.Signer, record.value.PreviousSigner, record.value.SignerBreak = made.ref, nil, reason
	tx.put(s.system, pathInstallation, record.revision, record.value)
	if _, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: "ReplaceAuditKey",
		Outcome: string(OK), Records: tx.records, Details: map[string]string{"audit_key": made.key.String(), "reason": reason}}, audit.Sync); err != nil {
		return "", auditError(err)
	}
	if err := tx.commit(ctx, s); err != nil {
		return "", storeError(err)
	}
	if err := s.completeSuccession(ctx, record.value); err != nil {
		return "", err
	}
	return made.key.String(), s.makeCheckpoint(ctx)
}

func (s *Service) checkAnchorAlone(ctx context.Context) error {
	if err := s.readIntents(ctx); err != nil {
		return err
	}
	return s.checkAnchor()
}
