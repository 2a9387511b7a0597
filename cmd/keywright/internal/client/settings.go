// Package client connects the command line to a Keywright server over gRPC: it
// finds out where the server is and as whom to call, calls it, retries what is
// safe to retry, and turns statuses into errors for people.
//
// Nothing here is kept beyond a Client, which serves any number of goroutines
// until it is closed.
package client

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names of the environment variables that Resolve reads.
const (
	EnvAddr      = "KEYWRIGHT_ADDR"
	EnvCAFile    = "KEYWRIGHT_CA_FILE"
	EnvCertFile  = "KEYWRIGHT_CERT_FILE"
	EnvKeyFile   = "KEYWRIGHT_KEY_FILE"
	EnvToken     = "KEYWRIGHT_TOKEN" //nolint:gosec // the name of a variable, not a token
	EnvTokenFile = "KEYWRIGHT_TOKEN_FILE"
	EnvConfig    = "KEYWRIGHT_CONFIG"
)

// DefaultAddr is where a server on this machine listens.
const DefaultAddr = "127.0.0.1:7700"

// ErrSettings is wrapped by every error about flags, environment or profile.
var ErrSettings = errors.New("connection settings")

// Settings says which server to call and as whom. Paths are relative to the
// working directory.
type Settings struct {
	Addr      string // host:port, or unix: and the path of a socket
	CAFile    string // PEM; empty: the system's roots
	CertFile  string // PEM, with KeyFile
	KeyFile   string // PEM
	TokenFile string
	Config    string        // the profile's path; only read from what Resolve is given
	Plaintext bool          // no TLS; only to loopback addresses
	Timeout   time.Duration // of each call; 0 is for ever
	Token     Token         // nothing to be given by a flag
}

// Token is a bearer token; printing it does not show it.
type Token string

// String hides the token.
func (Token) String() string { return "[redacted]" }

// GoString hides the token.
func (Token) GoString() string { return "[redacted]" }

// MarshalText hides the token, in JSON and logs.
func (Token) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Resolve completes the settings given by flags from the environment and then
// from the profile, and reads the token. A certificate given nearer than a token
// (flag before environment before profile) replaces it: the caller meant to be
// who the certificate says.
func Resolve(flags Settings, getenv func(string) string) (Settings, error) {
	profile, err := findProfile(cmp.Or(flags.Config, getenv(EnvConfig)), getenv)
	if err != nil {
		return Settings{}, err
	}
	s := flags
	for _, next := range []Settings{fromEnvironment(getenv), profile} {
		s = s.completedFrom(next)
	}
	s.Addr = cmp.Or(s.Addr, DefaultAddr)
	if s.Token == "" && s.TokenFile != "" {
		if s.Token, err = readToken(s.TokenFile); err != nil {
			return Settings{}, err
		}
	}
	return s, s.check()
}

func fromEnvironment(getenv func(string) string) Settings {
	return Settings{
		Addr: getenv(EnvAddr), CAFile: getenv(EnvCAFile), CertFile: getenv(EnvCertFile), KeyFile: getenv(EnvKeyFile),
		TokenFile: getenv(EnvTokenFile), Token: Token(strings.TrimSpace(getenv(EnvToken))),
	}
}

func (s Settings) completedFrom(next Settings) Settings {
	if s.CertFile == "" && s.TokenFile == "" && s.Token == "" {
		s.TokenFile, s.Token = next.TokenFile, next.Token
	}
	s.Addr = cmp.Or(s.Addr, next.Addr)
	s.CAFile = cmp.Or(s.CAFile, next.CAFile)
	s.CertFile = cmp.Or(s.CertFile, next.CertFile)
	s.KeyFile = cmp.Or(s.KeyFile, next.KeyFile)
	return s
}

func findProfile(path string, getenv func(string) string) (Settings, error) {
	if path != "" {
		return readProfile(path)
	}
	home := cmp.Or(getenv("XDG_CONFIG_HOME"), filepath.Join(getenv("HOME"), ".config"))
	profile, err := readProfile(filepath.Join(home, "keywright", "config.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	return profile, err
}

func readToken(path string) (Token, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: the token file: %w", ErrSettings, err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("%w: the token file %s is empty", ErrSettings, path)
	}
	return Token(token), nil
}

// local tells whether the server is reached by a unix socket, where there is no
// TLS: the kernel tells both who the other is.
func (s Settings) local() bool { return strings.HasPrefix(s.Addr, "unix:") }

func (s Settings) check() error {
	host, _, err := net.SplitHostPort(s.Addr)
	switch {
	case err != nil && !s.local():
		return fmt.Errorf("%w: the address %q must be host:port, such as %s, or unix:PATH", ErrSettings, s.Addr, DefaultAddr)
	case (s.CertFile == "") != (s.KeyFile == ""):
		return fmt.Errorf("%w: a certificate file and a key file go together; give both or neither", ErrSettings)
	case strings.ContainsFunc(string(s.Token), func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%w: the token holds spaces or characters that no token has; give the text that `token create` printed", ErrSettings)
	case s.Plaintext && !s.local() && !loopback(host):
		return fmt.Errorf("%w: --plaintext is for loopback addresses only and %q is none; leave it out to use TLS", ErrSettings, host)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
