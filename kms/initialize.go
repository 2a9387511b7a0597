package kms

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// ErrInitialized says that the store already holds an installation.
var ErrInitialized = errors.New("the store already holds an installation; it was not changed")

// installationFormat is the version of the store's layout.
const installationFormat = 1

// EventInitializeBegin is the audit log's first entry. An installation whose log
// holds nothing else was interrupted before its store was written.
const EventInitializeBegin = "InitializeBegin"

// Where the audit signing key lives.
const (
	signerOnToken = "token"
	signerSealed  = "sealed"
)

// Secrets of the system namespace that Initialize makes.
const (
	secretTokenSigner = "token-signer-1"
	secretAuditSigner = "audit-signer-1"
)

// InitOptions is what a new installation starts with.
type InitOptions struct {
	// DevMode allows short destruction delays, for ever.
	DevMode bool
	// Policies are in force from the start.
	Policies []policy.Policy
	// Secrets are sealed under `system`, to be read by SystemSecret.
	Secrets map[string][]byte
}

// Installation is what Initialize made.
type Installation struct {
	ID               string
	RootKeyID        string
	SignerAlgorithm  string
	SignerProtection string
}

// Initialize makes a new installation: a root key and an audit signing key on
// the token, the system namespace, policies and secrets. All that goes into the
// store goes in at once; when that fails, the new objects on the token are
// removed again. A store that has an installation is left alone: ErrInitialized.
func Initialize(ctx context.Context, c Config, o InitOptions) (Installation, error) {
	c = c.withDefaults()
	switch _, err := c.Store.Get(ctx, pathInstallation); {
	case err == nil:
		return Installation{}, ErrInitialized
	case !errors.Is(err, store.ErrNotFound):
		return Installation{}, fmt.Errorf("look for an installation: %w", err)
	}
	s := &Service{config: c, store: c.Store, audit: c.Audit, hsm: c.HSM, log: c.Logger, now: c.Clock}
	made, err := s.initialize(ctx, o)
	switch {
	case errors.Is(err, store.ErrUnknown):
		return made, err
	case errors.Is(err, store.ErrConflict):
		return Installation{}, errors.Join(ErrInitialized, s.removeObjects(ctx))
	case err != nil:
		return Installation{}, errors.Join(err, s.removeObjects(ctx))
	}
	// From here on the store needs the new objects, whatever fails.
	return made, s.auditInitialize("Initialize", made)
}

func (s *Service) initialize(ctx context.Context, o InitOptions) (Installation, error) {
	if err := s.reseed(ctx); err != nil {
		return Installation{}, err
	}
	tx := &transaction{}
	if err := s.makeSystem(ctx, tx, o.DevMode); err != nil {
		return Installation{}, err
	}
	if err := s.putInitial(tx, o); err != nil {
		return Installation{}, err
	}
	made := Installation{ID: s.installation.ID.String(), RootKeyID: s.root.id.String(),
		SignerAlgorithm: s.installation.Signer.Algorithm, SignerProtection: s.installation.Signer.Protection}
	if err := s.auditInitialize(EventInitializeBegin, made); err != nil {
		return Installation{}, err
	}
	return made, tx.commit(ctx, s)
}

func (s *Service) auditInitialize(action string, made Installation) error {
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: action, Outcome: string(OK),
		Details: map[string]string{"installation": made.ID, "root": made.RootKeyID, "signer": made.SignerAlgorithm + " " + made.SignerProtection}}, audit.Sync)
	return err
}

// makeSystem makes the root key, the system domain and the signers.
func (s *Service) makeSystem(ctx context.Context, tx *transaction, devMode bool) error {
	id, check, err := s.hsm.GenerateRoot(ctx)
	s.root = root{hsm: s.hsm, id: id, version: 1}
	if err != nil {
		return fmt.Errorf("generate the root key: %w", err)
	}
	s.installation = installationRecord{Format: installationFormat, DevMode: devMode, Created: s.now().UTC(),
		Root: rootRef{ID: id, Version: 1, CheckValue: check}, TokenEpoch: 1}
	rand.Read(s.installation.ID[:])
	var wrapped []byte
	if s.system, wrapped, err = domain.Create(ctx, s.root, &s.random, s.domainID(0, 1)); err != nil {
		return fmt.Errorf("make the system domain: %w", err)
	}
	tx.put(s.system, pathDomain(0, 1), 0, domainRecord{Generation: 1, RootVersion: 1, Wrapped: wrapped, Created: s.now().UTC()})
	if err := s.makeSigner(ctx, tx); err != nil {
		return err
	}
	_, seed, err := s.newSigningKey()
	if err != nil {
		return err
	}
	if err := s.putSecret(tx, secretTokenSigner, seed); err != nil {
		return err
	}
	tx.put(s.system, pathIntents, 0, intentsRecord{})
	tx.put(s.system, pathInstallation, 0, s.installation)
	return nil
}

// makeSigner makes the audit signing key on the token, or, where the token can
// make none, an Ed25519 key sealed under the root key.
func (s *Service) makeSigner(ctx context.Context, tx *transaction) error {
	signer, err := s.hsm.GenerateSigner(ctx)
	s.installation.Signer.ID = signer.ID
	protection := signerOnToken
	if errors.Is(err, ErrNoSigningMechanism) {
		protection = signerSealed
		var seed []byte
		if signer.Public, seed, err = s.newSigningKey(); err == nil {
			signer.Algorithm = "ED25519"
			err = s.putSecret(tx, secretAuditSigner, seed)
		}
	}
	if err != nil {
		return fmt.Errorf("make the audit signing key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public)
	if err != nil {
		return fmt.Errorf("encode the audit signing key: %w", err)
	}
	s.installation.Signer = signerRef{ID: signer.ID, Algorithm: signer.Algorithm, PublicKey: der, Protection: protection}
	return nil
}

func (s *Service) newSigningKey() (ed25519.PublicKey, []byte, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := s.random.Read(seed); err != nil {
		return nil, nil, err
	}
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey), seed, nil
}

func (s *Service) putInitial(tx *transaction, o InitOptions) error {
	for _, name := range slices.Sorted(maps.Keys(o.Secrets)) {
		if err := s.putSecret(tx, name, o.Secrets[name]); err != nil {
			return err
		}
	}
	now := s.now().UTC()
	tx.put(s.system, pathHead, 0, headRecord{PolicyRevision: 1, PolicyDigest: policyDigest(o.Policies)})
	for _, p := range o.Policies {
		if err := policy.Validate(p); err != nil {
			return err
		}
		tx.put(s.system, pathPolicy(p.Namespace, p.Name), 0,
			Policy{Namespace: p.Namespace, Name: p.Name, Text: p.Text, Created: now, Updated: now, Revision: 1})
	}
	return nil
}

// secretRecord is a sealed secret of the system namespace.
type secretRecord struct {
	Sealed []byte `json:"sealed"`
}

func (s *Service) putSecret(tx *transaction, name string, secret []byte) error {
	path := prefixSecret + name
	sealed, err := s.system.Seal(path, secret)
	if err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	tx.put(s.system, path, 0, secretRecord{Sealed: sealed})
	return nil
}

// SystemSecret returns a secret that Initialize sealed. It is for wiring (the
// local CA) and passes no policy: no surface may call it for a caller.
func (s *Service) SystemSecret(ctx context.Context, name string) ([]byte, error) {
	path := prefixSecret + name
	record, err := read[secretRecord](ctx, s, s.system, path)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound("SECRET_NOT_FOUND", "the installation has no secret %q", name)
	}
	if err != nil {
		return nil, err
	}
	secret, err := s.system.Open(path, record.value.Sealed)
	if err != nil {
		return nil, dataLoss(path, err)
	}
	return secret, nil
}

// removeObjects takes back what a failed Initialize made on the token.
func (s *Service) removeObjects(ctx context.Context) error {
	var errs []error
	for _, id := range []ObjectID{s.root.id, s.installation.Signer.ID} {
		if id != (ObjectID{}) {
			errs = append(errs, s.hsm.Destroy(context.WithoutCancel(ctx), id))
		}
	}
	return errors.Join(errs...)
}

// peek decodes a record before it can be verified: only to find the root key and
// the wrapped secret by which it is then verified.
func peek[T any](record store.Record) (v T, err error) {
	payload, err := domain.Peek(record.Value)
	if err == nil {
		err = json.Unmarshal(payload, &v)
	}
	if err != nil {
		return v, dataLoss(record.Key, err)
	}
	return v, nil
}

func samePublicKey(found crypto.PublicKey, remembered []byte) error {
	der, err := x509.MarshalPKIXPublicKey(found)
	if err != nil || !bytes.Equal(der, remembered) {
		return errors.New("the audit signing key on the token is not the one that the store remembers")
	}
	return nil
}
