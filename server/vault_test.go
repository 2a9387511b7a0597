package server_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server"
)

const vaultPolicy = `
	permit (principal == Token::"transit", action, resource in Namespace::"transit");
	permit (principal == Token::"transit", action, resource in Namespace::"plain");
	permit (principal == Token::"reader", action == Action::"GetKey", resource in Namespace::"transit");
	permit (principal == Workload::"local:spiffe://example.org/billing", action, resource in Namespace::"transit");
`

// vaultHarness is a server with the Vault surface, and namespaces transit and plain, the
// latter with plaintext export.
type vaultHarness struct {
	*harness
	token string
}

func newVaultHarness(t testing.TB, change func(*server.Config)) *vaultHarness {
	t.Helper()
	h := newHarness(t, func(c *server.Config) {
		c.Vault.Address = "127.0.0.1:0"
		if change != nil {
			change(c)
		}
	})
	must[kms.Policy](t)(h.service.PutPolicy(t.Context(), h.adminCall(), kms.PutPolicyRequest{Name: "vault", Text: vaultPolicy}))
	for name, plaintext := range map[string]bool{"transit": false, "plain": true} {
		must[kms.Namespace](t)(h.service.CreateNamespace(t.Context(), h.adminCall(), kms.CreateNamespaceRequest{Namespace: name, PlaintextExport: plaintext}))
	}
	v := &vaultHarness{harness: h}
	v.token = v.vaultToken("transit", 0)
	return v
}

func (h *vaultHarness) vaultToken(principal string, renewableFor time.Duration) string {
	h.t.Helper()
	return must[kms.NewToken](h.t)(h.service.CreateToken(h.t.Context(), h.adminCall(),
		kms.CreateTokenRequest{Principal: principal, TTL: time.Hour, RenewableFor: renewableFor})).Text
}

// vaultAnswer is an answer of the surface.
type vaultAnswer struct {
	status int
	text   string
	header http.Header
	body   map[string]any
}

func (a vaultAnswer) data() map[string]any {
	data, _ := a.body["data"].(map[string]any)
	return data
}

func (a vaultAnswer) errors() string { return fmt.Sprint(a.body["errors"]) }

func (a vaultAnswer) results(t testing.TB) (items []map[string]any) {
	t.Helper()
	list, _ := a.data()["batch_results"].([]any)
	for _, item := range list {
		items = append(items, item.(map[string]any))
	}
	return items
}

// send makes a request with the harness's token; headers follow in pairs, and replace it
// where they name another.
func (h *vaultHarness) send(method, path, body string, headers ...string) vaultAnswer {
	h.t.Helper()
	return h.sendOver(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.ca.pool, MinVersion: tls.VersionTLS13}}}, method, path, body,
		append([]string{"X-Vault-Token", h.token}, headers...)...)
}

func (h *vaultHarness) sendOver(client *http.Client, method, path, body string, headers ...string) vaultAnswer {
	h.t.Helper()
	defer client.CloseIdleConnections()
	request := must[*http.Request](h.t)(http.NewRequestWithContext(h.t.Context(), method, "https://"+h.server.VaultAddr().String()+"/v1/"+path, strings.NewReader(body)))
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	a := vaultAnswer{status: response.StatusCode, text: string(must[[]byte](h.t)(io.ReadAll(response.Body))), header: response.Header}
	if a.status != http.StatusNoContent {
		if err := json.Unmarshal([]byte(a.text), &a.body); err != nil {
			h.t.Fatalf("%s %s: %d %q is no JSON object", method, path, a.status, a.text)
		}
	}
	return a
}

// put writes, and expects success.
func (h *vaultHarness) put(path, body string) map[string]any {
	h.t.Helper()
	a := h.send("PUT", path, body)
	if a.status != http.StatusOK && a.status != http.StatusNoContent {
		h.t.Fatalf("PUT %s %.200s: %d %.500s", path, body, a.status, a.text)
	}
	return a.data()
}

func TestVaultEncryptsAndDecrypts(t *testing.T) {
	h := newVaultHarness(t, nil)
	for _, kind := range []string{"", "aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305", "rsa-2048"} {
		key := "k-" + kind
		h.put("transit/keys/"+key, `{"type":"`+kind+`"}`)
		made := h.put("transit/encrypt/"+key, `{"plaintext":"`+b64([]byte("secret"))+`"}`)
		if text := made["ciphertext"].(string); strings.Count(text, ":") != 2 || !strings.HasPrefix(text, "vault:v1:") || made["key_version"] != 1.0 {
			t.Fatalf("%s: %v", kind, made)
		}
		h.put("transit/keys/"+key+"/rotate", "")
		opened := h.put("transit/decrypt/"+key, fmt.Sprintf(`{"ciphertext":%q}`, made["ciphertext"]))
		if opened["plaintext"] != b64([]byte("secret")) {
			t.Fatalf("%s: %v", kind, opened)
		}
		again := h.put("transit/rewrap/"+key, fmt.Sprintf(`{"ciphertext":%q}`, made["ciphertext"]))
		if again["key_version"] != 2.0 || !strings.HasPrefix(again["ciphertext"].(string), "vault:v2:") {
			t.Fatalf("%s: %v", kind, again)
		}
	}
}
