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

// installationFormat is the version of the store's layout. Format 1 was never
// released.
const installationFormat = 2

// formatManyRoots is the layout of an installation that has had more than one
// version of the root key: programs that know only format 2 would lose the others.
const formatManyRoots = 3

// EventInitializeBegin is the audit log's first entry. An installation whose log
// holds nothing else was interrupted before its store was written. Its details
// have the initial policies, each under the path of its record.
const EventInitializeBegin = "InitializeBegin"

// eventInitialize is the entry of an installation that was made.
const eventInitialize = "Initialize"

// Where the audit signing key lives.
const (
	signerOnToken = "token"
	signerSealed  = "sealed"
)

// Secrets of the system namespace that Initialize makes.
const (
	secretTokenSigner = "token-signer-1"
	secretAuditSigner = "audit-signer-"
)

// InitOptions is what a new installation starts with.
type InitOptions struct {
	// DevMode allows short destruction delays, for ever.
	DevMode bool
	// Policies are in force from the start.
	Policies []policy.Policy
	// Secrets are sealed under `system`, to be read by SystemSecret.
	Secrets map[string][]byte
	// BootstrapToken, if not nil, is given a token for one call within an hour,
	// with the rights of an administrator. It must have kept the token safe,
	// durably, when it returns nil; only then the installation is made.
	BootstrapToken func(text string) error
}

// Installation is what Initialize made.
type Installation struct {
	ID               string
	RootKeyID        string
	SignerAlgorithm  string
	SignerProtection string
	// AuditKey verifies the log's checkpoints (a vkey, C2SP signed-note). Who
	// keeps a copy elsewhere can tell this log from any other.
	AuditKey string
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
	s := newService(c)
	made, err := s.initialize(ctx, o)
	switch {
	case errors.Is(err, store.ErrUnknown):
		return made, err
	case errors.Is(err, store.ErrConflict), err != nil && s.madeMeanwhile(ctx):
		return Installation{}, errors.Join(ErrInitialized, s.removeObjects(ctx))
	case err != nil:
		return Installation{}, errors.Join(err, s.removeObjects(ctx))
	}
	// From here on the store needs the new objects, whatever fails.
	if err := s.auditInitialize(eventInitialize, made, nil, nil); err != nil {
		return made, err
	}
	return made, s.makeCheckpoint(ctx)
}

// madeMeanwhile tells that another was quicker to make an installation.
func (s *Service) madeMeanwhile(ctx context.Context) bool {
	_, err := s.store.Get(ctx, pathInstallation)
	return err == nil
}

func (s *Service) initialize(ctx context.Context, o InitOptions) (Installation, error) {
	if err := s.reseed(ctx); err != nil {
		return Installation{}, err
	}
	tx := &transaction{}
	signer, err := s.makeSystem(ctx, tx, o.DevMode)
	if err != nil {
		return Installation{}, err
	}
	bootstrap, err := s.putInitial(tx, &o, signer)
	if err != nil {
		return Installation{}, err
	}
	made := Installation{ID: s.installation.ID.String(), RootKeyID: s.installation.Root.ID.String(),
		SignerAlgorithm: s.installation.Signer.Algorithm, SignerProtection: s.installation.Signer.Protection, AuditKey: s.checkpoints.current.Load().key.String()}
	if err := s.auditInitialize(EventInitializeBegin, made, o.Policies, tx.records); err != nil {
		return Installation{}, err
	}
	if err := s.beginSuccession(ctx, *s.checkpoints.current.Load()); err != nil {
		return Installation{}, err
	}
	// What the installation is made of is signed before any credential is shown.
	if err := s.makeCheckpoint(ctx); err != nil {
		return Installation{}, err
	}
	if o.BootstrapToken != nil {
		if err := o.BootstrapToken(bootstrap); err != nil {
			return Installation{}, fmt.Errorf("bootstrap token: %w", err)
		}
	}
	return made, tx.commit(ctx, s)
}

func (s *Service) auditInitialize(action string, made Installation, policies []policy.Policy, records map[string]string) error {
	details := map[string]string{"installation": made.ID, "root": made.RootKeyID, "audit_key": made.AuditKey, "signer": made.SignerAlgorithm + " " + made.SignerProtection}
	for _, p := range policies {
		details[pathPolicy(p.Namespace, p.Name)] = p.Text
	}
	_, err := s.audit.Append(&audit.Entry{Time: s.now(), Phase: audit.PhaseEvent, Principal: internalPrincipal, Action: action, Outcome: string(OK),
		Details: details, Records: records}, audit.Sync)
	return err
}

// makeSystem makes the root key, the system domain and the signers; it returns
// that of tokens.
func (s *Service) makeSystem(ctx context.Context, tx *transaction, devMode bool) (ed25519.PrivateKey, error) {
	s.installation = installationRecord{Format: installationFormat, DevMode: devMode, Created: s.now().UTC(),
		Root: rootRef{ID: newObjectID(), Version: 1, Created: s.now().UTC()}, TokenEpoch: 1}
	var err error
	if s.installation.Root.CheckValue, err = s.hsm.GenerateRoot(ctx, s.installation.Root.ID); err != nil {
		return nil, fmt.Errorf("generate the root key: %w", err)
	}
	rand.Read(s.installation.ID[:])
	s.keepRoots(s.installation).byVersion[1].found.Store(true)
	var wrapped []byte
	if s.system, wrapped, err = domain.Create(ctx, s.roots.Load().byVersion[1], &s.random, s.domainID(0, 1)); err != nil {
		return nil, fmt.Errorf("make the system domain: %w", err)
	}
	tx.put(s.system, pathDomain(0, 1), 0, domainRecord{Generation: 1, RootVersion: 1, Wrapped: wrapped, Created: s.now().UTC()})
	made, err := s.makeAuditKey(ctx, tx)
	s.installation.Signer = made.ref
	if err != nil {
		return nil, err
	}
	s.checkpoints.current.Store(&made)
	_, seed, err := s.newSigningKey()
	if err != nil {
		return nil, err
	}
	if err := s.putSecret(tx, secretTokenSigner, seed); err != nil {
		return nil, err
	}
	tx.put(s.system, pathIntents, 0, intentsRecord{})
	tx.put(s.system, pathInstallation, 0, s.installation)
	return ed25519.NewKeyFromSeed(seed), nil
}

func (s *Service) newSigningKey() (ed25519.PublicKey, []byte, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := s.random.Read(seed); err != nil {
		return nil, nil, err
	}
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey), seed, nil
}

// putInitial puts what the options ask for, and returns the bootstrap token's
// text, "" if none is wanted.
func (s *Service) putInitial(tx *transaction, o *InitOptions, signer ed25519.PrivateKey) (bootstrap string, err error) {
	for _, name := range slices.Sorted(maps.Keys(o.Secrets)) {
		if err := s.putSecret(tx, name, o.Secrets[name]); err != nil {
			return "", err
		}
	}
	if o.BootstrapToken != nil {
		o.Policies = append(slices.Clone(o.Policies), policy.Policy{Name: bootstrapName, Text: bootstrapPolicy})
		if bootstrap, err = s.newBootstrap(signer); err != nil {
			return "", err
		}
	}
	for _, p := range o.Policies {
		if err := policy.Validate(p); err != nil {
			return "", err
		}
		s.putPolicy(tx, p)
	}
	return bootstrap, nil
}

func (s *Service) putPolicy(tx *transaction, p policy.Policy) {
	now := s.now().UTC()
	tx.put(s.system, pathPolicy(p.Namespace, p.Name), 0,
		Policy{Namespace: p.Namespace, Name: p.Name, Text: p.Text, Created: now, Updated: now, Revision: 1})
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
	for _, id := range []ObjectID{s.installation.Root.ID, s.installation.Signer.ID} {
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
