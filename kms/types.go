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

// Namespace describes a namespace.
type Namespace struct {
	Name       string            `json:"name"`
	ID         ID                `json:"id"`
	Labels     map[string]string `json:"labels,omitempty"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
	Generation uint32            `json:"generation"`
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
	NextRotation   time.Time         `json:"next_rotation,omitzero"`
	Created        time.Time         `json:"created"`
	Updated        time.Time         `json:"updated"`
	State          KeyState          `json:"state"`
	DestroyTime    time.Time         `json:"destroy_time,omitzero"`
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
	LastUsed    time.Time    `json:"last_used,omitzero"` // to the hour
	DestroyTime time.Time    `json:"destroy_time,omitzero"`
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
// default; empty Protection is Software.
type CreateKeyRequest struct {
	Namespace, Key string
	Purpose        keyring.Purpose
	Algorithm      string
	Protection     Protection
	Labels         map[string]string
	Rotation       Rotation
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
	Namespace   string
	Labels      map[string]string
	Idempotency string
}

// UpdateNamespaceRequest replaces what is not nil.
type UpdateNamespaceRequest struct {
	Namespace   string
	Labels      *map[string]string
	Idempotency string
}

// PutPolicyRequest writes a policy.
type PutPolicyRequest struct {
	Namespace, Name, Text string
	Idempotency           string
}

// PolicyRef names a policy.
type PolicyRef struct {
	Namespace, Name string
	Idempotency     string
}

// CreateTokenRequest asks for a token; TTL 0 means an hour, at most 24.
type CreateTokenRequest struct {
	Principal string
	Groups    []string
	TTL       time.Duration
}

// NewToken is a token just made. Text is the secret, shown once.
type NewToken struct {
	Text    string
	ID      string
	Expires time.Time
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
	Cache             CacheStatus
}

// KeyCounts counts the store's keys; it is up to a few minutes old.
type KeyCounts struct {
	Active  int64
	Deleted int64 // scheduled for deletion, or deleted
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
}
