package server

import (
	"errors"
	"log/slog"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
	"github.com/keywright/keywright/server/internal/identity"
	"github.com/keywright/keywright/server/kube"
	"github.com/keywright/keywright/server/vault"
)

// Defaults of Config.
const (
	DefaultMaxMessageBytes = 4 << 20
	DefaultMaxInFlight     = 4096
	DefaultCallTimeout     = 30 * time.Second
	DefaultDrainTimeout    = 30 * time.Second
)

// Socket is a unix socket that gRPC is served on, without TLS.
type Socket = identity.Socket

// Peer maps a user of a Socket to a principal.
type Peer = identity.Peer

// KubernetesSocket is a unix socket that Kubernetes KMS v2 is served on.
type KubernetesSocket = kube.Socket

// Vault configures the API of HashiCorp Vault and OpenBao; VaultMount maps a mount of it.
type (
	Vault      = vault.Config
	VaultMount = vault.Mount
)

// ErrSocketInUse says that another process listens on a unix socket.
var ErrSocketInUse = identity.ErrSocketInUse

// Bundle is a file of CA certificates whose clients form one trust domain.
type Bundle = identity.Bundle

// Metrics counts for Prometheus; it is the core's kms.Observer too.
type Metrics = gate.Metrics

// NewMetrics makes the metrics with a registry of their own, which also has
// those of the Go runtime and the process.
func NewMetrics() *Metrics { return gate.NewMetrics() }

// TLS says where the certificates are. All files are PEM, and are loaded anew
// within seconds when they change.
type TLS struct {
	// CertFile is the server's certificate with its chain, KeyFile its key.
	CertFile, KeyFile string
	// ClientCAs vouch for client certificates; none means that callers need tokens.
	ClientCAs []Bundle
}

// Config is what a Server stands on. Service is required.
type Config struct {
	// Service is the core; it stays the caller's to close, after Serve.
	Service *kms.Service
	// GRPCAddress and RESTAddress are host:port; port 0 takes a free one. An
	// empty RESTAddress means no REST.
	GRPCAddress, RESTAddress string
	// Sockets are served too, gRPC alone.
	Sockets []Socket
	// Kubernetes are the sockets of API servers, each bound to a key.
	Kubernetes []KubernetesSocket
	// Vault is the API of HashiCorp Vault and OpenBao; without an Address it is off.
	Vault Vault
	// MetricsAddress serves /metrics, /healthz and /readyz in plaintext and
	// without authentication; empty means not at all.
	MetricsAddress string
	// TLS is required unless Plaintext is set, which is refused for addresses
	// that are not loopback.
	TLS       TLS
	Plaintext bool
	// MaxMessageBytes bounds a request; 0 is DefaultMaxMessageBytes.
	MaxMessageBytes int
	// MaxInFlight bounds the calls being worked on; more are refused at once
	// with RESOURCE_EXHAUSTED. 0 is DefaultMaxInFlight. As many streams may be
	// open at a time, each operation on a pipeline counting as a call.
	MaxInFlight int
	// CallTimeout bounds a unary call whose client sets no deadline; 0 is
	// DefaultCallTimeout.
	CallTimeout time.Duration
	// ConnectionAge is how long a connection is used, more or less a tenth, so that
	// load spreads and certificates are looked at anew; calls that it has then go on,
	// and streams for another quarter of it. 0 is for ever. Unix sockets are no
	// exception.
	ConnectionAge time.Duration
	// FailedAuthentications is how often a minute credentials from one source (an
	// address, for IPv6 its /64, or a uid) may be refused before more of them are
	// refused unseen, with RESOURCE_EXHAUSTED. 0 is no limit.
	FailedAuthentications int
	// DrainTimeout bounds how long calls may go on once Serve was told to end;
	// 0 is DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Logger may be nil: nothing is logged then. Secrets never are.
	Logger *slog.Logger
	// Metrics is the one given to the Service as its observer; nil makes a new one.
	Metrics *Metrics
	// Version is the server's version as told in its status.
	Version string
	// Clock returns the time; nil is time.Now.
	Clock func() time.Time
}

func (c Config) complete() (Config, error) {
	if c.Service == nil {
		return c, errors.New("server: Config.Service is missing")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	c.MaxMessageBytes = orDefault(c.MaxMessageBytes, DefaultMaxMessageBytes)
	c.MaxInFlight = orDefault(c.MaxInFlight, DefaultMaxInFlight)
	c.CallTimeout = orDefault(c.CallTimeout, DefaultCallTimeout)
	c.DrainTimeout = orDefault(c.DrainTimeout, DefaultDrainTimeout)
	return c, nil
}

func orDefault[N int | time.Duration](value, otherwise N) N {
	if value <= 0 {
		return otherwise
	}
	return value
}
