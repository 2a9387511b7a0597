package keyring

import (
	"bytes"
	"crypto/fips140"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

const (
	testKeyID   = 0x0123456789abcdef
	testVersion = 7
)

// hexBytes is hex in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// usable are the rows that work in this process, of one purpose or of all ("").
func usable(p Purpose) []*Algorithm {
	var rows []*Algorithm
	for _, a := range Algorithms() {
		if (p == "" || a.purpose == p) && (a.fips || !fips140.Enforced()) {
			rows = append(rows, a)
		}
	}
	return rows
}

// row finds a row, and ends the test where FIPS mode refuses it.
func row(t testing.TB, name string) *Algorithm {
	t.Helper()
	a, ok := Lookup(name)
	if !ok {
		t.Fatalf("no algorithm %s", name)
	}
	if !a.fips && fips140.Enforced() {
		if err := a.Validate(Material{}); !errors.Is(err, ErrNotFIPS) {
			t.Fatalf("%s in FIPS mode: %v", name, err)
		}
		t.Skipf("%s is refused in FIPS mode, as it should be", name)
	}
	return a
}

// newTestVersion builds the golden key of a row.
func newTestVersion(t testing.TB, a *Algorithm) *Version {
	t.Helper()
	v, err := NewVersion(a, testKeyID, testVersion, goldenMaterial(t, a))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func publicHalf(t testing.TB, v *Version) *Version {
	t.Helper()
	der, err := v.PublicKeyDER()
	if err != nil {
		t.Fatal(err)
	}
	p, err := PublicVersion(v.algorithm, v.KeyID(), v.Number(), der)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// slowToGenerate tells which rows differ from a quicker one by the modulus or the
// scheme alone: a 4096-bit key takes seconds.
func slowToGenerate(a *Algorithm) bool {
	_, isRSA := a.keys.(rsaKeys)
	return isRSA && a.name != "RSA_PSS_2048_SHA256"
}

// seeded is a reproducible source of bytes.
func seeded(seed string) *sha3.SHAKE {
	s := sha3.NewSHAKE128()
	_, _ = s.Write([]byte(seed))
	return s
}

// projectRoot is the folder of go.mod.
var projectRoot = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
})

// unavailable skips a test for want of something, and fails it in CI.
func unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// readVectors reads a file of published vectors. KEYWRIGHT_VECTORS may also name
// a Wycheproof checkout.
func readVectors(t testing.TB, name string, into any) {
	t.Helper()
	folder := os.Getenv("KEYWRIGHT_VECTORS")
	if folder == "" {
		folder = filepath.Join(must[string](t)(projectRoot()), "..", "shared", "vectors")
	}
	for _, sub := range []string{"", "wycheproof", "testvectors_v1"} {
		b, err := os.ReadFile(filepath.Join(folder, sub, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	unavailable(t, "no vectors %s below %s: set KEYWRIGHT_VECTORS to a Wycheproof checkout", name, folder)
}

// flips calls f with each single-bit change of one byte and then restores it.
func flips(b []byte, f func(i int, changed []byte)) {
	changed := bytes.Clone(b)
	for i := range changed {
		changed[i] ^= 1 << (i % 8)
		f(i, changed)
		changed[i] = b[i]
	}
}
