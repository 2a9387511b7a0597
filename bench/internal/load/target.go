package load

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// ErrOverload is wrapped by the error of a call that the server refused for want
// of room (RESOURCE_EXHAUSTED, HTTP 429).
var ErrOverload = errors.New("the server is overloaded")

// ErrToken is wrapped by the error of a call whose token the server does not take, or
// misses.
var ErrToken = errors.New("refused the token")

// Token is a bearer token; printing it does not show it.
type Token string

// String hides the token.
func (Token) String() string { return "[redacted]" }

// GoString hides the token.
func (Token) GoString() string { return "[redacted]" }

// Target is the server to call and as whom.
type Target struct {
	Addr      string // host:port
	Plaintext bool   // no TLS; the token then crosses the network in the clear
	CAFile    string // PEM of whom to believe; empty: the system's roots
	CertFile  string // client certificate, PEM, with KeyFile; empty: none
	KeyFile   string
	Token     Token // empty: none
}

// tlsConfig offers TLS 1.3 alone, as the server does.
func (t Target) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("the CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("the CA file %s holds no certificate in PEM", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Pool is callers with the connections that they share.
type Pool struct {
	Callers  []Caller
	Windowed bool // a Call is the next of many under way: its time is not how long it took
	close    []func() error
}

// Close closes the connections; no caller may be calling.
func (p *Pool) Close() error {
	var failed error
	for _, closeOne := range p.close {
		failed = errors.Join(failed, closeOne())
	}
	return failed
}
