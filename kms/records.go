package kms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/store"
)

// Stored records are JSON, authenticated with their path (package domain): those
// under key/, keyname/, version/ and usage/ by their namespace, all others by
// `system`. Ids are 16, versions 8 hexadecimal digits, so that listings are in order.
const (
	pathInstallation = "installation"
	pathHead         = "head"
	pathIntents      = "intents"
	prefixDomain     = "domain/"
	prefixNamespace  = "namespace/"
	prefixKeyID      = "keyid/"
	prefixKey        = "key/"
	prefixKeyName    = "keyname/"
	prefixVersion    = "version/"
	prefixUsage      = "usage/"
	prefixPolicy     = "policy/"
	prefixGroup      = "group/"
	prefixRevocation = "revocation/"
	prefixSecret     = "secret/"
	prefixIdempotent = "idempotent/"
	prefixDue        = "due/"
	prefixIntent     = "intent/"
	prefixRekey      = "rekey/"
	prefixObject     = "object/"
	prefixOrphan     = "orphan/"
	prefixImport     = "import/"
	prefixImportEnd  = "endedimport/"
)

func pathDomain(ns ID, generation uint32) string {
	return fmt.Sprintf("%s%s/%08x", prefixDomain, ns, generation)
}
func prefixDomains(ns ID) string       { return prefixDomain + ns.String() + "/" }
func pathRekey(ns ID) string           { return prefixRekey + ns.String() }
func pathNamespace(name string) string { return prefixNamespace + name }

// pathKeyID is never deleted: an id is never reused.
func pathKeyID(key ID) string               { return prefixKeyID + key.String() }
func pathKey(ns, key ID) string             { return prefixKey + ns.String() + "/" + key.String() }
func prefixKeyNames(ns ID) string           { return prefixKeyName + ns.String() + "/" }
func pathKeyName(ns ID, name string) string { return prefixKeyNames(ns) + name }
func prefixVersions(ns, key ID) string      { return prefixVersion + ns.String() + "/" + key.String() + "/" }
func pathVersion(ns, key ID, v uint32) string {
	return fmt.Sprintf("%s%08x", prefixVersions(ns, key), v)
}
func pathUsage(ns, key ID, v uint32) string {
	return fmt.Sprintf("%s%s/%s/%08x", prefixUsage, ns, key, v)
}

// pathPolicy puts the installation's policies under "@", which no namespace can be called.
func pathPolicy(namespace, name string) string { return prefixPolicies(namespace) + name }
func prefixPolicies(namespace string) string {
	if namespace == "" {
		namespace = "@"
	}
	return prefixPolicy + namespace + "/"
}

// domainRecord is the wrapped secret of one generation of a namespace; it is
// authenticated by the very domain that it wraps. Each transaction that writes
// under a domain expects its record unchanged, so that closing it ends all such
// writing, on every server.
type domainRecord struct {
	Namespace   ID        `json:"namespace"`
	Generation  uint32    `json:"generation"`
	RootVersion uint32    `json:"root_version"`
	Wrapped     []byte    `json:"wrapped"`
	Created     time.Time `json:"created"`
	Closed      time.Time `json:"closed,omitzero"` // since then nothing is written under it
}

// installationRecord is what the store remembers of its root key.
type installationRecord struct {
	Format  int       `json:"format"`
	ID      ObjectID  `json:"id"`
	DevMode bool      `json:"dev_mode,omitempty"`
	Created time.Time `json:"created"`
	Root    rootRef   `json:"root"`            // the one in force on the default token
	Roots   []rootRef `json:"roots,omitempty"` // all other versions that are remembered
	Signer  signerRef `json:"signer"`
	// PreviousSigner vouched for Signer, unless SignerBreak says why it could not.
	PreviousSigner *signerRef `json:"previous_signer,omitempty"`
	SignerBreak    string     `json:"signer_break,omitempty"`
	TokenEpoch     uint32     `json:"token_epoch"`
}

// rootRef is one version of the root key. Versions are numbered for all tokens
// together, and no number is used again.
type rootRef struct {
	ID         ObjectID `json:"id"`
	Version    uint32   `json:"version"`
	CheckValue []byte   `json:"check_value"` // nil while it is PENDING
	// Token is empty for the default one, State for the one in force there.
	Token       string    `json:"token,omitempty"`
	State       RootState `json:"state,omitempty"`
	Created     time.Time `json:"created,omitzero"`
	Replaced    time.Time `json:"replaced,omitzero"`
	Retired     time.Time `json:"retired,omitzero"`
	DestroyTime time.Time `json:"destroy_time,omitzero"`
	Forced      bool      `json:"forced,omitempty"` // what it wraps is to be lost with it
}

// signerRef is the audit key, which signs checkpoints; ID is zero when it is
// sealed, not on the token.
type signerRef struct {
	ID         ObjectID `json:"id"`
	Algorithm  string   `json:"algorithm"`
	PublicKey  []byte   `json:"public_key"`       // SubjectPublicKeyInfo, DER
	Protection string   `json:"protection"`       // "token" or "sealed"
	Secret     string   `json:"secret,omitempty"` // where it is sealed
}

// keyIndex maps a key id to its namespace, for ciphertexts that name only the id.
type keyIndex struct {
	Namespace     ID     `json:"namespace"`
	NamespaceName string `json:"namespace_name"`
}

type keyNameRecord struct {
	ID ID `json:"id"`
}

// keyRecord is a key without its versions.
type keyRecord struct {
	Key
	Framing        Framing   `json:"framing"`
	PrimaryCreated time.Time `json:"primary_created"`
	DestroyedUnder uint32    `json:"destroyed_under,omitempty"` // as of a version
}

// versionRecord is a version with its sealed material, empty once destroyed, or
// with its object on the token; of a key of VAULT framing that is there, the material
// is the HMAC key.
type versionRecord struct {
	Version     uint32       `json:"version"`
	State       VersionState `json:"state"`
	Created     time.Time    `json:"created"`
	Imported    time.Time    `json:"imported,omitzero"` // its material was brought along
	DestroyTime time.Time    `json:"destroy_time,omitzero"`
	Material    []byte       `json:"material,omitempty"`
	Object      *objectRef   `json:"object,omitempty"`
	Counted     bool         `json:"counted,omitempty"` // uses are counted in blocks
	// DestroyedUnder is the generation that sealed the namespace's material when
	// this was destroyed: no later one ever sealed it.
	DestroyedUnder uint32 `json:"destroyed_under,omitempty"`
}

// usageRecord counts uses in reserved blocks and remembers the last one.
type usageRecord struct {
	Reserved uint64 `json:"reserved"`
	LastUsed int64  `json:"last_used,omitempty"` // hours since 1970
}

// stored is a decoded, authenticated record and the revision it was read at.
type stored[T any] struct {
	value    T
	revision store.Revision
}

// read loads and verifies one record. A missing one is store.ErrNotFound, for
// the caller to word.
func read[T any](ctx context.Context, s *Service, d *domain.Domain, path string) (stored[T], error) {
	record, err := s.store.Get(ctx, path)
	if errors.Is(err, store.ErrNotFound) {
		return stored[T]{}, err
	}
	if err != nil {
		return stored[T]{}, storeError(err)
	}
	return decodeNow[T](ctx, s, d, record)
}

// decodeNow is decode for a domain that may have been replaced since it was
// looked up, here or by another server.
func decodeNow[T any](ctx context.Context, s *Service, d *domain.Domain, record store.Record) (stored[T], error) {
	out, err := decode[T](d, record)
	if !errors.Is(err, domain.ErrNewer) {
		return out, err
	}
	newer, missing := s.newerDomain(ctx, d)
	if missing != nil {
		return stored[T]{}, errors.Join(err, missing)
	}
	return decode[T](newer, record)
}

func decode[T any](d *domain.Domain, record store.Record) (stored[T], error) {
	out := stored[T]{revision: record.Revision}
	payload, err := d.Verify(record.Key, uint64(record.Revision), record.Value)
	if err != nil {
		return stored[T]{}, dataLoss(record.Key, err)
	}
	if err := json.Unmarshal(payload, &out.value); err != nil {
		return stored[T]{}, dataLoss(record.Key, err)
	}
	return out, nil
}

// storeError gives a driver's error the code that callers see.
func storeError(err error) error {
	var known *Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Message: "the deadline passed before the store answered", Cause: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Reason: "CANCELLED", Message: "the call was cancelled", Cause: err}
	case errors.Is(err, store.ErrConflict):
		return &Error{Code: Aborted, Reason: "CONFLICT", Message: "something else changed the same thing at the same time; try again", Cause: err}
	case errors.Is(err, store.ErrUnknown):
		return &Error{Code: Unavailable, Reason: reasonOutcomeUnknown, Cause: err,
			Message: "the store did not say whether the change was made; look at it, or send it again with the same idempotency_key"}
	case errors.Is(err, store.ErrNoSpace):
		return &Error{Code: Unavailable, Reason: "STORE_FULL", Message: "the store's disk is full; free some space, nothing was changed", Cause: err}
	case errors.Is(err, store.ErrCorrupt):
		return &Error{Code: DataLoss, Reason: "STORE_CORRUPT", Message: "the store is damaged; restore it from a backup", Cause: err}
	case errors.Is(err, store.ErrInvalid):
		return &Error{Code: InvalidArgument, Reason: "TOO_LARGE", Message: "the request is larger than the store takes; make it smaller", Cause: err}
	}
	return &Error{Code: Unavailable, Reason: "STORE_UNAVAILABLE", Message: "the store is not available; try again later", Cause: err}
}
