package interop

import (
	"net/http"
	"os"
	"strings"
	"testing"

	vault "github.com/hashicorp/vault/api"
)

// newOwn is a try of Keywright with more settings of its section vault, if there is no peer.
func newOwn(t *testing.T, settings string) (*site, *try) {
	t.Helper()
	if isPeer() {
		t.Skip("the peer has no such settings")
	}
	s := newSite(t)
	s.write("keywrightd.yaml", s.read("keywrightd.yaml")+settings)
	s.serve()
	return s, newTry(t, s.target(), s.target().clients()["vault"])
}

// TestLikeOfOld has the settings that bring back what Vault does, or did.
func TestLikeOfOld(t *testing.T) {
	t.Parallel()
	_, c := newOwn(t, "  create_on_encrypt: true\n  lenient_batches: true\n")
	k := c.fresh()
	c.decrypts(k, c.encrypt(k, fields{"type": "chacha20-poly1305"}), nil)
	c.has(c.get("keys/"+k, nil), "type", "chacha20-poly1305")
	derived := c.fresh()
	c.encrypt(derived, fields{"context": b64("x")})
	c.has(c.get("keys/"+derived, nil), "derived", true)
	c.rewrapSome(http.StatusOK)
	c.someFails("hmac", "hmac", "hmac", http.StatusOK)
	c.someFails("sign", "ecdsa-p256", "signature", http.StatusOK)
}

// TestClientCertificate logs in without a token.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	s, c := newOwn(t, "")
	config := vault.DefaultConfig()
	config.Address = s.target().url
	if err := config.ConfigureTLS(&vault.TLSConfig{CACert: s.target().ca, ClientCert: s.file("data/tls/admin.pem"), ClientKey: s.file("data/tls/admin-key.pem")}); err != nil {
		t.Fatal(err)
	}
	client, err := vault.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.ClearToken()
	k := c.key(nil)
	made, err := client.Logical().Write("transit/encrypt/"+k, fields{"plaintext": b64(text)})
	if err != nil {
		t.Fatal(err)
	}
	c.decrypts(k, c.text(made.Data, "ciphertext"), nil)
	client.SetToken("wrong") // counts, whatever certificate comes with it
	if _, err := client.Logical().Write("transit/encrypt/"+k, fields{"plaintext": b64(text)}); err == nil {
		t.Error("a wrong token is let in with a certificate")
	}
}

// TestNoPlaintextExport keeps keys in a namespace that was not made to let them out.
func TestNoPlaintextExport(t *testing.T) {
	t.Parallel()
	s, c := newOwn(t, "")
	s.keywright("", "namespace", "create", "closed")
	s.keywright(strings.ReplaceAll(may, `"transit"`, `"closed"`), "policy", "put", "closed/app")
	for _, option := range []string{"exportable", "allow_plaintext_backup"} {
		c.refused(http.MethodPut, "/closed/keys/"+c.fresh(), fields{option: true})
	}
	k := c.fresh()
	c.put("/closed/keys/"+k, nil)
	c.refused(http.MethodPut, "/closed/keys/"+k+"/config", fields{"exportable": true})
	c.refused(http.MethodGet, "/closed/export/encryption-key/"+k, nil)
	c.refused(http.MethodGet, "/closed/backup/"+k, nil)
}

// TestAuditHasNoSecrets looks for what must never be in a log.
func TestAuditHasNoSecrets(t *testing.T) {
	t.Parallel()
	s, c := newOwn(t, "")
	k := c.key(movable)
	ciphertext := c.encrypt(k, fields{"context": "", "associated_data": b64("associated")})
	c.decrypts(k, ciphertext, fields{"associated_data": b64("associated")})
	backup := c.text(c.get("backup/"+k, nil), "backup")
	c.put("restore/"+k+"-new", fields{"backup": backup})
	key := c.text(c.inside(c.get("export/encryption-key/"+k, nil), "keys"), "1")
	files, err := os.ReadDir(s.file("data/audit"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var log strings.Builder
	for _, file := range files {
		if !file.IsDir() && !strings.HasSuffix(file.Name(), ".new") { // which is about to get its name
			log.WriteString(s.read("data/audit/" + file.Name()))
		}
	}
	if !strings.Contains(log.String(), k) {
		t.Fatal("the key's uses are not in the log")
	}
	for name, secret := range map[string]string{"plaintext": text, "plaintext in base64": b64(text), "token": s.token, "key": key, "backup": backup[:64]} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has the %s", name)
		}
	}
}
