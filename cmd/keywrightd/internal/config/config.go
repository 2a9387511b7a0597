// Package config reads keywrightd's one configuration file: strict YAML, in
// which every field is optional but those that say so, and an unknown field is an
// error. docs/keywrightd.yaml shows every field with its default.
//
// A Config holds no secret, only where secrets are found. It is a plain value
// that nothing changes after it was loaded.
package config

import (
	"path/filepath"
	"time"

	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/kms"
)

// DefaultPath is where the configuration is looked for when no flag says otherwise.
const DefaultPath = "/etc/keywright/keywrightd.yaml"

// NoFD is the value of PIN.FD that means none.
const NoFD = -1

// Config is the whole configuration.
type Config struct {
	// DataDir holds the store, the audit log and the files that init makes.
	DataDir    string `yaml:"data_dir"`
	HSM        HSM    `yaml:"hsm"`
	Listen     Listen `yaml:"listen"`
	Vault      *Vault `yaml:"vault"` // nil: off
	TLS        TLS    `yaml:"tls"`
	Limits     Limits `yaml:"limits"`
	Audit      Audit  `yaml:"audit"`
	Store      Store  `yaml:"store"`
	CacheBytes Bytes  `yaml:"cache_bytes"` // keys and versions kept in memory
	Log        Log    `yaml:"log"`
}

// HSM says which token holds the root key.
type HSM struct {
	Module      string   `yaml:"module"`       // path of the PKCS#11 library; required
	InitArgs    string   `yaml:"init_args"`    // for the module's C_Initialize; empty for most
	TokenLabel  string   `yaml:"token_label"`  // this or TokenSerial is required
	TokenSerial string   `yaml:"token_serial"` // wins over the label
	PIN         PIN      `yaml:"pin"`
	MaxSessions int      `yaml:"max_sessions"` // 0: the token's maximum, at most 16
	Timeout     Duration `yaml:"timeout"`      // of one call to the device
	Workers     int      `yaml:"workers"`      // processes that load the module
	InProcess   bool     `yaml:"in_process"`   // the server itself loads it
	Env         []string `yaml:"env"`          // variables that workers get; a name may end in *
	OnLoss      string   `yaml:"on_loss"`      // serve or seal
	OnLossAfter Duration `yaml:"on_loss_after"`
	Tokens      []Token  `yaml:"tokens"` // further ones
}

// PIN says where the user's PIN is found; exactly one field is set.
type PIN struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
	FD   int    `yaml:"fd"` // an open file descriptor, or NoFD
}

// Listen has the addresses, each host:port, and unix sockets.
type Listen struct {
	GRPC    string   `yaml:"grpc"`
	REST    string   `yaml:"rest"`
	Metrics string   `yaml:"metrics"`
	Unix    []Socket `yaml:"unix"`
	// Kubernetes are the sockets of API servers.
	Kubernetes []KubernetesSocket `yaml:"kubernetes"`
}

// Socket is a unix socket for gRPC.
type Socket struct {
	Path  string `yaml:"path"`
	Mode  Mode   `yaml:"mode"` // 0: 0600
	Peers []Peer `yaml:"peers"`
}

// Peer maps a local user to a principal.
type Peer struct {
	UID       *uint32  `yaml:"uid"` // nil is a mistake: 0 is root
	Principal string   `yaml:"principal"`
	Groups    []string `yaml:"groups"`
}

// KubernetesSocket is a unix socket for Kubernetes KMS v2, bound to a key.
type KubernetesSocket struct {
	Path      string   `yaml:"path"`
	Mode      Mode     `yaml:"mode"` // 0: 0600
	Namespace string   `yaml:"namespace"`
	Key       string   `yaml:"key"`
	Principal string   `yaml:"principal"` // who the API server is to policy and audit
	Groups    []string `yaml:"groups"`
	UIDs      []uint32 `yaml:"uids"` // who may be the API server; none: root and the server's own user
}

// TLS says who the server is and whom it believes.
type TLS struct {
	CertFile  string   `yaml:"cert_file"` // empty, as KeyFile: what init made
	KeyFile   string   `yaml:"key_file"`
	ClientCAs []Bundle `yaml:"client_cas"`
	Plaintext bool     `yaml:"plaintext"` // no TLS at all; loopback addresses only
}

// Bundle is a file of CA certificates that stands for one trust domain.
type Bundle struct {
	Name string `yaml:"name"`
	File string `yaml:"file"`
}

// Limits bound what clients can ask for.
type Limits struct {
	MaxMessageBytes Bytes    `yaml:"max_message_bytes"`
	MaxInFlight     int      `yaml:"max_in_flight"`
	CallTimeout     Duration `yaml:"call_timeout"` // of a call whose client sets no deadline
	DrainTimeout    Duration `yaml:"drain_timeout"`
	ConnectionAge   Duration `yaml:"connection_age"` // 0: for ever
	// FailedAuthentications is a number a minute and source; 0 is no limit.
	FailedAuthentications int `yaml:"failed_authentications"`
	// CallerRequestsPerSecond is for each principal; 0 is no limit.
	CallerRequestsPerSecond uint64 `yaml:"caller_requests_per_second"`
}

// Audit configures the audit log.
type Audit struct {
	Dir          string     `yaml:"dir"`        // empty: audit, below DataDir
	Durability   string     `yaml:"durability"` // interval or fsync
	Interval     Duration   `yaml:"interval"`
	SegmentBytes Bytes      `yaml:"segment_bytes"`
	ReserveBytes Bytes      `yaml:"reserve_bytes"`
	MaxUnsigned  uint64     `yaml:"max_unsigned"` // entries without a signed checkpoint; 0: no bound
	Retention    Duration   `yaml:"retention"`    // 0: entries are kept for ever
	Contexts     string     `yaml:"contexts"`     // plain or hashed
	Receivers    []Receiver `yaml:"receivers"`
}

// Receiver is where checkpoints are sent: a file, a command or a witness.
type Receiver struct {
	File     string   `yaml:"file"`
	Command  []string `yaml:"command"`
	Witness  string   `yaml:"witness"`  // URL
	Key      string   `yaml:"key"`      // of the witness, a vkey
	Interval Duration `yaml:"interval"` // at most so often; 0: 10s
}

// Store configures the embedded store.
type Store struct {
	KeepRevisions uint64 `yaml:"keep_revisions"`
	MinFreeBytes  Bytes  `yaml:"min_free_bytes"`
}

// Log configures what the server writes to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // json or text
}

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		DataDir: "/var/lib/keywright",
		HSM: HSM{PIN: PIN{FD: NoFD}, Timeout: Duration(5 * time.Second), Workers: 1, Env: worker.DefaultEnv(),
			OnLoss: string(kms.OnLossServe), OnLossAfter: Duration(10 * time.Minute), Tokens: []Token{}},
		Listen: Listen{GRPC: "127.0.0.1:7700", REST: "127.0.0.1:7701", Metrics: "127.0.0.1:7702", Unix: []Socket{}, Kubernetes: []KubernetesSocket{}},
		TLS:    TLS{ClientCAs: []Bundle{}},
		Limits: Limits{MaxMessageBytes: 4 << 20, MaxInFlight: 4096,
			CallTimeout: Duration(30 * time.Second), DrainTimeout: Duration(15 * time.Second),
			ConnectionAge: Duration(time.Hour), FailedAuthentications: 100},
		Audit: Audit{Durability: "interval", Interval: Duration(10 * time.Millisecond),
			SegmentBytes: 256 << 20, ReserveBytes: 1 << 20, MaxUnsigned: 10_000_000, Contexts: "plain", Receivers: []Receiver{}},
		Store:      Store{KeepRevisions: 10_000, MinFreeBytes: 256 << 20},
		CacheBytes: 256 << 20,
		Log:        Log{Level: "info", Format: "text"},
	}
}

// StoreDir is where the store lies.
func (c *Config) StoreDir() string { return filepath.Join(c.DataDir, "store") }

// AuditDir is where the audit log lies.
func (c *Config) AuditDir() string {
	if c.Audit.Dir != "" {
		return c.Audit.Dir
	}
	return filepath.Join(c.DataDir, "audit")
}

// TLSDir is where init puts certificates and keys.
func (c *Config) TLSDir() string { return filepath.Join(c.DataDir, "tls") }

// ProfilePath is where init puts the command line tool's profile.
func (c *Config) ProfilePath() string { return filepath.Join(c.DataDir, "keywright.yaml") }

// LocalCA tells whether the server's certificate comes from the CA that init
// makes, for want of another.
func (c *Config) LocalCA() bool { return c.TLS.CertFile == "" }
