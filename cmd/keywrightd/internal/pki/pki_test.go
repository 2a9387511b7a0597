package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority(now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// write puts a pair into files and returns their paths.
func write(t *testing.T, pair Pair, err error) (certificate, key string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := pair.Write(certificate, key); err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func TestIssuedCertificatesAreForOneUseOnly(t *testing.T) {
	a := authority(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CertificatePEM())

	server, serverErr := a.IssueServer([]string{"localhost", "127.0.0.1", "::1"}, now)
	client, clientErr := a.IssueClient(Client{Name: "admin"}, now)
	tests := map[string]struct {
		pair     Pair
		err      error
		use, not x509.ExtKeyUsage
	}{
		"server": {server, serverErr, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		"client": {client, clientErr, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path, keyPath := write(t, test.pair, test.err)
			if _, err := tls.LoadX509KeyPair(path, keyPath); err != nil {
				t.Fatal(err)
			}
			certificate, err := ReadCertificate(path)
			if err != nil {
				t.Fatal(err)
			}
			verify := func(use x509.ExtKeyUsage, at time.Time) error {
				_, err := certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
				return err
			}
			if err := verify(test.use, now); err != nil {
				t.Errorf("refused for its use: %v", err)
			}
			if verify(test.not, now) == nil {
				t.Error("accepted for the other use")
			}
			if verify(test.use, now.Add(LeafValidity+time.Hour)) == nil {
				t.Error("accepted after its end")
			}
			if certificate.IsCA {
				t.Error("is a CA")
			}
		})
	}
	path, _ := write(t, server, serverErr)
	certificate, err := ReadCertificate(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
		if err := certificate.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(Hosts(certificate)); got != "[localhost 127.0.0.1 ::1]" {
		t.Errorf("Hosts = %s", got)
	}
}

func TestSubjectOfClient(t *testing.T) {
	pair, err := authority(t).IssueClient(Client{Name: "admin"}, now)
	path, _ := write(t, pair, err)
	certificate, err := ReadCertificate(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := certificate.Subject.String(); got != "CN=admin" {
		t.Fatalf("subject %q", got)
	}
}

func TestClientWithSPIFFE(t *testing.T) {
	id, err := ParseSPIFFE("spiffe://example.org/billing")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority(t).IssueClient(Client{Name: "billing", SPIFFE: id, Validity: 24 * time.Hour}, now)
	path, _ := write(t, pair, err)
	certificate, err := ReadCertificate(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(certificate.URIs) != 1 || certificate.URIs[0].String() != "spiffe://example.org/billing" || !certificate.NotAfter.Equal(now.Add(24*time.Hour)) {
		t.Errorf("URIs %v, until %s", certificate.URIs, certificate.NotAfter)
	}
}

func TestParseSPIFFE(t *testing.T) {
	for _, good := range []string{"spiffe://example.org", "spiffe://example.org/a/b-c_d.E", "spiffe://a_b-1/x"} {
		if _, err := ParseSPIFFE(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "example.org/a", "https://example.org/a", "SPIFFE://example.org/a", "spiffe:///a", "spiffe://Example.org/a",
		"spiffe://example.org:1/a", "spiffe://me@example.org/a", "spiffe://example.org/", "spiffe://example.org/a/", "spiffe://example.org//a",
		"spiffe://example.org/a?b", "spiffe://example.org/a#b", "spiffe://example.org/../a", "spiffe://example.org/a%20b", "spiffe://example.org/é",
		"spiffe://example.org/" + strings.Repeat("a", 2048)} {
		if id, err := ParseSPIFFE(bad); err == nil {
			t.Errorf("%q became %s", bad, id)
		}
	}
}

func FuzzParseSPIFFE(f *testing.F) {
	f.Add("spiffe://example.org/billing")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseSPIFFE(text); err == nil && (id.String() != text || strings.ContainsAny(text, "%?#@\\\" ")) {
			t.Errorf("%q became %s", text, id)
		}
	})
}

func TestAuthorityIsTheSameAfterParsing(t *testing.T) {
	a := authority(t)
	sealed, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseAuthority(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if string(again.CertificatePEM()) != string(a.CertificatePEM()) || !again.NotAfter().Equal(a.NotAfter()) {
		t.Fatal("another certificate came back")
	}
	if _, err := again.IssueClient(Client{Name: "admin"}, now); err != nil {
		t.Fatal(err)
	}
}

func TestParseAuthorityRefuses(t *testing.T) {
	sealed, err := authority(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other, err := authority(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := authority(t).IssueClient(Client{Name: "admin"}, now)
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.Index(string(sealed), "-----BEGIN PRIVATE KEY")
	tests := map[string][]byte{
		"nothing":      nil,
		"no key":       sealed[:cut],
		"no cert":      sealed[cut:],
		"swapped key":  append(append([]byte(nil), sealed[:cut]...), other[cut:]...),
		"half":         sealed[:len(sealed)/2],
		"a leaf":       append(append([]byte(nil), leaf.certificate...), leaf.key...),
		"more behind":  append(append([]byte(nil), sealed...), 'x'),
		"three blocks": append(append([]byte(nil), sealed...), sealed...),
	}
	for name, text := range tests {
		if _, err := ParseAuthority(text); !errors.Is(err, ErrAuthority) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestCertificatesEndWithTheirAuthority(t *testing.T) {
	a := authority(t)
	late := a.NotAfter().Add(-time.Hour)
	pair, err := a.IssueClient(Client{Name: "admin"}, late)
	path, _ := write(t, pair, err)
	certificate, err := ReadCertificate(path)
	if err != nil {
		t.Fatal(err)
	}
	if !certificate.NotAfter.Equal(a.NotAfter()) {
		t.Errorf("ends %s, the authority %s", certificate.NotAfter, a.NotAfter())
	}
	if _, err := a.IssueClient(Client{Name: "admin"}, a.NotAfter().Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired authority issued: %v", err)
	}
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	pair, err := authority(t).IssueClient(Client{Name: "admin"}, now)
	for _, path := range func(paths ...string) []string { return paths }(write(t, pair, err)) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		left, err := filepath.Glob(path + ".tmp-*")
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	a := authority(t)
	pair, err := a.IssueClient(Client{Name: "admin"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []slog.LogValuer{a, pair} {
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{fmt.Sprint(value), fmt.Sprintf("%+v %#v %s %x", value, value, value, value), string(encoded), value.LogValue().String()} {
			if strings.Trim(strings.ReplaceAll(text, redacted, ""), ` "`) != "" {
				t.Errorf("%T printed as %q", value, text)
			}
		}
	}
}
