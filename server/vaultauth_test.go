package server_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
)

func TestVaultTokens(t *testing.T) {
	h := newVaultHarness(t, nil)
	for name, token := range map[string]string{"none": "", "garbage": "hvs.garbage", "of another form": "kwt_x"} {
		for _, path := range []string{"transit/encrypt/k", "auth/token/lookup-self", "sys/mounts"} {
			a := h.send("PUT", path, `{"plaintext":"eA=="}`, "X-Vault-Token", token)
			if a.status != http.StatusForbidden || !strings.Contains(a.errors(), "permission denied") {
				t.Errorf("%s, %s: %d %s", name, path, a.status, a.text)
			}
		}
	}
	self := h.send("GET", "auth/token/lookup-self", "").data()
	if self["id"] != h.token || self["renewable"] != false || self["ttl"].(float64) < 3000 || self["accessor"] == "" {
		t.Errorf("lookup-self: %v", self)
	}
	if a := h.send("PUT", "auth/token/renew-self", `{"increment":0}`); a.status != http.StatusBadRequest {
		t.Errorf("renewed what is not renewable: %d %s", a.status, a.text)
	}
	lease := h.vaultToken("transit", 24*time.Hour)
	for range 3 {
		a := h.send("PUT", "auth/token/renew-self", `{"increment":0}`, "X-Vault-Token", lease)
		auth, _ := a.body["auth"].(map[string]any)
		if a.status != http.StatusOK || auth["client_token"] != lease || auth["renewable"] != true || auth["lease_duration"].(float64) < 3000 {
			t.Fatalf("renew-self: %d %s", a.status, a.text)
		}
	}
	h.put("transit/keys/k", "")
	bearer := h.send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`, "X-Vault-Token", "", "Authorization", "Bearer "+lease)
	if bearer.status != http.StatusOK {
		t.Errorf("a bearer token: %d %s", bearer.status, bearer.text)
	}
	if a := h.send("GET", "auth/token/lookup-self", "", "X-Vault-Token", "", "Authorization", "bearer "+lease); a.status != http.StatusOK || a.data()["id"] != lease {
		t.Errorf("lookup-self of a bearer token: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "auth/token/revoke-self", "", "X-Vault-Token", lease); a.status != http.StatusNoContent {
		t.Errorf("revoke-self: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`, "X-Vault-Token", lease); a.status != http.StatusForbidden {
		t.Errorf("after that: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "auth/token/create", `{"ttl":"10m"}`); a.status != http.StatusForbidden {
		t.Errorf("created a token without the right: %d %s", a.status, a.text)
	}
}

func TestVaultCreatesTokens(t *testing.T) {
	h := newVaultHarness(t, nil)
	must[kms.Policy](t)(h.service.PutPolicy(t.Context(), h.adminCall(), kms.PutPolicyRequest{Name: "maker", Text: `permit (principal == Token::"maker", action == Action::"CreateToken", resource);`}))
	maker := h.vaultToken("maker", 0)
	a := h.send("PUT", "auth/token/create", `{"display_name":"transit","ttl":"10m","policies":["default"],"renewable":false}`, "X-Vault-Token", maker)
	auth, _ := a.body["auth"].(map[string]any)
	if a.status != http.StatusOK || auth["renewable"] != false || !strings.Contains(fmt.Sprint(a.body["warnings"]), "policies") {
		t.Fatalf("%d %s", a.status, a.text)
	}
	made := auth["client_token"].(string)
	looked := h.send("PUT", "auth/token/lookup", fmt.Sprintf(`{"token":%q}`, made), "X-Vault-Token", maker)
	if ttl, _ := looked.data()["ttl"].(float64); ttl < 500 || ttl > 600 {
		t.Errorf("%d %s", looked.status, looked.text)
	}
}

func TestVaultByCertificate(t *testing.T) {
	h := newVaultHarness(t, nil)
	h.put("transit/keys/k", "")
	certificate := h.ca.issue(t, leaf{name: "billing", uris: []string{"spiffe://example.org/billing"}})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tlsConfig(identityOf{certificate: &certificate})}}
	send := func(method, path, body string, headers ...string) vaultAnswer {
		return h.sendOver(client, method, path, body, headers...)
	}
	if a := send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.text)
	}
	a := send("PUT", "auth/token/renew-self", `{"increment":0}`)
	if auth, _ := a.body["auth"].(map[string]any); a.status != http.StatusOK || auth["renewable"] != false {
		t.Errorf("renew-self: %d %s", a.status, a.text)
	}
	login := send("PUT", "auth/cert/login", "{}")
	auth, _ := login.body["auth"].(map[string]any)
	given, _ := auth["client_token"].(string)
	if a := send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`, "X-Vault-Token", given); a.status != http.StatusOK {
		t.Errorf("with what the login gave, %q: %d %s", given, a.status, a.text)
	}
	if a := send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`, "X-Vault-Token", "", "Authorization", "bearer "+given); a.status != http.StatusOK {
		t.Errorf("with the same as a bearer token: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`, "X-Vault-Token", given); a.status != http.StatusForbidden {
		t.Errorf("the same without the certificate: %d %s", a.status, a.text)
	}
	if a := send("POST", "transit/encrypt/k", `{"plaintext":"eA=="}`, "Origin", "https://elsewhere.example"); a.status != http.StatusForbidden {
		t.Errorf("from a web page: %d %s", a.status, a.text)
	}
	if a := send("GET", "auth/token/lookup-self", ""); a.status != http.StatusOK || a.data()["renewable"] != false {
		t.Errorf("lookup-self: %d %s", a.status, a.text)
	}
}

func TestVaultSystem(t *testing.T) {
	h := newVaultHarness(t, nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.ca.pool, MinVersion: tls.VersionTLS13}}}
	health := h.sendOver(client, "GET", "sys/health", "", "X-Vault-Namespace", "any")
	if health.status != http.StatusOK || health.body["initialized"] != true || health.body["sealed"] != false || health.body["version"] == "" {
		t.Errorf("health: %d %s", health.status, health.text)
	}
	if a := h.sendOver(client, "GET", "sys/health?activecode=299", ""); a.status != 299 {
		t.Errorf("health: %d", a.status)
	}
	if a := h.sendOver(client, "GET", "sys/seal-status", ""); a.status != http.StatusOK || a.body["sealed"] != false {
		t.Errorf("seal-status: %d %s", a.status, a.text)
	}
	if a := h.sendOver(client, "GET", "sys/mounts", ""); a.status != http.StatusForbidden {
		t.Errorf("mounts without a token: %d %s", a.status, a.text)
	}
	if a := h.send("GET", "sys/internal/ui/mounts/transit/encrypt/k", ""); a.data()["type"] != "transit" || a.data()["path"] != "transit/" {
		t.Errorf("mount: %d %s", a.status, a.text)
	}
	if a := h.send("GET", "sys/unknown", ""); a.status < 400 || a.status >= 500 {
		t.Errorf("unknown: %d %s", a.status, a.text)
	}
}

func TestVaultCapabilities(t *testing.T) {
	h := newVaultHarness(t, nil)
	must[kms.Policy](t)(h.service.PutPolicy(t.Context(), h.adminCall(), kms.PutPolicyRequest{Name: "explainer",
		Text: `permit (principal == Token::"reader", action == Action::"ExplainPolicy", resource);`}))
	h.put("transit/keys/k", "")
	a := h.send("PUT", "sys/capabilities-self", `{"paths":["transit/keys/k","transit/encrypt/k","nowhere"]}`, "X-Vault-Token", h.vaultToken("reader", 0))
	if got := fmt.Sprint(a.data()["transit/keys/k"], a.data()["transit/encrypt/k"], a.data()["nowhere"]); got != "[read] [deny] [deny]" {
		t.Errorf("%d %s", a.status, a.text)
	}
}

// What is encrypted, and what it is encrypted to, stands in no line of the audit log.
func TestVaultLogsNoSecrets(t *testing.T) {
	h := newVaultHarness(t, nil)
	h.put("transit/keys/k", "")
	sealed := h.put("transit/encrypt/k", `{"plaintext":"`+b64([]byte("very secret"))+`"}`)["ciphertext"].(string)
	h.put("transit/decrypt/k", fmt.Sprintf(`{"ciphertext":%q}`, sealed))
	h.put("transit/encrypt/k", `{"batch_input":[{"plaintext":"`+b64([]byte("very secret"))+`"}]}`)
	entries := must[[]audit.Entry](t)(h.service.ListAudit(t.Context(), h.adminCall(), audit.Filter{Namespace: "transit"}))
	actions := map[string]int{}
	for _, e := range entries {
		actions[e.Action]++
		line := fmt.Sprintf("%+v", e)
		for _, secret := range []string{"very secret", b64([]byte("very secret")), sealed, h.token} {
			if strings.Contains(line, secret) {
				t.Errorf("a line holds %q", secret)
			}
		}
	}
	if actions["Encrypt"] != 1 || actions["Decrypt"] != 1 || actions["CreateKey"] == 0 {
		t.Errorf("actions %v", actions)
	}
	if strings.Contains(h.log.String(), sealed) {
		t.Error("the server's log holds a ciphertext")
	}
}
