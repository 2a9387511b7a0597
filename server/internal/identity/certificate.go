package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/keywright/keywright/kms/policy"
)

// Bundle is a file of CA certificates (PEM) whose clients form one trust
// domain, known by Name in principals.
type Bundle struct{ Name, File string }

// trust is a loaded bundle.
type trust struct {
	name string
	pool *x509.CertPool
}

// bundleName is the form of a bundle's name, so that "name:principal" reads one way.
var bundleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// loadTrust also adds the bundle's certificates to hints.
func loadTrust(b Bundle, hints *x509.CertPool) (trust, error) {
	if !bundleName.MatchString(b.Name) {
		return trust{}, fmt.Errorf("client CA bundle %q: the name must match [A-Za-z0-9][A-Za-z0-9._-]{0,62}", b.Name)
	}
	text, err := os.ReadFile(b.File)
	if err != nil {
		return trust{}, fmt.Errorf("client CA bundle %q: %w", b.Name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return trust{}, fmt.Errorf("client CA bundle %q: %s holds no certificate in PEM", b.Name, b.File)
	}
	hints.AppendCertsFromPEM(text)
	return trust{b.Name, pool}, nil
}

// identify verifies the certificate of a handshake against every bundle and
// returns its caller; nil without a certificate. Exactly one bundle must vouch:
// which trust domain a client belongs to is not left to the order of a list.
func identify(bundles []trust, state tls.ConnectionState, now time.Time) (*policy.Caller, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, nil
	}
	var caller *policy.Caller
	var refusal error = unauthenticated("UNKNOWN_CA", "no client CA bundle vouches for the certificate")
	for _, bundle := range bundles {
		chain, err := bundle.verify(state.PeerCertificates, now)
		switch {
		case err != nil:
			refusal = moreTelling(refusal, err)
		case caller != nil:
			return nil, unauthenticated("AMBIGUOUS_CA", "more than one client CA bundle vouches for the certificate")
		default:
			if caller, err = bundle.caller(chain); err != nil {
				return nil, err
			}
		}
	}
	if caller == nil {
		return nil, refusal
	}
	return caller, nil
}

func (t trust) verify(presented []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	between := x509.NewCertPool()
	for _, c := range presented[1:] {
		between.AddCert(c)
	}
	chains, err := presented[0].Verify(x509.VerifyOptions{
		Roots:         t.pool,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

// moreTelling replaces "unknown CA" by what a CA that is known found wrong.
func moreTelling(refusal, err error) error {
	var invalid x509.CertificateInvalidError
	switch {
	case !errors.As(err, &invalid):
		return refusal
	case invalid.Reason == x509.Expired:
		return unauthenticated("CERTIFICATE_EXPIRED", "the client certificate has expired or is not valid yet")
	}
	return unauthenticated("CERTIFICATE_INVALID", "the client certificate is not fit for client authentication")
}

// caller names the principal: `<bundle>:<SPIFFE URI>` for a certificate with
// one SPIFFE URI (SPIFFE X.509-SVID, 2), else `<bundle>:<subject>` (RFC 2253).
// It ends with the first certificate of the chain that ends.
func (t trust) caller(chain []*x509.Certificate) (*policy.Caller, error) {
	kind, name, err := subjectOf(chain[0])
	if err != nil {
		return nil, err
	}
	c := &policy.Caller{Type: kind, ID: t.name + ":" + name, Method: "mtls", TrustDomain: t.name, Expires: chain[0].NotAfter}
	for _, link := range chain[1:] {
		if link.NotAfter.Before(c.Expires) {
			c.Expires = link.NotAfter
		}
	}
	return c, nil
}

func subjectOf(leaf *x509.Certificate) (policy.PrincipalType, string, error) {
	var spiffe []string
	for _, uri := range leaf.URIs {
		if uri.Scheme == "spiffe" {
			spiffe = append(spiffe, uri.String())
		}
	}
	if len(spiffe) == 1 {
		return policy.Workload, spiffe[0], nil
	}
	// From the encoded name: pkix.Name would reorder it.
	var subject pkix.RDNSequence
	_, err := asn1.Unmarshal(leaf.RawSubject, &subject)
	if name := subject.String(); err == nil && name != "" && utf8.ValidString(name) {
		return policy.User, name, nil
	}
	return "", "", unauthenticated("CERTIFICATE_NAMELESS", "the client certificate has neither one SPIFFE URI nor a subject")
}
