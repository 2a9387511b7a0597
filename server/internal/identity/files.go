package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/keywright/keywright/kms"
)

// Files holds the server's certificate and the CA bundles of its clients, and
// loads them anew when the files change.
type Files struct {
	options FilesOptions
	current atomic.Pointer[material]
}

// FilesOptions says where the certificates are.
type FilesOptions struct {
	CertFile, KeyFile string   // PEM
	ClientCAs         []Bundle // none: client certificates are not asked for
	Clock             func() time.Time
	Logger            *slog.Logger
	// Denied is told of each client certificate that was refused.
	Denied func(c *Connection, reason string)
}

// material is one loaded state of the files; it never changes.
type material struct {
	certificate tls.Certificate
	bundles     []trust
	hints       *x509.CertPool // of all bundles, sent to clients so that they can choose
	stamps      []stamp
}

// stamp tells whether a file changed.
type stamp struct {
	path     string
	modified time.Time
	size     int64
}

// LoadFiles reads all files; every one must be good.
func LoadFiles(o FilesOptions) (*Files, error) {
	f := &Files{options: o}
	loaded, err := f.load()
	if err != nil {
		return nil, err
	}
	f.current.Store(loaded)
	return f, nil
}

func (f *Files) load() (*material, error) {
	m := &material{hints: x509.NewCertPool(), stamps: f.stamps()}
	var err error
	if m.certificate, err = tls.LoadX509KeyPair(f.options.CertFile, f.options.KeyFile); err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	for _, b := range f.options.ClientCAs {
		if slices.ContainsFunc(m.bundles, func(t trust) bool { return t.name == b.Name }) {
			return nil, fmt.Errorf("client CA bundle %q is named twice", b.Name)
		}
		loaded, err := loadTrust(b, m.hints)
		if err != nil {
			return nil, err
		}
		m.bundles = append(m.bundles, loaded)
	}
	return m, nil
}

func (f *Files) stamps() []stamp {
	paths := []string{f.options.CertFile, f.options.KeyFile}
	for _, b := range f.options.ClientCAs {
		paths = append(paths, b.File)
	}
	stamps := make([]stamp, len(paths))
	for i, path := range paths {
		stamps[i].path = path
		if info, err := os.Stat(path); err == nil {
			stamps[i].modified, stamps[i].size = info.ModTime(), info.Size()
		}
	}
	return stamps
}

// Watch loads the files anew within interval of a change, until ctx ends. While
// they are not good it goes on serving with what it has, and says so once.
func (f *Files) Watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var failed []stamp
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			failed = f.reload(failed)
		}
	}
}

// reload returns the stamps of files that could not be loaded.
func (f *Files) reload(failed []stamp) []stamp {
	now := f.stamps()
	if slices.Equal(now, f.current.Load().stamps) || slices.Equal(now, failed) {
		return failed
	}
	loaded, err := f.load()
	if err != nil {
		f.options.Logger.Error("changed certificates cannot be loaded; the old ones go on serving", "error", err)
		return now
	}
	f.current.Store(loaded)
	f.options.Logger.Info("certificates loaded anew", "expires", loaded.certificate.Leaf.NotAfter)
	return nil
}

// Config returns a TLS 1.3 configuration that speaks these application
// protocols and uses the files as they are at each handshake. It must serve a
// Listener, whose Connections learn the client certificate's principal.
func (f *Files) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return f.handshake(Of(hello.Conn), protocols), nil
		},
	}
}

// handshake configures one handshake. Verification is ours, in the callback
// that also sees resumed sessions, because it must tell which bundle vouches.
func (f *Files) handshake(c *Connection, protocols []string) *tls.Config {
	m := f.current.Load()
	config := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   protocols,
		Certificates: []tls.Certificate{m.certificate},
	}
	if len(m.bundles) > 0 {
		config.ClientAuth = tls.RequestClientCert
		config.ClientCAs = m.hints
		config.VerifyConnection = func(state tls.ConnectionState) error { return f.verify(m, c, state) }
	}
	return config
}

func (f *Files) verify(m *material, c *Connection, state tls.ConnectionState) error {
	caller, err := identify(m.bundles, state, f.options.Clock())
	var refused *kms.Error
	if errors.As(err, &refused) {
		f.options.Denied(c, refused.Reason)
	}
	if err != nil || caller == nil {
		return err
	}
	caller.Source = c.Source
	c.certificate = caller
	return nil
}

// Credentials returns gRPC server credentials whose AuthInfo is the Connection
// of a Listener or ListenUnix. Without files they are those of plaintext; a unix
// socket has no TLS in any case.
func (f *Files) Credentials() credentials.TransportCredentials {
	if f == nil {
		return serverCredentials{insecure.NewCredentials()}
	}
	return serverCredentials{credentials.NewTLS(f.Config("h2"))}
}

// serverCredentials replaces the AuthInfo of other credentials.
type serverCredentials struct {
	credentials.TransportCredentials
}

func (s serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c := Of(raw); c.local {
		return raw, c, nil
	}
	secure, _, err := s.TransportCredentials.ServerHandshake(raw)
	return secure, Of(raw), err
}

func (s serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{s.TransportCredentials.Clone()}
}
