package kms

import (
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Call says who asks and under which request id; transports build one per
// request. It is passed by value and never kept.
type Call struct {
	Caller    *policy.Caller
	RequestID string
}

// ID is the random 64-bit id of a key or a namespace; its text is 16 hex digits.
type ID uint64

// String returns 16 lower-case hexadecimal digits.
func (id ID) String() string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8), uint64(id))
	return string(hex.AppendEncode(make([]byte, 0, 16), b))
}

// MarshalText writes the id as String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 16 hexadecimal digits.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	*id = parsed
	return err
}

// VersionState is the state of a key version.
type VersionState string

// The states of a key version.
const (
	Pending          VersionState = "PENDING"
	Enabled          VersionState = "ENABLED"
	Disabled         VersionState = "DISABLED"
	DestroyScheduled VersionState = "DESTROY_SCHEDULED"
	Destroyed        VersionState = "DESTROYED"
)

// KeyState is the state of a key as a whole.
type KeyState string

// The states of a key.
const (
	KeyActive          KeyState = "ACTIVE"
	KeyDeleteScheduled KeyState = "DELETE_SCHEDULED"
	KeyDeleted         KeyState = "DELETED"
)

// Protection is where a key's material lives.
type Protection string

// The protection levels.
const (
	Software Protection = "SOFTWARE"
	HSMLevel Protection = "HSM"
)

// Rotation says when a key makes its next version by itself. Zero values mean never.
type Rotation struct {
	Period  time.Duration `json:"period,omitempty"`
	MaxUses uint64        `json:"max_uses,omitempty"`
}

// NamespaceState is the state of a namespace.
type NamespaceState string

// The states of a namespace. A DELETED one is being removed; once that is done,
// nothing is left of it and its name is free.
const (
	NamespaceActive          NamespaceState = "ACTIVE"
	NamespaceDeleteScheduled NamespaceState = "DELETE_SCHEDULED"
	NamespaceDeleted         NamespaceState = "DELETED"
)

// Quotas bound what a namespace may hold and do; 0 is no bound.
type Quotas struct {
	MaxKeys           uint64 `json:"max_keys,omitempty"`
	RequestsPerSecond uint64 `json:"requests_per_second,omitempty"` // for each server
}

// Namespace describes a namespace; zero times mean "none".
type Namespace struct {
	Name        string            `json:"name"`
	ID          ID                `json:"id"`
	Labels      map[string]string `json:"labels,omitempty"`
	Created     time.Time         `json:"created"`
	Updated     time.Time         `json:"updated"`
	State       NamespaceState    `json:"state"`
	DestroyTime time.Time         `json:"destroy_time,omitzero"`
	Quotas      Quotas            `json:"quotas,omitzero"`
	Generation  uint32            `json:"generation"` // of the domain secret
	Rekey       Rekey             `json:"rekey,omitzero"`
	Erasures    []Erasure         `json:"erasures,omitempty"` // oldest first
	Token       string            `json:"token,omitempty"`    // whose root key wraps its domain secret; empty: DefaultToken
	// PlaintextExport lets keys of VAULT framing be exportable; fixed at creation.
	PlaintextExport bool `json:"plaintext_export,omitempty"`
}

// Rekey describes the rekeying under way, or the last one.
type Rekey struct {
	From    uint32    `json:"from"` // the generation that is, or was, replaced
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Records uint64    `json:"records,omitempty"` // sealed anew so far
	// RootVersions is how many versions of the root key there had been when it ended:
	// only those can have wrapped what was replaced.
	RootVersions uint32 `json:"root_versions,omitempty"`
}

// Erasure says since when nothing that was sealed under the generations up to
// one can be recovered, from old files and backups neither.
type Erasure struct {
	Through uint32    `json:"through"`
	Time    time.Time `json:"time"`
	// ByRoot says that every root key that can have wrapped them is destroyed. That
	// erases nothing that was on a token itself, as keys of protection level HSM are.
	ByRoot bool `json:"by_root,omitempty"`
}

// Key describes a key; zero times mean "none".
type Key struct {
	Namespace      string            `json:"namespace"`
	Name           string            `json:"name"`
	ID             ID                `json:"id"`
	Purpose        keyring.Purpose   `json:"purpose"`
	Algorithm      string            `json:"algorithm"`
	Protection     Protection        `json:"protection"`
	PrimaryVersion uint32            `json:"primary_version"`
	LatestVersion  uint32            `json:"latest_version"`
	Labels         map[string]string `json:"labels,omitempty"`
	Rotation       Rotation          `json:"rotation,omitzero"`
	Exportable     bool              `json:"exportable,omitempty"` // for ever
	Imported       time.Time         `json:"imported,omitzero"`    // when it was made by ImportKey
	NextRotation   time.Time         `json:"next_rotation,omitzero"`
	Created        time.Time         `json:"created"`
	Updated        time.Time         `json:"updated"`
	State          KeyState          `json:"state"`
	DestroyTime    time.Time         `json:"destroy_time,omitzero"`
	ErasedTime     time.Time         `json:"erased_time,omitzero"` // told of a DELETED key, not stored with it
	Transit        *TransitKey       `json:"transit,omitempty"`    // of VAULT framing; nil: NATIVE
}

// KeyVersion describes a version of a key.
type KeyVersion struct {
	Namespace   string       `json:"namespace"`
	Key         string       `json:"key"`
	KeyID       ID           `json:"key_id"`
	Version     uint32       `json:"version"`
	State       VersionState `json:"state"`
	Primary     bool         `json:"primary"`
	Algorithm   string       `json:"algorithm"`
	Created     time.Time    `json:"created"`
	Imported    time.Time    `json:"imported,omitzero"`  // when its material was brought along
	LastUsed    time.Time    `json:"last_used,omitzero"` // to the hour
	DestroyTime time.Time    `json:"destroy_time,omitzero"`
	ErasedTime  time.Time    `json:"erased_time,omitzero"` // since when it cannot be recovered from old files either
	Protection  Protection   `json:"protection"`
	Token       *TokenKey    `json:"token,omitempty"` // only GetVersion asks
}

// TokenKey is what is known of the key of a version of protection level HSM.
type TokenKey struct {
	ID     ObjectID `json:"id"`
	Origin Origin   `json:"origin"`
	// Problem says why the token does not tell the origin, which means nothing then.
	Problem string `json:"problem,omitempty"`
	// Removing tells of a DESTROYED version that its key is still on the token, or
	// may be; it is removed as soon as the token answers.
	Removing bool `json:"removing,omitempty"`
}

// Policy describes a stored policy. An empty Namespace is the installation.
type Policy struct {
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name"`
	Text      string    `json:"text"`
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
	Revision  uint64    `json:"revision"` // the policy revision it was written in
}

// VersionRef names a version of a key in a mutation. Version 0 is the primary
// one where that makes sense.
type VersionRef struct {
	Namespace, Key string
	Version        uint32
	Idempotency    string
}

// KeyRef names a key; Key is a name, or "id:" and an id.
type KeyRef struct {
	Namespace, Key string
	Idempotency    string
}

// CreateKeyRequest makes a key. Empty Purpose and Algorithm take each other's
// default; empty Protection is Software, which alone can be Exportable.
type CreateKeyRequest struct {
	Namespace, Key string
	Purpose        keyring.Purpose
	Algorithm      string
	Protection     Protection
	Labels         map[string]string
	Rotation       Rotation
	Exportable     bool
	Transit        *TransitOptions // makes a key of VAULT framing; Purpose and Algorithm stay empty then
	Idempotency    string
}

// UpdateKeyRequest replaces what is not nil.
type UpdateKeyRequest struct {
	Namespace, Key string
	Labels         *map[string]string
	Rotation       *Rotation
	Idempotency    string
}

// DestroyRequest schedules the destruction of a version, or, with Version 0, in
// DeleteKey, of a whole key. A nil Delay means DefaultDestroyDelay.
type DestroyRequest struct {
	Namespace, Key string
	Version        uint32
	Delay          *time.Duration
	Idempotency    string
}

// RestoreKeyRequest takes a key's scheduled deletion back.
type RestoreKeyRequest struct {
	Namespace   string
	ID          ID
	Idempotency string
}

// ListKeysRequest pages through a namespace's keys in the order of their names
// (with ShowDeleted: of their ids). PageSize 0 means 100, at most 1000.
type ListKeysRequest struct {
	Namespace   string
	Labels      map[string]string
	ShowDeleted bool
	PageSize    int
	PageToken   string
}

// ListVersionsRequest pages through a key's versions, oldest first.
type ListVersionsRequest struct {
	Namespace, Key string
	PageSize       int
	PageToken      string
}

// ListRequest pages through namespaces or, with Namespace, one namespace's policies.
type ListRequest struct {
	Namespace string
	PageSize  int
	PageToken string
}

// CreateNamespaceRequest makes a namespace.
type CreateNamespaceRequest struct {
	Namespace       string
	Labels          map[string]string
	Quotas          Quotas
	Token           string // empty: DefaultToken
	PlaintextExport bool
	Idempotency     string
}

// UpdateNamespaceRequest replaces what is not nil.
type UpdateNamespaceRequest struct {
	Namespace   string
	Labels      *map[string]string
	Quotas      *Quotas
	Idempotency string
}

// NamespaceRef names a namespace in a mutation.
type NamespaceRef struct {
	Namespace   string
	Idempotency string
}

// DeleteNamespaceRequest schedules the removal of a namespace. A nil Delay means
// DefaultDestroyDelay.
type DeleteNamespaceRequest struct {
	Namespace   string
	Delay       *time.Duration
	Idempotency string
}

// ConfirmErasureRequest declares that no old file or backup of the store holds
// the secrets of the generations up to Generation any more.
type ConfirmErasureRequest struct {
	Namespace   string
	Generation  uint32
	Idempotency string
}

// PutPolicyRequest writes a policy. ConfirmLockout repeats its name where the
// change leaves nobody able to change policies, and is meant to.
type PutPolicyRequest struct {
	Namespace, Name, Text string
	ConfirmLockout        string
	Idempotency           string
}

// PolicyRef names a policy. ConfirmLockout is as in PutPolicyRequest, for a
// deletion.
type PolicyRef struct {
	Namespace, Name string
	ConfirmLockout  string
	Idempotency     string
}

// Status is a snapshot of the server's state.
type Status struct {
	InstallationID  string
	Started         time.Time
	DevMode         bool
	FIPS            bool
	PolicyRevision  uint64
	HSM             HSMStatus
	RootKeyID       string
	RootVersion     uint32
	Tokens          []TokenStatus // DefaultToken first
	Rewrap          RewrapStatus
	Sealed          time.Time // since when all keys are dropped from memory; zero: they are not
	StoreName       string
	StoreRevision   store.Revision
	StoreProblem    string
	StoreBytes      int64
	AuditNext       uint64
	AuditProblem    string
	Audit           audit.Stats
	AuditDurability audit.Mode
	Keys            KeyCounts
	// DestructionPaused tells that nothing is destroyed because the server has
	// just started, or its clock has jumped forward.
	DestructionPaused bool
	SignerAlgorithm   string
	SignerProtection  string // "token" or "sealed"
	Epoch             uint64 // of the head record
	CheckpointTime    time.Time
	Receivers         []ReceiverStatus
	Cache             CacheStatus
	Objects           ObjectCounts
}

// KeyCounts counts the store's keys; it is up to a few minutes old.
type KeyCounts struct {
	Active          int64
	Deleted         int64 // scheduled for deletion, or deleted
	PlaintextExport int64 // namespaces of PlaintextExport that are not removed
}

// CacheStatus describes what is kept in memory.
type CacheStatus struct {
	Keys, Versions int
	Bytes, Limit   int64
}

// HSMStatus describes the device.
type HSMStatus struct {
	Healthy       bool
	Problem       string
	TokenLabel    string
	TokenSerial   string
	Manufacturer  string
	Model         string
	SessionsInUse int
	SessionsMax   int
	// KeyAlgorithms are those of keyring's table that the token can make keys of.
	KeyAlgorithms []string

	Workers        int    // processes that reach the device and live
	WorkerRestarts uint64 // processes that took the place of one that was lost
}

// ObjectCounts compares the keys of protection level HSM with the token. Orphans are
// counted every few seconds, the others every hour.
type ObjectCounts struct {
	Time    time.Time // of the last comparison, zero if there was none yet
	Held    int64     // keys on the token that versions own
	Orphans int64     // that no version owns; they are removed in the background
	Unknown int64     // keys on the token that the store does not know; they are left alone
	Missing int64     // versions whose key the token lacks
}
