// Package pki is the small certificate authority that `keywrightd init` makes
// where no other is given: it issues the server's certificate, the
// administrator's client certificate and those of further clients, and nothing else.
//
// The authority's key is sealed in the installation's system namespace; here it
// lives in memory only as long as a command that issues certificates. Values
// are not changed once made.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// How long certificates are valid.
const (
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	LeafValidity      = 365 * 24 * time.Hour
	backdate          = 5 * time.Minute // for clocks that are a little behind
)

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY" // PKCS#8, RFC 5958
)

// ErrAuthority means that bytes are not what Authority.Marshal wrote.
var ErrAuthority = errors.New("not a local certificate authority")

// Authority is a certificate authority (RFC 5280) with an ECDSA P-256 key.
// It prints as [redacted].
type Authority struct {
	secret
	certificate *x509.Certificate
	key         crypto.Signer
}

// NewAuthority makes an authority whose validity begins now.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	template := newTemplate("Keywright local CA", now, now.Add(AuthorityValidity))
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("local CA: %w", err)
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// Marshal returns certificate and private key in PEM, to be sealed. It is secret.
func (a *Authority) Marshal() ([]byte, error) {
	key, err := marshalKey(a.key)
	if err != nil {
		return nil, err
	}
	return append(a.CertificatePEM(), key...), nil
}

// ParseAuthority reads what Marshal wrote: ErrAuthority.
func ParseAuthority(text []byte) (*Authority, error) {
	first, rest := pem.Decode(text)
	second, rest := pem.Decode(rest)
	if first == nil || second == nil || first.Type != certificateBlock || second.Type != keyBlock || len(bytes.TrimSpace(rest)) > 0 {
		return nil, ErrAuthority
	}
	certificate, err := x509.ParseCertificate(first.Bytes)
	if err != nil || !certificate.IsCA {
		return nil, ErrAuthority
	}
	parsed, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, ErrAuthority
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// CertificatePEM returns the authority's own certificate.
func (a *Authority) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: a.certificate.Raw})
}

// NotAfter is the end of the authority's validity.
func (a *Authority) NotAfter() time.Time { return a.certificate.NotAfter }

// IssueServer issues a server's certificate for host names and IP addresses.
func (a *Authority) IssueServer(hosts []string, now time.Time) (Pair, error) {
	template := newTemplate("keywrightd", now, a.leafEnd(now.Add(LeafValidity)))
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.issue(template)
}

// Client is what a client's certificate says: the subject CN=Name, and a SPIFFE
// URI unless that is nil. It is valid for Validity, 0: LeafValidity, or as long as
// the authority itself if that is less.
type Client struct {
	Name     string
	SPIFFE   *url.URL
	Validity time.Duration
}

// IssueClient issues a client's certificate.
func (a *Authority) IssueClient(c Client, now time.Time) (Pair, error) {
	if c.Validity == 0 {
		c.Validity = LeafValidity
	}
	template := newTemplate(c.Name, now, a.leafEnd(now.Add(c.Validity)))
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if c.SPIFFE != nil {
		template.URIs = []*url.URL{c.SPIFFE}
	}
	return a.issue(template)
}

// spiffePath and spiffeDomain are the syntax of a SPIFFE id (SPIFFE-ID, 2).
var (
	spiffeDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	spiffePath   = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)*$`)
)

// ParseSPIFFE reads a SPIFFE id, such as spiffe://example.org/billing.
func ParseSPIFFE(text string) (*url.URL, error) {
	id, err := url.Parse(text)
	if err != nil || len(text) > 2048 || id.Scheme != "spiffe" || !spiffeDomain.MatchString(id.Host) || !spiffePath.MatchString(id.Path) ||
		text != "spiffe://"+id.Host+id.Path || slices.ContainsFunc(strings.Split(id.Path, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return nil, fmt.Errorf("%q is no SPIFFE id: write one such as spiffe://example.org/billing", text)
	}
	return id, nil
}

// leafEnd keeps a certificate from outliving its authority.
func (a *Authority) leafEnd(end time.Time) time.Time {
	if end.After(a.certificate.NotAfter) {
		return a.certificate.NotAfter
	}
	return end
}

func (a *Authority) issue(template *x509.Certificate) (Pair, error) {
	if !template.NotBefore.Before(template.NotAfter) {
		return Pair{}, fmt.Errorf("the local CA expired at %s: it can issue no certificate any more", a.NotAfter().Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate: %w", err)
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{certificate: pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der}), key: keyPEM}, nil
}

func newTemplate(name string, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    from.Add(-backdate),
		NotAfter:     until,
	}
}

// newSerial returns 127 random bits, positive and at most 20 octets long (RFC
// 5280 section 4.1.2.2).
func newSerial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:])
	raw[0] &= 0x7f
	return new(big.Int).SetBytes(raw[:])
}

func marshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}
