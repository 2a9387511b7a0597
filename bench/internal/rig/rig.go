// Package rig runs the server under test: a real keywrightd process in development
// mode on a SoftHSM2 token, in a directory of its own, with the shipped
// configuration, policies and a token for the load generator.
//
// A Rig runs at most one server at a time, since one data directory has one
// server. It belongs to one goroutine.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keywright/keywright/bench/internal/load"
	"github.com/keywright/keywright/softhsm"
)

// Names of what the rig creates.
const (
	Namespace  = "bench"
	SealingKey = "sealing" // XAES_256_GCM
	SigningKey = "signing" // ECDSA_P256_SHA256
	Ed25519Key = "ed25519" // ED25519
	TransitKey = "transit" // aes256-gcm96, for the Vault-compatible API; see MakeTransitKey
	principal  = "load"
)

// Rig is an installation with its token, ready to be served.
type Rig struct {
	dir     string // holds the installation, the configuration and the log
	binary  string
	token   load.Token
	current *Server
}

// New makes an installation in dir with the keywrightd at binary, which it builds
// first where that is "": then the working directory must be the module's.
func New(ctx context.Context, dir, binary string) (*Rig, error) {
	r := &Rig{dir: dir, binary: binary}
	if binary == "" {
		r.binary = filepath.Join(dir, "keywrightd")
		if err := build(ctx, r.binary); err != nil {
			return nil, err
		}
	}
	s, err := r.start(ctx, "dev", "--dir", r.data(), "--port-base", "0")
	if err != nil {
		return nil, err
	}
	r.token, err = r.furnish(ctx, s.grpc)
	if err = errors.Join(err, s.stop()); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rig) data() string { return filepath.Join(r.dir, "data") }

// CertFile is the server's certificate, PEM.
func (r *Rig) CertFile() string { return filepath.Join(r.data(), "tls", "server.pem") }

// KeyFile is the key of CertFile, PEM.
func (r *Rig) KeyFile() string { return filepath.Join(r.data(), "tls", "server-key.pem") }

// CAFile is the CA that issued CertFile, PEM.
func (r *Rig) CAFile() string { return filepath.Join(r.data(), "tls", "ca.pem") }

// Token is the load generator's.
func (r *Rig) Token() load.Token { return r.token }

// Mode is how the server runs; the zero value is as shipped.
type Mode struct {
	Plaintext bool // no TLS
	Fsync     bool // each answer waits until its audit line is on the disk
}

// Serve returns the server in a mode. One that runs another way is stopped first;
// one that runs already is kept.
func (r *Rig) Serve(ctx context.Context, mode Mode) (*Server, error) {
	if r.current != nil && r.current.Mode == mode {
		return r.current, nil
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	config, err := r.configure(mode)
	if err != nil {
		return nil, err
	}
	s, err := r.start(ctx, "serve", "--config", config)
	if err != nil {
		return nil, err
	}
	s.Mode, r.current = mode, s
	return s, nil
}

// Close stops the server that runs.
func (r *Rig) Close() error {
	if r.current == nil {
		return nil
	}
	s := r.current
	r.current = nil
	return s.stop()
}

// configure writes a configuration that says what it must and leaves the rest as
// shipped.
func (r *Rig) configure(mode Mode) (string, error) {
	module, err := softhsm.Find()
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`data_dir: %q
hsm: {module: %q, token_label: keywright-dev, pin: {file: %q}}
listen: {grpc: "127.0.0.1:0", rest: "127.0.0.1:0", metrics: "127.0.0.1:0"}
vault: {address: "127.0.0.1:0"}
tls: {plaintext: %t}
`, r.data(), module, filepath.Join(r.data(), "token", "pin"), mode.Plaintext)
	if mode.Fsync {
		text += "audit: {durability: fsync}\n"
	}
	path := filepath.Join(r.dir, "keywrightd.yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// environment is the process's own, with SoftHSM2 pointed at the token.
func (r *Rig) environment() []string {
	return append(os.Environ(), softhsm.EnvConfig+"="+filepath.Join(r.data(), "token", "softhsm2.conf"))
}
