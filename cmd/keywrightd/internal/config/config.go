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
	TokenLabel  string   `yaml:"token_label"`  // this or TokenSerial is required
	TokenSerial string   `yaml:"token_serial"` // wins over the label
	PIN         PIN      `yaml:"pin"`
	MaxSessions int      `yaml:"max_sessions"` // 0: the token's maximum, at most 16
	Timeout     Duration `yaml:"timeout"`      // of one call to the device
}

// PIN says where the user's PIN is found; exactly one field is set.
type PIN struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
	FD   int    `yaml:"fd"` // an open file descriptor, or NoFD
}

// Listen has the addresses, each host:port.
type Listen struct {
	GRPC    string `yaml:"grpc"`
	REST    string `yaml:"rest"`
	Metrics string `yaml:"metrics"`
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
}

// Audit configures the audit log.
type Audit struct {
	Dir          string   `yaml:"dir"`        // empty: audit, below DataDir
	Durability   string   `yaml:"durability"` // interval or fsync
	Interval     Duration `yaml:"interval"`
	SegmentBytes Bytes    `yaml:"segment_bytes"`
	ReserveBytes Bytes    `yaml:"reserve_bytes"`
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
		HSM:     HSM{PIN: PIN{FD: NoFD}, Timeout: Duration(5 * time.Second)},
		Listen:  Listen{GRPC: "127.0.0.1:7700", REST: "127.0.0.1:7701", Metrics: "127.0.0.1:7702"},
		TLS:     TLS{ClientCAs: []Bundle{}},
		Limits: Limits{MaxMessageBytes: 4 << 20, MaxInFlight: 4096,
			CallTimeout: Duration(30 * time.Second), DrainTimeout: Duration(15 * time.Second)},
		Audit: Audit{Durability: "interval", Interval: Duration(10 * time.Millisecond),
			SegmentBytes: 256 << 20, ReserveBytes: 1 << 20},
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
