package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestVaultIsOffUnlessConfigured(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"vault:\n":                           "",
		"vault: {}\n":                        DefaultVaultAddress,
		"vault: {address: '127.0.0.1:1'}\n":  "127.0.0.1:1",
		"vault: {create_on_encrypt: true}\n": DefaultVaultAddress,
		"vault: {mounts: [{path: a/b, namespace: c, vault_namespace: d}]}\n": DefaultVaultAddress,
	} {
		c, problems := Parse([]byte(minimal + text))
		if len(problems) > 0 {
			t.Fatalf("%q: %v", text, problems)
		}
		if got := c.Vault.Of().Address; got != want {
			t.Errorf("%q: address %q, want %q", text, got, want)
		}
	}
}

func TestVaultRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"vault: {address: nowhere}\n":                                           "vault.address",
		"vault: {address: '127.0.0.1:7701'}\n":                                  "vault.address",
		"vault: {max_body_bytes: 1KiB}\n":                                       "vault.max_body_bytes",
		"vault: {mounts: [{path: a}]}\n":                                        "vault.mounts[0].namespace",
		"vault: {mounts: [{path: /a, namespace: b}]}\n":                         "without slashes",
		"vault: {mounts: [{path: sys/x, namespace: b}]}\n":                      "the server's own",
		"vault: {mounts: [{path: a, namespace: b}, {path: a, namespace: c}]}\n": "given twice",
		"vault: {lenient: true}\n":                                              "lenient is unknown",
	} {
		path := filepath.Join(t.TempDir(), "keywrightd.yaml")
		if err := os.WriteFile(path, []byte(minimal+text), 0o600); err != nil {
			t.Fatal(err)
		}
		told := ""
		if _, err := Load(path); err != nil {
			told = err.Error()
		}
		if !strings.Contains(told, want) {
			t.Errorf("%q: %q, want %q", text, told, want)
		}
	}
}
