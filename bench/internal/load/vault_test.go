package load

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// transitServer answers as the documentation of transit has it; the key "failing" fails
// items of a batch.
func transitServer(t *testing.T) Target {
	answers := map[string]string{
		"encrypt/card": `{"ciphertext":"vault:v1:AAAA","key_version":1}`, "decrypt/card": `{"plaintext":"AAAA"}`,
		"datakey/plaintext/card": `{"ciphertext":"vault:v1:AAAA","plaintext":"AAAA"}`,
		"sign/card":              `{"signature":"vault:v1:BBBB"}`, "hmac/card": `{"hmac":"vault:v1:CCCC"}`, "verify/card": `{"valid":true}`,
		"encrypt/odd": `{"something":1}`, "hmac/odd": `{"hmac":"vault:v1:CCCC"}`, "verify/odd": `{"valid":false}`,
		"encrypt/failing": `{"ciphertext":"vault:v1:AAAA"}`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q map[string]any
		path, mounted := strings.CutPrefix(r.URL.Path, "/v1/team/transit/")
		answer, known := answers[path]
		items, batch := 0, false
		if err := json.NewDecoder(r.Body).Decode(&q); err == nil {
			var list []any
			list, batch = q["batch_input"].([]any)
			items = len(list)
		}
		for _, field := range map[string][]string{"decrypt/card": {"ciphertext"}, "verify/card": {"input"}, "encrypt/card": {"plaintext"}}[path] {
			if text, _ := q[field].(string); text == "" && !batch {
				known = false
			}
		}
		switch {
		case r.Header.Get("X-Vault-Token") != "s.token":
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintln(w, `{"errors":["permission denied"]}`)
		case !mounted || !known:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintln(w, `{"errors":[]}`)
		case batch && path == "encrypt/failing":
			fmt.Fprintln(w, `{"data":{"batch_results":[{"ciphertext":"vault:v1:AAAA"},{"error":"no luck"}]}}`)
		case batch:
			fmt.Fprintf(w, `{"data":{"batch_results":[%s]}}`, strings.Repeat(answer+",", items-1)+answer)
		default:
			fmt.Fprintf(w, `{"data":%s}`, answer)
		}
	}))
	t.Cleanup(s.Close)
	return Target{Addr: strings.TrimPrefix(s.URL, "http://"), Plaintext: true, Token: "s.token"}
}

func TestVault(t *testing.T) {
	target := transitServer(t)
	stranger := target
	stranger.Token = "s.other"
	for name, test := range map[string]struct {
		target    Target
		operation string
		key       string
		batch     int
		want      string // of the error
	}{
		"encrypt": {target, "encrypt", "card", 0, ""}, "decrypt": {target, "decrypt", "card", 0, ""},
		"data key": {target, "datakey", "card", 0, ""}, "sign": {target, "sign", "card", 0, ""},
		"verify": {target, "verify", "card", 0, ""}, "mac": {target, "mac", "card", 0, ""},
		"verify mac": {target, "verify-mac", "card", 0, ""}, "batch": {target, "encrypt", "card", 7, ""},
		"other token":    {stranger, "encrypt", "card", 0, "403 Forbidden: {\"errors\":[\"permission denied\"]}"},
		"no key":         {target, "encrypt", "absent", 0, "404"},
		"no operation":   {target, "hash", "card", 0, "give one of"},
		"no ciphertext":  {target, "encrypt", "odd", 0, "no \"ciphertext\""},
		"invalid":        {target, "verify-mac", "odd", 0, "not valid"},
		"failing item":   {target, "encrypt", "failing", 2, "operation 1 of the batch: no luck"},
		"too many items": {target, "encrypt", "card", MaxBatch + 1, "10001"},
	} {
		t.Run(name, func(t *testing.T) {
			w := Work{Operation: test.operation, Namespace: "team/transit", Key: test.key, Payload: 32, Batch: test.batch}
			pool, err := Vault(t.Context(), test.target, w, 2)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v; want one line with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if r, err := Run(t.Context(), pool.Callers, Plan{Duration: 20 * time.Millisecond}); err != nil || r.Latency.Count() < 2 {
				t.Errorf("%d calls answered, %v", r.Latency.Count(), err)
			}
		})
	}
}
