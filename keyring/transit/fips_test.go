package transit

import (
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring"
)

const fipsChild = "KEYWRIGHT_TEST_FIPS_CHILD"

// TestFIPSOnly runs all tests of the package again where the standard library
// enforces FIPS 140-3.
func TestFIPSOnly(t *testing.T) {
	if os.Getenv(fipsChild) != "" {
		if !fips140.Enforced() {
			t.Fatal("the child process does not enforce FIPS 140-3")
		}
		return
	}
	if fips140.Enforced() {
		t.Skip("the whole run enforces FIPS 140-3 already")
	}
	t.Parallel()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.timeout=5m")
	child.Env = append(os.Environ(), "GODEBUG=fips140=only", fipsChild+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, failures(string(out)))
	}
	for _, name := range []string{"TestFIPSOnly", "TestGoldenCiphertexts/vault/aes256-gcm96", "TestSettingsAreHonestAboutFIPS"} {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass in the child process", name)
		}
	}
}

// failures leaves out what passed.
func failures(log string) string {
	var kept []string
	for line := range strings.Lines(log) {
		if trimmed := strings.TrimSpace(line); !strings.HasPrefix(trimmed, "=== ") && !strings.HasPrefix(trimmed, "--- PASS") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// Run in both modes: what FIPS 140-3 approves of works in both, the rest fails where it is
// enforced, with ErrNotFIPS.
func TestSettingsAreHonestAboutFIPS(t *testing.T) {
	for _, typ := range Types() {
		for _, s := range []Settings{{Type: typ}, {Type: typ, Derived: true}, {Type: typ, Derived: true, Convergent: true}} {
			if s.Check() != nil {
				continue
			}
			var generate error
			if !typ.rsa() { // which takes long, and is all the same to FIPS mode
				_, generate = s.Generate(rand.Reader)
			}
			_, imported := s.Import(rand.Reader, nil)
			_, build := NewVersion(s, 1, keyring.Material{})
			_, external := NewExternalVersion(s, 1, nil, keyring.Material{}, nil)
			want := fips140.Enforced() && (strings.Contains(typ.Name(), "chacha") || s.Convergent)
			for call, err := range map[string]error{"generate": generate, "import": imported, "build": build, "external": external} {
				if errors.Is(err, keyring.ErrNotFIPS) != want {
					t.Errorf("%s: %s: %v", s, call, err)
				}
			}
		}
	}
}

func TestFIPSRefusesByName(t *testing.T) {
	if !fips140.Enforced() {
		t.Skip("FIPS 140-3 is not enforced here; TestFIPSOnly runs this")
	}
	v := newTestVersion(t, Settings{Type: typeOf(t, "rsa-2048")})
	_, _, sha1 := v.Sign(nil, nil, SignOptions{HashAlgorithm: "sha1"})
	_, _, none := v.Sign(nil, nil, SignOptions{HashAlgorithm: "none", Prehashed: true, Algorithm: "pkcs1v15"})
	_, _, salt := v.Sign(nil, nil, SignOptions{SaltLength: "100"})
	_, encrypt := v.Encrypt(nil, nil, Params{Padding: "pkcs1v15"})
	_, decrypt := v.Decrypt(nil, nil, Params{Padding: "pkcs1v15"})
	_, hmac := v.HMAC(nil, nil, "sha1")
	for what, err := range map[string]error{"sha1": sha1, "none": none, "salt": salt, "encrypt": encrypt, "decrypt": decrypt, "hmac": hmac} {
		if !errors.Is(err, keyring.ErrNotFIPS) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
