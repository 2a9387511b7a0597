package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
)

// What the clients of Vault and OpenBao read from the environment.
const (
	envAddress   = "VAULT_ADDR"
	envToken     = "VAULT_TOKEN"
	envCACert    = "VAULT_CACERT"
	envNamespace = "VAULT_NAMESPACE"
)

const (
	defaultMount   = "transit"
	transitTimeout = 30 * time.Second
	maxAnswer      = 64 << 20 // a key with all its versions
	maxTokenFile   = 64 << 10
)

// remote says which transit engine a command talks to.
type remote struct {
	address, mount, namespace string
	tokenFile, caFile         string
}

func (r *remote) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&r.address, "vault-address", "", "URL of the other server [$"+envAddress+"]")
	flags.StringVar(&r.mount, "vault-mount", defaultMount, "where its transit engine is mounted")
	flags.StringVar(&r.namespace, "vault-namespace", "", "its namespace [$"+envNamespace+"]")
	flags.StringVar(&r.tokenFile, "vault-token-file", "", "file with a token for it [$"+envToken+" (the token)]")
	flags.StringVar(&r.caFile, "vault-ca-file", "", "certificates that vouch for it, PEM [$"+envCACert+"]")
}

// transit is a transit engine.
type transit struct {
	base, namespace, token string
	client                 *http.Client
}

// open finds the engine; the token comes from a file or the environment, never from an
// argument, which everybody on the machine can read.
func (r *remote) open(getenv func(string) string) (*transit, error) {
	address := first(r.address, getenv(envAddress))
	at, err := url.Parse(address)
	switch {
	case address == "":
		return nil, command.Usagef("say by --vault-address or %s where the other server is", envAddress)
	case err != nil || at.Scheme != "https" && at.Scheme != "http" || at.Host == "":
		return nil, command.Usagef("--vault-address %q is no URL such as https://vault.example.org:8200", address)
	case at.Scheme == "http" && !loopback(at.Hostname()):
		return nil, command.Usagef("--vault-address %q is http: keys would cross the network in plaintext; use https, http is for loopback addresses only", address)
	case strings.Trim(r.mount, "/") == "":
		return nil, command.Usagef("--vault-mount is empty: say where the transit engine is mounted")
	}
	token := getenv(envToken)
	if r.tokenFile != "" {
		text, err := ui.ReadFile(r.tokenFile, maxTokenFile)
		if err != nil {
			return nil, err
		}
		token = strings.TrimSpace(string(text))
	}
	if token == "" {
		return nil, command.Usagef("there is no token for the other server: put it into %s, or name its file by --vault-token-file", envToken)
	}
	config, err := trust(first(r.caFile, getenv(envCACert)))
	if err != nil {
		return nil, err
	}
	return &transit{base: strings.TrimSuffix(address, "/") + "/v1/" + strings.Trim(r.mount, "/") + "/", token: token,
		namespace: first(r.namespace, getenv(envNamespace)),
		client: &http.Client{Timeout: transitTimeout, Transport: &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("it sends elsewhere; give the address of the active server")
			}}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// trust is whose certificates are believed: the system's, or those of a file.
func trust(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	pem, err := ui.ReadFile(caFile, 1<<20)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, command.Usagef("%s holds no certificate in PEM", caFile)
	}
	return config, nil
}

// refusal is what the other server said.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the other server answered %d: %s", r.status, r.text)
}

// call makes a request and reads the data of its answer into data, unless that is nil.
func (t *transit) call(ctx context.Context, method, path string, body, data any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, t.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Token", t.token)
	request.Header.Set("X-Vault-Request", "true")
	if t.namespace != "" {
		request.Header.Set("X-Vault-Namespace", t.namespace)
	}
	answer, err := t.client.Do(request)
	if err != nil {
		return fmt.Errorf("cannot reach the other server: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	got, err := ui.ReadAll(answer.Body, maxAnswer)
	if err != nil {
		return fmt.Errorf("the other server's answer: %w", err)
	}
	return read(answer.StatusCode, got, data)
}

func read(status int, body []byte, data any) error {
	var envelope struct {
		Data   json.RawMessage
		Errors []string
	}
	err := json.Unmarshal(body, &envelope)
	switch {
	case status >= http.StatusMultipleChoices:
		text := strings.Join(envelope.Errors, "; ")
		if text == "" {
			text = http.StatusText(status)
		}
		return &refusal{status, ui.Line(text)}
	case data == nil:
		return nil
	case err != nil || json.Unmarshal(envelope.Data, data) != nil:
		return errors.New("the other server's answer is not that of a transit engine; look at --vault-address and --vault-mount")
	}
	return nil
}

// names lists the engine's keys.
func (t *transit) names(ctx context.Context) ([]string, error) {
	var list struct{ Keys []string }
	err := t.call(ctx, http.MethodGet, "keys?list=true", nil, &list)
	if refused, ok := errors.AsType[*refusal](err); ok && refused.status == http.StatusNotFound {
		return nil, nil // it has none
	}
	return list.Keys, err
}

// backup returns a key's backup. With enable it is first allowed, for good.
func (t *transit) backup(ctx context.Context, name string, enable bool) (string, error) {
	if enable {
		allow := map[string]any{"exportable": true, "allow_plaintext_backup": true}
		if err := t.call(ctx, http.MethodPost, "keys/"+url.PathEscape(name)+"/config", allow, nil); err != nil {
			return "", err
		}
	}
	var answer struct{ Backup string }
	err := t.call(ctx, http.MethodGet, "backup/"+url.PathEscape(name), nil, &answer)
	refused, ok := errors.AsType[*refusal](err)
	if ok && !enable && (strings.Contains(refused.text, "plaintext backup") || strings.Contains(refused.text, "export")) {
		return "", fmt.Errorf("%w; the key must be exportable and allow_plaintext_backup, which --enable-backup sets there, for good", err)
	}
	return answer.Backup, err
}

// restore makes a key of a backup.
func (t *transit) restore(ctx context.Context, name, backup string) error {
	return t.call(ctx, http.MethodPost, "restore/"+url.PathEscape(name), map[string]string{"backup": backup}, nil)
}

// parseBackup finds the backup in what was saved: its text alone, or a server's whole
// answer, which can be that to an export, too.
func parseBackup(text []byte) (string, error) {
	trimmed := strings.TrimSpace(string(text))
	if !strings.HasPrefix(trimmed, "{") {
		return trimmed, nil
	}
	var saved struct {
		Backup string
		Keys   map[string]any
		Data   struct {
			Backup string
			Keys   map[string]any
		}
	}
	err := json.Unmarshal([]byte(trimmed), &saved)
	switch {
	case err == nil && first(saved.Data.Backup, saved.Backup) != "":
		return first(saved.Data.Backup, saved.Backup), nil
	case err == nil && len(saved.Keys)+len(saved.Data.Keys) > 0: // an export, which the server reads
		return trimmed, nil
	}
	return "", errors.New(`holds no backup: want its text, or JSON with "backup", or an export's "keys", in it or in its "data"`)
}
