package server_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/keywright/keywright/server"
)

// BenchmarkVault is the Vault surface over real HTTP, on as many connections as there are
// goroutines: an encryption of 32 bytes, and a batch of 100.
func BenchmarkVault(b *testing.B) {
	h := newVaultHarness(b, func(c *server.Config) { c.Plaintext = true; c.TLS = server.TLS{} })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	url := "http://" + h.server.VaultAddr().String() + "/v1/transit/"
	send := func(path, body string) error {
		request, err := http.NewRequestWithContext(b.Context(), http.MethodPut, url+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("X-Vault-Token", h.token)
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err == nil && !bytes.Contains(text, []byte("vault:v1:")) && path != "keys/k" {
			b.Errorf("%d %s", answer.StatusCode, text)
		}
		return err
	}
	if err := send("keys/k", ""); err != nil {
		b.Fatal(err)
	}
	item := `{"plaintext":"` + b64(make([]byte, 32)) + `"}`
	for name, body := range map[string]string{"encrypt": item, "batch": `{"batch_input":[` + strings.Repeat(item+",", 99) + item + `]}`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := send("encrypt/k", body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
