package keyring

import (
	"crypto/fips140"
	"crypto/rsa"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// outsideFIPS tells that FIPS mode refuses the key itself, small RSA exponents
// that is, whatever the signature.
func outsideFIPS(v *Version) bool {
	p, _ := v.PublicKey()
	key, ok := p.(*rsa.PublicKey)
	return ok && key.E < smallestExponent && fips140.Enforced()
}

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
	for _, name := range []string{"TestFIPSOnly", "TestGoldenCiphertexts/XAES_256_GCM", "TestTheTableIsHonestAboutFIPS"} {
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

// Run in both modes: rows marked FIPS work in FIPS mode, the others fail there
// with ErrNotFIPS, and all work elsewhere.
func TestTheTableIsHonestAboutFIPS(t *testing.T) {
	for _, a := range Algorithms() {
		m := goldenMaterial(t, a)
		_, buildErr := NewVersion(a, 1, 1, m)
		_, publicErr := PublicVersion(a, 1, 1, nil)
		var generateErr error
		if !slowToGenerate(a) {
			_, generateErr = a.Generate(seeded(a.name))
		}
		for call, err := range map[string]error{"build": buildErr, "validate": a.Validate(m), "public": publicErr, "generate": generateErr} {
			refused := errors.Is(err, ErrNotFIPS)
			if want := fips140.Enforced() && !a.fips; refused != want || !refused && err != nil && call != "public" {
				t.Errorf("%s: %s: %v", a.name, call, err)
			}
		}
	}
}

func TestDefaultsAreFIPS(t *testing.T) {
	for _, p := range []Purpose{PurposeEncryptDecrypt, PurposeSignVerify, PurposeMAC, PurposeAsymmetricDecrypt, PurposeKeyAgreement} {
		a := Default(p)
		if a == nil || a.Purpose() != p || !a.FIPS() {
			t.Errorf("default for %s is %v", p, a)
		}
	}
	if a := Default("RAW"); a != nil {
		t.Errorf("default for an unknown purpose is %s", a)
	}
}
