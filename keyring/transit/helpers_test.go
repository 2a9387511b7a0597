package transit

import (
	"bytes"
	"crypto/fips140"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"sync"
	"testing"

	"github.com/keywright/keywright/keyring"
)

// must returns a value that came without an error.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func typeOf(t testing.TB, name string) *Type {
	t.Helper()
	typ, ok := LookupType(name)
	if !ok {
		t.Fatalf("no type %s", name)
	}
	return typ
}

// usable are the settings that fit together, and work in this process, but for large RSA
// keys: those take long to make, and the golden files have some.
func usable() []Settings {
	var all []Settings
	for _, typ := range Types() {
		if typ.name == "rsa-3072" || typ.name == "rsa-4096" {
			continue
		}
		for _, s := range []Settings{{Type: typ}, {Type: typ, Derived: true}, {Type: typ, Derived: true, Convergent: true}} {
			if s.usable() == nil {
				all = append(all, s)
			}
		}
	}
	return all
}

var rsaMaterial sync.Map // of Settings: makes tests faster

// newMaterial makes a key, of RSA always the same.
func newMaterial(t testing.TB, s Settings) keyring.Material {
	t.Helper()
	made, ok := rsaMaterial.Load(s)
	if !ok {
		m := must[keyring.Material](t)(s.Generate(rand.Reader))
		if !s.Type.rsa() {
			return m
		}
		made, _ = rsaMaterial.LoadOrStore(s, m)
	}
	return keyring.NewMaterial(bytes.Clone(made.(keyring.Material).Bytes()))
}

// newTestVersion makes version 7 of a fresh key.
func newTestVersion(t testing.TB, s Settings) *Version {
	t.Helper()
	if fips140.Enforced() && s.usable() != nil {
		t.Skipf("%s is refused in FIPS mode", s)
	}
	m := newMaterial(t, s)
	defer m.Wipe()
	v, err := NewVersion(s, 7, m)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// params are those that a key of s needs.
func params(s Settings) Params {
	if s.Derived {
		return Params{Context: []byte("context")}
	}
	return Params{}
}

func readKeyData(t testing.TB, text string) *keyData {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var d keyData
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}
