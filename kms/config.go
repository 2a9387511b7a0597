package kms

import (
	"log/slog"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// Limits that hold for every installation.
const (
	DefaultDestroyDelay = 30 * 24 * time.Hour
	MinDestroyDelay     = 24 * time.Hour // none in dev mode
	MaxDestroyDelay     = 10 * 365 * 24 * time.Hour
	MinRotationPeriod   = time.Hour // a second in dev mode
	MaxRotationPeriod   = 10 * 365 * 24 * time.Hour
	MinRotationUses     = 100
	DefaultTokenTTL     = time.Hour
	MinTokenTTL         = time.Minute
	MaxTokenTTL         = 24 * time.Hour
	MaxLeaseTTL         = 768 * time.Hour // of a renewable token, until it must be renewed
	MaxLease            = 10 * 365 * 24 * time.Hour
)

// Observer is told of every operation, for metrics. Its methods must be cheap
// and safe for concurrent use.
type Observer interface {
	// Operation reports one operation; algorithm is "" where none was involved.
	Operation(action policy.Action, algorithm string, code Code, elapsed time.Duration)
	// Items reports how many items of an action a batch had.
	Items(action policy.Action, n int)
	// Device reports one call of the HSM, by the name of its method.
	Device(call string, failed bool, elapsed time.Duration)
	// ScheduledUse reports a use, refused, of what is scheduled for destruction.
	ScheduledUse(action policy.Action)
}

// Config is what a Service stands on. Store, Audit and HSM are required and stay
// the caller's to close, after the Service.
type Config struct {
	Store store.Store
	Audit *audit.Log
	HSM   HSM
	// StoreName is the driver's name, for status.
	StoreName string
	// Observer may be nil.
	Observer Observer
	// Tokens are further tokens by name, beside HSM, which is DefaultToken: a
	// namespace can be bound to one.
	Tokens map[string]HSM
	// OnLoss says what becomes of unwrapped keys when a token has been away for
	// OnLossAfter: "" is OnLossServe.
	OnLoss      OnLoss
	OnLossAfter time.Duration
	// Logger may be nil: nothing is logged then.
	Logger *slog.Logger
	// Clock returns the time; nil is time.Now.
	Clock func() time.Time
	// CacheBytes bounds the keys and versions kept in memory; 0 is 256 MiB.
	CacheBytes int64
	// NonceLimit overrides how many messages a version with random 96-bit nonces
	// may encrypt; 0 is the algorithm's own limit, 2^32. Lower it, never raise it.
	NonceLimit uint64
	// Receivers get the audit log's checkpoints.
	Receivers []Receiver
	// Retention is how long entries of the audit log are kept; 0 is for ever.
	Retention time.Duration
	// HashContexts puts a keyed hash (HMAC-SHA-256) of each encryption context into
	// the audit log in its place: for contexts that hold personal data.
	HashContexts bool
	// CallerRequestsPerSecond bounds the operations of each principal, averaged over
	// a second, on this server; an item of a batch counts as one. 0 is no bound.
	CallerRequestsPerSecond uint64
	// JobInterval is the pause between rounds of background jobs; 0 is a second.
	JobInterval time.Duration
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Observer == nil {
		c.Observer = noObserver{}
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = 256 << 20
	}
	if c.JobInterval <= 0 {
		c.JobInterval = time.Second
	}
	return c
}

type noObserver struct{}

func (noObserver) Operation(policy.Action, string, Code, time.Duration) {}
func (noObserver) Items(policy.Action, int)                             {}
func (noObserver) Device(string, bool, time.Duration)                   {}
func (noObserver) ScheduledUse(policy.Action)                           {}
