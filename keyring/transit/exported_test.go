package transit

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// What Export writes, ParseBackup reads back to keys that open what was made before.
func TestExportsAreRead(t *testing.T) {
	for _, s := range usable() {
		kind := EncryptionKey
		switch {
		case s.Type.Name() == "hmac":
			kind = HMACKey
		case !s.Type.Encrypts():
			kind = SigningKey
		}
		keys, versions := map[string]string{}, map[uint32]*Version{}
		for n := uint32(2); n <= 3; n++ {
			m := newMaterial(t, s)
			text, err := Export(s, kind, m)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			keys[strconv.Itoa(int(n))] = text
			if versions[n], err = NewVersion(s, n, m); err != nil {
				t.Fatal(err)
			}
		}
		text, err := json.Marshal(map[string]any{"request_id": "x", "data": map[string]any{"name": "k", "type": s.Type.Name(), "keys": keys},
			"derived": s.Derived, "convergent_encryption": s.Convergent})
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseBackup(string(text))
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if o, err := ReadOutline(string(text)); err != nil || o.Versions != 2 || o.Settings != b.Settings {
			t.Errorf("%s: outlined %+v, %v", s, o, err)
		}
		if b.Name != "k" || b.LatestVersion != 3 || b.MinAvailableVersion != 2 || b.Settings.Derived != s.Derived || b.Settings.Type != s.Type {
			t.Errorf("%s: read %+v", s, b)
		}
		again, err := ParseBackup(string(text))
		if err != nil || string(again.Versions[2].Material.Bytes()) != string(b.Versions[2].Material.Bytes()) {
			t.Errorf("%s: read otherwise the second time, %v", s, err)
		}
		for n, old := range versions {
			v, err := NewVersion(b.Settings, n, b.Versions[n].Material)
			if err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			if !s.Type.Encrypts() {
				if v.PublicKey() != old.PublicKey() {
					t.Errorf("%s: another public key", s)
				}
				continue
			}
			sealed, err := old.Encrypt(nil, []byte("secret"), params(s))
			if err != nil {
				t.Fatal(err)
			}
			_, body, _ := ParseVersion("ciphertext", sealed)
			if plain, err := v.Decrypt(nil, body, params(s)); err != nil || string(plain) != "secret" {
				t.Errorf("%s: opened %q, %v", s, plain, err)
			}
		}
	}
}

func TestExportsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "is not a backup", `{"type":"des","keys":{"1":"eA=="}}`: "des", `{"type":"aes256-gcm96","keys":{"x":"eA=="}}`: "no number",
		`{"type":"aes256-gcm96","keys":{"1":"eA=="}}`: "version 1", `{"type":"aes256-gcm96","keys":{"1":"%"}}`: "base64",
		`{"type":"ecdsa-p256","keys":{"1":"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}}`: "no private key", `{`: "is not a backup",
	} {
		if _, err := ParseBackup(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
