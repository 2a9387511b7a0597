package transit

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring"
)

// The keys that the engines wrote into their backups are exported as they write them in
// exports: base64 of the same bytes, or PEM of the same key.
func TestExports(t *testing.T) {
	eachGolden(t, func(t *testing.T, c goldenCase, b *Backup) {
		s, n := b.Settings, b.LatestVersion
		e, _ := readKeyData(t, c.Backup).entry(n)
		for _, kind := range []ExportKind{EncryptionKey, SigningKey, HMACKey, PublicKey, "key"} {
			got, err := Export(s, kind, b.Versions[n].Material)
			switch {
			case kind == HMACKey && s.Type.name == "hmac":
				wantExport(t, got, err, base64.StdEncoding.EncodeToString(e.Key))
			case kind == HMACKey:
				wantExport(t, got, err, base64.StdEncoding.EncodeToString(e.HMACKey))
			case kind == PublicKey && e.PublicKey != "":
				wantExport(t, got, err, strings.TrimSpace(e.PublicKey))
			case kind == PublicKey && s.Type.rsa():
				v := must[*Version](t)(NewVersion(s, n, b.Versions[n].Material))
				wantExport(t, got, err, v.PublicKey())
				wantPEM(t, got, "PUBLIC KEY", x509.ParsePKIXPublicKey)
			case kind == EncryptionKey && s.Type.Encrypts() || kind == SigningKey && s.Type.Signs():
				wantPrivate(t, s, got, err, e)
			default:
				wantInput(t, string(kind), err, "type")
			}
		}
	})
}

func wantExport(t *testing.T, got string, err error, want string) {
	t.Helper()
	if err != nil || got != want {
		t.Errorf("%q, %v instead of %q", got, err, want)
	}
}

func wantPrivate(t *testing.T, s Settings, got string, err error, e keyEntry) {
	t.Helper()
	switch {
	case s.Type.rsa():
		key := wantPEM(t, got, "RSA PRIVATE KEY", x509.ParsePKCS1PrivateKey)
		if err != nil || !strings.HasSuffix(got, "\n") || key.D.Cmp(&e.RSA.D.Int) != 0 {
			t.Errorf("another key, %v", err)
		}
	case e.D != nil:
		key := wantPEM(t, got, "EC PRIVATE KEY", x509.ParseECPrivateKey)
		if err != nil || strings.HasSuffix(got, "\n") || !e.D.is(must[[]byte](t)(key.Bytes())) {
			t.Errorf("another key, %v", err)
		}
	default:
		wantExport(t, got, err, base64.StdEncoding.EncodeToString(e.Key))
	}
}

// wantPEM parses one block of a kind, and nothing behind it.
func wantPEM[K any](t *testing.T, text, kind string, parse func([]byte) (K, error)) K {
	t.Helper()
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != kind || len(rest) > 0 {
		t.Fatalf("no PEM of %s in %q", kind, text)
	}
	return must[K](t)(parse(block.Bytes))
}

// What a read of the key shows is the engine's text.
func TestPublicKeys(t *testing.T) {
	eachGolden(t, func(t *testing.T, c goldenCase, b *Backup) {
		e, _ := readKeyData(t, c.Backup).entry(b.LatestVersion)
		want := e.PublicKey
		if b.Settings.Derived {
			want = ""
		}
		got := must[*Version](t)(NewVersion(b.Settings, 1, b.Versions[b.LatestVersion].Material)).PublicKey()
		if b.Settings.Type.rsa() {
			wantPEM(t, got, "PUBLIC KEY", x509.ParsePKIXPublicKey)
		} else if got != want {
			t.Errorf("%q instead of %q", got, want)
		}
	})
}

func TestExportsOfOtherMaterial(t *testing.T) {
	ed, p256 := Settings{Type: typeOf(t, "ed25519")}, Settings{Type: typeOf(t, "ecdsa-p256")}
	m := must[keyring.Material](t)(ed.Generate(rand.Reader))
	m.Wipe()
	if _, err := Export(ed, SigningKey, m); !errors.Is(err, keyring.ErrInvalidMaterial) {
		t.Errorf("wiped: %v", err)
	}
	old := secret{key: make([]byte, 31)}
	old.key = append(old.key, 1)
	_, err := Export(p256, HMACKey, old.encode())
	wantInput(t, "no HMAC key", err, "type")
}
