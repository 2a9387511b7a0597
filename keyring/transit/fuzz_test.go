package transit

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/keywright/keywright/keyring"
)

// FuzzParseVersion: what is read is written the same, byte by byte.
func FuzzParseVersion(f *testing.F) {
	for _, seed := range []string{"vault:v1:YQ==", "vault:v4294967295:a", "vault:v01:a", "vault:v1:", "vault:v1:a:b", "vault"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, body, err := ParseVersion("ciphertext", text)
		if err != nil {
			wantInput(t, string(text), err, "ciphertext")
			return
		}
		if again := fmt.Sprintf("vault:v%d:%s", n, body); again != string(text) || n == 0 || len(body) == 0 {
			t.Errorf("%q is read as version %d of %q", text, n, body)
		}
	})
}

// FuzzDecrypt: an untouched ciphertext opens, and nothing else does, with any text, data
// and context.
func FuzzDecrypt(f *testing.F) {
	f.Add([]byte("plaintext"), []byte("data"), []byte("context"), uint(3))
	f.Add([]byte{}, []byte{}, []byte{0}, uint(200))
	f.Add(bytes.Repeat([]byte("long "), 100), []byte(nil), []byte("c"), uint(1<<20))
	var versions []*Version
	for _, s := range usable() {
		if s.Type.AcceptsAAD() {
			versions = append(versions, newTestVersion(f, s))
		}
	}
	f.Fuzz(func(t *testing.T, plaintext, aad, context []byte, flip uint) {
		for _, v := range versions {
			p := Params{AAD: aad}
			if v.settings.Derived {
				p.Context = append([]byte("c"), context...)
			}
			if v.settings.Convergent {
				p.AAD = nil
			}
			checkMalleability(t, v, plaintext, p, flip)
		}
	})
}

func checkMalleability(t *testing.T, v *Version, plaintext []byte, p Params, flip uint) {
	t.Helper()
	_, body, err := ParseVersion("ciphertext", must[[]byte](t)(v.Encrypt(nil, plaintext, p)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Decrypt(nil, body, p); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("%s: %x, %v", v.settings, got, err)
	}
	if _, err := v.Decrypt(nil, plaintext, p); err != keyring.ErrDecrypt {
		t.Fatalf("%s: opened a plaintext: %v", v.settings, err)
	}
	flip %= uint(8 * len(body))
	body[flip/8] ^= 1 << (flip % 8)
	if body[flip/8] == '\n' || body[flip/8] == '\r' {
		return // the decoder skips line breaks, as transit does
	}
	if _, err := v.Decrypt(nil, body, p); err != keyring.ErrDecrypt {
		t.Fatalf("%s: bit %d flipped: %v", v.settings, flip, err)
	}
}

// FuzzParseBackup: any JSON is refused, or is a key whose versions all work and which is
// read again as it was.
func FuzzParseBackup(f *testing.F) {
	for _, c := range readGolden(f, "vault").Cases {
		raw, err := base64.StdEncoding.DecodeString(c.Backup)
		if err != nil {
			f.Fatal(err)
		}
		if len(raw) < 4000 { // mutations of RSA keys are slow, and find less
			f.Add(raw)
		}
	}
	f.Add([]byte(`{"policy":{"latest_version":4294967295,"min_available_version":4294967295,"min_decryption_version":4294967295,"keys":{}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBackup(base64.StdEncoding.EncodeToString(raw))
		if forbidden(err) {
			return
		}
		if err != nil {
			wantInput(t, "a mutation", err, "backup")
			return
		}
		text, err := b.Encode()
		if err != nil {
			wantInput(t, "what was read", err, "backup") // of mixed derivations
			return
		}
		again, err := ParseBackup(text)
		if err != nil || describe(again) != describe(b) {
			t.Fatalf("read again: %v\n%s\ninstead of\n%s", err, describe(again), describe(b))
		}
	})
}

func TestRandomTextsDoNotOpen(t *testing.T) {
	for _, s := range usable() {
		if !s.Type.Encrypts() {
			continue
		}
		v := newTestVersion(t, s)
		for n := range 64 {
			raw := make([]byte, n)
			_, _ = rand.Read(raw)
			if _, err := v.Decrypt(nil, std.AppendEncode(nil, raw), params(s)); err != keyring.ErrDecrypt {
				t.Errorf("%s: %d bytes: %v", s, n, err)
			}
		}
	}
}
