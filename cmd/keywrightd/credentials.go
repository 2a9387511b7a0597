package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/pki"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/server"
)

// secretLocalCA is where the local CA is sealed in the system namespace.
const secretLocalCA = "local-ca"

// adminName is the subject of the administrator's certificate; adminPrincipal is
// the principal that the server makes of it.
const (
	adminName      = "admin"
	adminPrincipal = `User::"` + config.LocalBundle + `:CN=` + adminName + `"`
)

// renewBefore is how long before its end a certificate is due to be renewed.
const renewBefore = 30 * 24 * time.Hour

// credentials are the files by which the server and its administrator know each
// other, below the data directory.
type credentials struct {
	ca                   string
	server, serverKey    string
	admin, adminKey      string
	profile, grpcAddress string
}

func credentialsOf(c *config.Config) credentials {
	in := func(name string) string { return filepath.Join(c.TLSDir(), name) }
	return credentials{
		ca:          in("ca.pem"),
		server:      in("server.pem"),
		serverKey:   in("server-key.pem"),
		admin:       in("admin.pem"),
		adminKey:    in("admin-key.pem"),
		profile:     c.ProfilePath(),
		grpcAddress: c.Listen.GRPC,
	}
}

func (f credentials) paths() []string {
	return []string{f.ca, f.server, f.serverKey, f.admin, f.adminKey, f.profile}
}

// missing returns the files that do not exist.
func (f credentials) missing() []string {
	return slices.DeleteFunc(f.paths(), func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}

// issue writes all files anew, the profile last: it shows that they are complete.
func (f credentials) issue(authority *pki.Authority, hosts []string, now time.Time) error {
	if err := os.MkdirAll(filepath.Dir(f.ca), 0o700); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	serverPair, err := authority.IssueServer(hosts, now)
	if err != nil {
		return err
	}
	adminPair, err := authority.IssueClient(pki.Client{Name: adminName}, now)
	if err != nil {
		return err
	}
	return errors.Join(
		pki.WriteFile(f.ca, authority.CertificatePEM()),
		serverPair.Write(f.server, f.serverKey),
		adminPair.Write(f.admin, f.adminKey),
		f.writeProfile(),
	)
}

// profile is what the command line tool reads; paths are seen from its file.
type profile struct {
	Addr     string `yaml:"addr"`
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

func (f credentials) writeProfile() error {
	relative := func(path string) string {
		return filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path))
	}
	text, err := yaml.Marshal(profile{
		Addr:     dialable(f.grpcAddress),
		CAFile:   relative(f.ca),
		CertFile: relative(f.admin),
		KeyFile:  relative(f.adminKey),
	})
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return pki.WriteFile(f.profile, text)
}

// dialable turns an address to listen on into one to call from this machine.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

// due tells whether a certificate is missing or ends soon.
func (f credentials) due(now time.Time) bool {
	for _, path := range []string{f.server, f.admin} {
		certificate, err := pki.ReadCertificate(path)
		if err != nil || now.Add(renewBefore).After(certificate.NotAfter) {
			return true
		}
	}
	return len(f.missing()) > 0
}

// hosts returns what the server's certificate is to be for: this machine, what the
// present certificate has, and what the operator adds.
func (f credentials) hosts(more []string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	if present, err := pki.ReadCertificate(f.server); err == nil {
		hosts = append(hosts, pki.Hosts(present)...)
	}
	hosts = append(hosts, more...)
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// renew issues the credentials from the sealed CA of an installation that is
// open, and says so in the audit log.
func (f credentials) renew(ctx context.Context, s *stack, service *kms.Service, more []string) error {
	authority, err := localCA(ctx, service)
	if err != nil {
		return err
	}
	hosts := f.hosts(more)
	if err := s.auditIssue(map[string]string{"administrator": adminPrincipal, "server": fmt.Sprint(hosts)}); err != nil {
		return err
	}
	return f.issue(authority, hosts, time.Now())
}

// localCA opens the sealed CA of an installation that is open.
func localCA(ctx context.Context, service *kms.Service) (*pki.Authority, error) {
	sealed, err := service.SystemSecret(ctx, secretLocalCA)
	if kms.CodeOf(err) == kms.NotFound {
		return nil, errors.New("this installation was made without a local CA: issue and renew certificates where they came from")
	}
	if err != nil {
		return nil, err
	}
	defer clear(sealed)
	return pki.ParseAuthority(sealed)
}

// auditIssue writes the audit log's line about certificates, before they are issued.
func (s *stack) auditIssue(details map[string]string) error {
	_, err := s.audit.Append(&audit.Entry{
		Time:      time.Now(),
		Phase:     audit.PhaseEvent,
		Principal: `System::"keywright"`,
		Action:    "IssueCertificates",
		Outcome:   string(kms.OK),
		Details:   details,
	}, audit.Sync)
	return err
}

// tlsOf is whom the server believes: its own certificate and the CAs of clients.
func tlsOf(c *config.Config) server.TLS {
	f := credentialsOf(c)
	t := server.TLS{CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile}
	if c.LocalCA() {
		t.CertFile, t.KeyFile = f.server, f.serverKey
		t.ClientCAs = append(t.ClientCAs, server.Bundle{Name: config.LocalBundle, File: f.ca})
	}
	for _, bundle := range c.TLS.ClientCAs {
		t.ClientCAs = append(t.ClientCAs, server.Bundle{Name: bundle.Name, File: bundle.File})
	}
	return t
}
