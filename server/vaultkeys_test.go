package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/keywright/keywright/server"
)

func TestVaultReadsLeniently(t *testing.T) {
	h := newVaultHarness(t, nil)
	for _, body := range []string{"", "null", "{}", `{"type":"aes256-gcm96","unknown":[1,{"a":2}],"derived":"false","exportable":0}`} {
		if a := h.send("POST", "transit/keys/k", body); a.status != http.StatusOK {
			t.Fatalf("%q: %d %s", body, a.status, a.text)
		}
	}
	h.put("transit/keys/k/config", `{"min_encryption_version":"1","deletion_allowed":"true","auto_rotate_period":"24h"}`)
	read := h.send("GET", "transit/keys/k", "").data()
	if read["min_encryption_version"] != 1.0 || read["deletion_allowed"] != true || read["auto_rotate_period"] != 86400.0 || read["latest_version"] != 1.0 {
		t.Errorf("read %v", read)
	}
	for _, list := range []vaultAnswer{h.send("LIST", "transit/keys", ""), h.send("GET", "transit/keys?list=true", ""), h.send("GET", "transit/keys/?list=true", "")} {
		if got := fmt.Sprint(list.data()["keys"]); list.status != http.StatusOK || got != "[k]" {
			t.Errorf("listed %d %s", list.status, list.text)
		}
	}
	for _, body := range []string{
		`{"plaintext":"` + b64([]byte("x")) + `","key_version":"1"}`, `{ "plaintext" : "` + b64([]byte("x")) + `" , "key_version" : 1 }`,
		`{"plaintext":"\u0065A==","nothing":null}`, `{"plaintext":""}`,
	} {
		if got := h.put("transit/encrypt/k", body); got["key_version"] != 1.0 {
			t.Errorf("%s: %v", body, got)
		}
	}
	a := h.send("PUT", "transit/encrypt/k", `{"plaintext":"eA=="}`, "Content-Type", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", a.status, a.header)
	}
	for _, field := range []string{"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"} {
		if _, ok := a.body[field]; !ok {
			t.Errorf("the envelope lacks %s", field)
		}
	}
}

func TestVaultListsInParts(t *testing.T) {
	h := newVaultHarness(t, nil)
	for _, name := range []string{"c", "a", "b"} {
		h.put("transit/keys/"+name, "")
	}
	for query, want := range map[string]string{
		"": "[a b c]", "?limit=2": "[a b]", "?limit=0": "[a b c]", "?limit=-1": "[a b c]", "?after=a": "[b c]",
		"?after=a&limit=1": "[b]", "?after=aa": "[b c]", "?limit=9": "[a b c]",
	} {
		if a := h.send("LIST", "transit/keys"+query, ""); a.status != http.StatusOK || fmt.Sprint(a.data()["keys"]) != want {
			t.Errorf("%s: %d %s, want %s", query, a.status, a.text, want)
		}
	}
	if a := h.send("LIST", "transit/keys?after=c", ""); a.status != http.StatusNotFound {
		t.Errorf("after the last: %d %s", a.status, a.text)
	}
	if a := h.send("LIST", "transit/keys?limit=x", ""); a.status != http.StatusBadRequest {
		t.Errorf("no limit: %d %s", a.status, a.text)
	}
}

func TestVaultErrors(t *testing.T) {
	h := newVaultHarness(t, func(c *server.Config) { c.Vault.MaxBodyBytes = 64 << 10 })
	h.put("transit/keys/k", "")
	h.put("transit/keys/tree", `{"derived":true,"convergent_encryption":true}`)
	reader := h.vaultToken("reader", 0)
	for name, test := range map[string]struct {
		method, path, body string
		status             int
		text               string
	}{
		"bad base64":          {"PUT", "transit/encrypt/k", `{"plaintext":"%%"}`, 400, "base64"},
		"bad JSON":            {"PUT", "transit/encrypt/k", `{"plaintext":`, 400, "JSON"},
		"no plaintext":        {"PUT", "transit/encrypt/k", `{}`, 400, "missing plaintext"},
		"two bodies":          {"PUT", "transit/encrypt/k", `{"plaintext":"eA=="}{}`, 400, "JSON"},
		"unknown key":         {"PUT", "transit/encrypt/none", `{"plaintext":"eA=="}`, 400, "encryption key not found"},
		"read unknown key":    {"GET", "transit/keys/none", "", 404, ""},
		"delete refused":      {"DELETE", "transit/keys/k", "", 400, "deletion"},
		"delete unknown":      {"DELETE", "transit/keys/none", "", 400, "not found"},
		"unknown type":        {"PUT", "transit/keys/new", `{"type":"des"}`, 400, "unknown"},
		"unknown path":        {"PUT", "transit/nothing/k", `{}`, 404, "no handler for route"},
		"unknown mount":       {"PUT", "Bad Mount/encrypt/k", `{"plaintext":"eA=="}`, 400, "namespace"},
		"other method":        {"GET", "transit/encrypt/k", "", 405, "unsupported"},
		"too large":           {"PUT", "transit/encrypt/k", `{"plaintext":"` + strings.Repeat("A", 70_000) + `"}`, 413, "limit"},
		"not a ciphertext":    {"PUT", "transit/decrypt/k", `{"ciphertext":"vault:v1"}`, 400, "ciphertext"},
		"damaged":             {"PUT", "transit/decrypt/k", `{"ciphertext":"vault:v1:` + b64(make([]byte, 40)) + `"}`, 400, ""},
		"of a later version":  {"PUT", "transit/decrypt/k", `{"ciphertext":"vault:v9:` + b64(make([]byte, 40)) + `"}`, 400, "version"},
		"no context":          {"PUT", "transit/encrypt/tree", `{"plaintext":"eA=="}`, 400, "context"},
		"convergent with AAD": {"PUT", "transit/encrypt/tree", `{"plaintext":"eA==","context":"eA==","associated_data":"eA=="}`, 400, "associated_data"},
		"exportable here":     {"PUT", "transit/keys/new", `{"exportable":true}`, 400, "plaintext_export"},
		"export of it":        {"GET", "transit/export/encryption-key/k", "", 400, "exportable"},
		"backup of it":        {"GET", "transit/backup/k", "", 400, "exportable"},
		"no such data key":    {"PUT", "transit/datakey/plain/k", `{}`, 400, "plaintext"},
		"odd data key":        {"PUT", "transit/datakey/plaintext/k", `{"bits":100}`, 400, "bits"},
		"verify nothing":      {"PUT", "transit/verify/k", `{"input":"eA=="}`, 400, "signature"},
		"sign with AES":       {"PUT", "transit/sign/k", `{"input":"eA=="}`, 400, ""},
		"empty batch":         {"PUT", "transit/encrypt/k", `{"batch_input":[]}`, 400, "batch"},
		"no batch":            {"PUT", "transit/encrypt/k", `{"batch_input":7}`, 400, "batch_input"},
		"too much randomness": {"PUT", "transit/random/1000000", "", 400, "bytes"},
		"unknown hash":        {"PUT", "transit/hash/md5", `{"input":"eA=="}`, 400, "algorithm"},
		"forced restore":      {"PUT", "transit/restore/k", `{"backup":"eA==","force":true}`, 400, "force"},
		"no backup":           {"PUT", "transit/restore/x", `{"backup":"eA=="}`, 400, "backup"},
		"bad number":          {"PUT", "transit/keys/k/config", `{"min_encryption_version":"x"}`, 400, "min_encryption_version"},
		"unknown login":       {"PUT", "auth/approle/login", `{"role_id":"x"}`, 400, "login"},
	} {
		a := h.send(test.method, strings.ReplaceAll(test.path, " ", "%20"), test.body)
		if a.status != test.status || !strings.Contains(a.errors(), test.text) {
			t.Errorf("%s: %d %s, want %d with %q", name, a.status, a.text, test.status, test.text)
		}
	}
	// Who may not, is told the same of what there is and what there is not.
	told := map[string]bool{}
	for _, path := range []string{"transit/encrypt/k", "transit/encrypt/none", "app/encrypt/none", "nowhere/encrypt/k"} {
		a := h.send("PUT", path, `{"plaintext":"eA=="}`, "X-Vault-Token", reader)
		told[fmt.Sprint(a.status, a.text)] = true
		if a.status != http.StatusForbidden || !strings.Contains(a.text, "permission denied") {
			t.Errorf("%s: %d %s", path, a.status, a.text)
		}
	}
	if len(told) != 1 {
		t.Errorf("told %v", told)
	}
	if a := h.send("GET", "transit/keys/k", "", "X-Vault-Token", reader); a.status != http.StatusOK {
		t.Errorf("the reader reads %d %s", a.status, a.text)
	}
}

func TestVaultBatches(t *testing.T) {
	h := newVaultHarness(t, nil)
	h.put("transit/keys/k", "")
	h.put("transit/keys/signer", `{"type":"ecdsa-p256"}`)
	const many = 10_000
	items := strings.Repeat(`{"plaintext":"eA==","reference":"r"},`, many-1) + `{"plaintext":"eA==","reference":"last"}`
	results := h.send("PUT", "transit/encrypt/k", `{"batch_input":[`+items+`]}`).results(t)
	if len(results) != many || results[many-1]["reference"] != "last" {
		t.Fatalf("%d results", len(results))
	}
	if a := h.send("PUT", "transit/encrypt/k", `{"batch_input":[{"plaintext":"eA=="},`+items+`]}`); a.status != http.StatusBadRequest {
		t.Errorf("one too many: %d", a.status)
	}
	sealed := results[0]["ciphertext"].(string)
	good, bad := fmt.Sprintf(`{"ciphertext":%q}`, sealed), `{"ciphertext":"vault:v1:AAAA"}`
	for name, test := range map[string]struct {
		path, items, more string
		status            int
	}{
		"all well":          {"decrypt/k", good + "," + good, "", 200},
		"one fails":         {"decrypt/k", good + "," + bad, "", 400},
		"as asked":          {"decrypt/k", good + "," + bad, `,"partial_failure_response_code":207`, 207},
		"as asked, in text": {"decrypt/k", good + "," + bad, `,"partial_failure_response_code":"200"`, 200},
		"all fail":          {"decrypt/k", bad + "," + bad, `,"partial_failure_response_code":207`, 400},
		"rewrap":            {"rewrap/k", good + "," + bad, "", 400},
		"verify":            {"verify/k", `{"input":"eA==","hmac":"vault:v1:eA=="},{"input":"%","hmac":"vault:v1:eA=="}`, "", 400},
	} {
		a := h.send("PUT", "transit/"+test.path, `{"batch_input":[`+test.items+`]`+test.more+`}`)
		if a.status != test.status || len(a.results(t)) != 2 {
			t.Errorf("%s: %d %s, want %d", name, a.status, a.text, test.status)
		}
	}
	if a := h.send("PUT", "transit/encrypt/none", `{"batch_input":[{"plaintext":"eA=="}]}`); a.status != http.StatusBadRequest || !strings.Contains(a.errors(), "encryption key not found") {
		t.Errorf("unknown key: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "app/encrypt/none", `{"batch_input":[{"plaintext":"eA=="},{"plaintext":"%"}]}`); a.status == http.StatusOK {
		t.Errorf("not permitted: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "app/encrypt/none", `{"batch_input":[{"plaintext":"eA=="},{"plaintext":"eA=="}]}`); a.status != http.StatusForbidden {
		t.Errorf("not permitted: %d %s", a.status, a.text)
	}
	signed := h.send("PUT", "transit/sign/signer", `{"batch_input":[{"input":"eA=="},{"input":"eQ=="}]}`).results(t)
	verify := fmt.Sprintf(`{"batch_input":[{"input":"eA==","signature":%q},{"input":"eA==","signature":%q}]}`, signed[0]["signature"], signed[1]["signature"])
	if got := h.send("PUT", "transit/verify/signer", verify); got.status != 200 || got.results(t)[0]["valid"] != true || got.results(t)[1]["valid"] != false {
		t.Errorf("verified %d %s", got.status, got.text)
	}
	if got := h.send("PUT", "transit/verify/signer", `{"batch_input":[{"input":"eA==","signature":"x"},{"input":"eA==","hmac":"x"}]}`); got.status != 400 {
		t.Errorf("mixed: %d %s", got.status, got.text)
	}
}

func TestVaultOptions(t *testing.T) {
	h := newVaultHarness(t, func(c *server.Config) {
		c.Vault.LenientBatches, c.Vault.CreateOnEncrypt = true, true
		c.Vault.Mounts = []server.VaultMount{{Path: "deep/transit", Namespace: "transit"}, {Path: "transit", VaultNamespace: "team/a", Namespace: "plain"}}
	})
	sealed := h.put("transit/encrypt/made", `{"plaintext":"eA=="}`)["ciphertext"]
	if a := h.send("PUT", "transit/rewrap/made", fmt.Sprintf(`{"batch_input":[{"ciphertext":%q},{"ciphertext":"x"}]}`, sealed)); a.status != http.StatusOK {
		t.Errorf("lenient: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "deep/transit/decrypt/made", fmt.Sprintf(`{"ciphertext":%q}`, sealed)); a.status != http.StatusOK {
		t.Errorf("a mount with slashes: %d %s", a.status, a.text)
	}
	for _, at := range []struct{ namespace, path string }{{"team/a", "transit/"}, {"team/a/", "transit/"}, {"team", "a/transit/"}, {"", "team/a/transit/"}} {
		a := h.send("PUT", at.path+"keys/elsewhere", `{"exportable":true,"allow_plaintext_backup":true}`, "X-Vault-Namespace", at.namespace)
		if a.status != http.StatusOK {
			t.Errorf("%v: %d %s", at, a.status, a.text)
		}
	}
	if a := h.send("GET", "plain/keys/elsewhere", ""); a.status != http.StatusOK {
		t.Errorf("the namespace itself: %d %s", a.status, a.text)
	}
	if a := h.send("PUT", "transit/encrypt/made", `{"plaintext":"eA=="}`, "X-Vault-Namespace", "other"); a.status != http.StatusNotFound {
		t.Errorf("an unknown namespace: %d %s", a.status, a.text)
	}
	if a := h.send("GET", "sys/internal/ui/mounts/deep/transit/encrypt/made", ""); a.data()["path"] != "deep/transit/" {
		t.Errorf("mount: %d %s", a.status, a.text)
	}
}

func TestVaultMovesKeys(t *testing.T) {
	h := newVaultHarness(t, nil)
	h.put("plain/keys/k", `{"exportable":true,"allow_plaintext_backup":true}`)
	sealed := h.put("plain/encrypt/k", `{"plaintext":"eA=="}`)["ciphertext"]
	backup := h.send("GET", "plain/backup/k", "").data()["backup"]
	h.put("transit/restore/moved", fmt.Sprintf(`{"backup":%q}`, backup))
	if got := h.put("transit/decrypt/moved", fmt.Sprintf(`{"ciphertext":%q}`, sealed)); got["plaintext"] != "eA==" {
		t.Errorf("%v", got)
	}
	exported := h.send("GET", "plain/export/encryption-key/k/latest", "").data()
	if keys, _ := exported["keys"].(map[string]any); len(keys) != 1 || exported["name"] != "k" || exported["type"] != "aes256-gcm96" {
		t.Errorf("%v", exported)
	}
	if a := h.send("GET", "transit/wrapping_key", ""); !strings.Contains(fmt.Sprint(a.data()["public_key"]), "BEGIN PUBLIC KEY") {
		t.Errorf("%d %s", a.status, a.text)
	}
	h.put("plain/keys/k/config", `{"deletion_allowed":true}`)
	if a := h.send("DELETE", "plain/keys/k", ""); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.text)
	}
	if a := h.send("PUT", "plain/keys/k/soft-delete-restore", ""); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.text)
	}
	if got := h.put("plain/decrypt/k", fmt.Sprintf(`{"ciphertext":%q}`, sealed)); got["plaintext"] != "eA==" {
		t.Errorf("%v", got)
	}
}

// Keys that live in the HSM, which the original has not, are keys like any other here.
func TestVaultKeysInTheHSM(t *testing.T) {
	h := newVaultHarness(t, nil)
	for kind, hash := range map[string]string{"ecdsa-p256": "sha2-256", "ed25519": ""} {
		made := h.put("transit/keys/"+kind, `{"type":"`+kind+`","protection_level":"HSM"}`)
		if made["protection_level"] != "HSM" {
			t.Fatalf("%s: %v", kind, made)
		}
		signed := h.put("transit/sign/"+kind, `{"input":"eA==","hash_algorithm":"`+hash+`"}`)
		h.put("transit/keys/"+kind+"/rotate", "")
		verified := h.put("transit/verify/"+kind, fmt.Sprintf(`{"input":"eA==","hash_algorithm":%q,"signature":%q}`, hash, signed["signature"]))
		if verified["valid"] != true {
			t.Errorf("%s: %v", kind, verified)
		}
	}
	h.put("transit/keys/aes", `{"type":"aes256-gcm96","protection_level":"HSM"}`)
	sealed := h.put("transit/encrypt/aes", `{"plaintext":"eA==","associated_data":"eQ=="}`)
	if got := h.put("transit/decrypt/aes", fmt.Sprintf(`{"ciphertext":%q,"associated_data":"eQ=="}`, sealed["ciphertext"])); got["plaintext"] != "eA==" {
		t.Errorf("%v", got)
	}
	if got := h.put("transit/hmac/aes", `{"input":"eA=="}`); !strings.HasPrefix(fmt.Sprint(got["hmac"]), "vault:v1:") {
		t.Errorf("%v", got)
	}
	if a := h.send("PUT", "transit/keys/no", `{"type":"chacha20-poly1305","protection_level":"HSM"}`); a.status != http.StatusBadRequest {
		t.Errorf("%d %s", a.status, a.text)
	}
	if a := h.send("PUT", "plain/keys/no", `{"protection_level":"HSM","exportable":true}`); a.status != http.StatusBadRequest {
		t.Errorf("%d %s", a.status, a.text)
	}
}
