package interop

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	vault "github.com/hashicorp/vault/api"
	openbao "github.com/openbao/openbao/api/v2"
)

// fields are the body of a request, or its query, or the data of an answer.
type fields = map[string]any

// target is a server of transit, mounted at transit: Keywright, or its peer.
type target struct {
	*testing.T
	url, token, ca string
	peer           bool
}

var mountPeer sync.Once

func isPeer() bool { return os.Getenv("KEYWRIGHT_COMPAT_PEER") != "" }

// newTarget is the peer if there is one, and else a site of Keywright, served until the
// test's end.
func newTarget(t *testing.T) target {
	t.Helper()
	if !isPeer() {
		s := newSite(t)
		s.serve()
		return s.target()
	}
	p := target{T: t, url: os.Getenv("KEYWRIGHT_COMPAT_PEER"), token: os.Getenv("KEYWRIGHT_COMPAT_PEER_TOKEN"), peer: true}
	mountPeer.Do(func() { // it is there if another run was before this one
		_, _ = p.raw(http.MethodPost, "sys/mounts/transit", fields{"type": "transit"})
	})
	return p
}

// answer is what a server answers: status 0 stands for success, whose own status the
// clients do not tell.
type answer struct {
	status int
	data   fields
	errors []string
	auth   bool
}

// client is a client's Logical.
type client interface {
	call(method, path string, body fields) (answer, error)
}

// clients are those of Vault and of OpenBao.
func (t target) clients() map[string]client {
	t.Helper()
	v := vault.DefaultConfig()
	v.Address, v.MaxRetries = t.url, 0
	b := openbao.DefaultConfig()
	b.Address, b.MaxRetries = t.url, 0
	if t.ca != "" {
		if err := v.ConfigureTLS(&vault.TLSConfig{CACert: t.ca}); err != nil {
			t.Fatal(err)
		}
		if err := b.ConfigureTLS(&openbao.TLSConfig{CACert: t.ca}); err != nil {
			t.Fatal(err)
		}
	}
	vc, err := vault.NewClient(v)
	if err != nil {
		t.Fatal(err)
	}
	vc.SetToken(t.token)
	bc, err := openbao.NewClient(b)
	if err != nil {
		t.Fatal(err)
	}
	bc.SetToken(t.token)
	return map[string]client{"vault": vaultClient{vc.Logical()}, "openbao": openbaoClient{bc.Logical()}}
}

type vaultClient struct{ *vault.Logical }

func (c vaultClient) call(method, path string, body fields) (answer, error) {
	secret, err := dispatch(method, path, body, c.Write, c.ReadWithData, c.List, c.DeleteWithData)
	if refused := (*vault.ResponseError)(nil); errors.As(err, &refused) {
		return answer{status: refused.StatusCode, errors: refused.Errors}, nil
	}
	if err != nil || secret == nil {
		return answer{status: http.StatusNotFound}, err
	}
	return answer{data: secret.Data, auth: secret.Auth != nil}, nil
}

type openbaoClient struct{ *openbao.Logical }

func (c openbaoClient) call(method, path string, body fields) (answer, error) {
	secret, err := dispatch(method, path, body, c.Write, c.ReadWithData, c.List, c.DeleteWithData)
	if refused := (*openbao.ResponseError)(nil); errors.As(err, &refused) {
		return answer{status: refused.StatusCode, errors: refused.Errors}, nil
	}
	if err != nil || secret == nil {
		return answer{status: http.StatusNotFound}, err
	}
	return answer{data: secret.Data, auth: secret.Auth != nil}, nil
}

// dispatch calls the method of a client, of which both have the same.
func dispatch[S any](method, path string, body fields, write func(string, fields) (S, error),
	read func(string, map[string][]string) (S, error), list func(string) (S, error), remove func(string, map[string][]string) (S, error),
) (S, error) {
	query := map[string][]string{}
	for name, value := range body {
		query[name] = []string{asText(value)}
	}
	switch method {
	case http.MethodGet:
		return read(path, query)
	case "LIST":
		return list(path)
	case http.MethodDelete:
		return remove(path, query)
	default:
		return write(path, body)
	}
}

func asText(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	text, _ := json.Marshal(value)
	return string(text)
}

// raw makes a request without a client, and returns the status and the JSON of the body.
func (t target) raw(method, path string, body any, headers ...string) (status int, answered fields) {
	t.Helper()
	sent, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if text, ok := body.(string); ok {
		sent = []byte(text)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, t.url+"/v1/"+path, bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Vault-Token", t.token)
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: t.roots(), DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(text)) > 0 {
		if err := json.Unmarshal(text, &answered); err != nil {
			t.Fatalf("%s %s: %d %q: %v", method, path, response.StatusCode, text, err)
		}
	}
	return response.StatusCode, answered
}

func (t target) roots() *tls.Config {
	if t.ca == "" {
		return nil
	}
	text, err := os.ReadFile(t.ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: pool}
}

// try is one try of a target by a client. Paths are relative to the mount, unless they
// begin with a slash.
type try struct {
	target
	client client
}

func newTry(t *testing.T, server target, c client) *try {
	server.T = t
	return &try{target: server, client: c}
}

func (c *try) call(method, path string, body fields) answer {
	c.Helper()
	full, absolute := strings.CutPrefix(path, "/")
	if !absolute {
		full = "transit/" + path
	}
	a, err := c.client.call(method, full, body)
	if err != nil {
		c.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// done calls and wants success; its data may be nil.
func (c *try) done(method, path string, body fields) fields {
	c.Helper()
	a := c.call(method, path, body)
	if a.status != 0 && (a.status != http.StatusNotFound || a.errors != nil) {
		c.Fatalf("%s %s %v: status %d, %q", method, path, body, a.status, a.errors)
	}
	return a.data
}

func (c *try) put(path string, body fields) fields {
	c.Helper()
	return c.done(http.MethodPut, path, body)
}

func (c *try) get(path string, query fields) fields {
	c.Helper()
	data := c.done(http.MethodGet, path, query)
	if data == nil {
		c.Fatalf("%s is not there", path)
	}
	return data
}

// absent wants a read that finds nothing.
func (c *try) absent(path string) {
	c.Helper()
	if a := c.call(http.MethodGet, path, nil); a.status != http.StatusNotFound {
		c.Fatalf("%s is there: status %d, %v, %q", path, a.status, a.data, a.errors)
	}
}

// refused wants a refusal with a status, 400 unless another is named, that says why.
// OpenBao answers 500 to some of what it should not be asked.
func (c *try) refused(method, path string, body fields, status ...int) string {
	c.Helper()
	want := append(status, http.StatusBadRequest)[0]
	a := c.call(method, path, body)
	if c.peer && want == http.StatusBadRequest && a.status == http.StatusInternalServerError {
		want = a.status
	}
	if a.status != want || len(a.errors) == 0 && want != http.StatusNotFound { // of which clients tell no text
		c.Fatalf("%s %s %v: status %d instead of %d, %v, %q", method, path, body, a.status, want, a.data, a.errors)
	}
	return strings.Join(a.errors, "; ")
}
