package keyring

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
)

// contexts.json is published: other implementations build the same bytes.
type contextVectors struct {
	Valid []struct {
		Comment   string            `json:"comment"`
		Pairs     map[string]string `json:"pairs"`
		Canonical hexBytes          `json:"canonical"`
	} `json:"valid"`
	Refused []struct {
		Comment   string   `json:"comment"`
		Canonical hexBytes `json:"canonical"`
	} `json:"refused"`
}

func readContextVectors(t testing.TB) contextVectors {
	t.Helper()
	var v contextVectors
	b := must[[]byte](t)(os.ReadFile("testdata/contexts.json"))
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Valid) < 5 || len(v.Refused) < 10 {
		t.Fatalf("only %d and %d vectors", len(v.Valid), len(v.Refused))
	}
	return v
}

func TestContextVectors(t *testing.T) {
	vectors := readContextVectors(t)
	for _, c := range vectors.Valid {
		got, err := CanonicalContext(c.Pairs)
		if err != nil || !bytes.Equal(got, c.Canonical) {
			t.Errorf("%s: %x, %v", c.Comment, got, err)
		}
		if pairs, err := ParseContext(c.Canonical); err != nil || !maps.Equal(pairs, c.Pairs) {
			t.Errorf("%s: parsed to %v, %v", c.Comment, pairs, err)
		}
	}
	for _, c := range vectors.Refused {
		if pairs, err := ParseContext(c.Canonical); !errors.Is(err, ErrInput) || pairs != nil {
			t.Errorf("%s: %v, %v", c.Comment, pairs, err)
		}
	}
}

func TestContextTruncation(t *testing.T) {
	full := must[[]byte](t)(CanonicalContext(map[string]string{"a": "1", "bb": "22"}))
	for n := 1; n < len(full); n++ {
		if pairs, err := ParseContext(full[:n]); !errors.Is(err, ErrInput) {
			t.Errorf("%d bytes: %v, %v", n, pairs, err)
		}
	}
}

func TestContextLimits(t *testing.T) {
	fixed := 3 * lengthSize // the count and two lengths
	longest := map[string]string{"k": strings.Repeat("v", MaxContext-fixed-1)}
	b, err := CanonicalContext(longest)
	if err != nil || len(b) != MaxContext {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if pairs, err := ParseContext(b); err != nil || !maps.Equal(pairs, longest) {
		t.Error(err)
	}
	for name, pairs := range map[string]map[string]string{
		"too long":     {"k": strings.Repeat("v", MaxContext-fixed)},
		"bad key":      {"\xff": "v"},
		"bad value":    {"k": "a\xc3"},
		"surrogate":    {"k": "\xed\xa0\x80"},
		"far too long": {strings.Repeat("k", 1<<20): ""},
	} {
		got, err := CanonicalContext(pairs)
		var input *InputError
		if !errors.As(err, &input) || input.Field != "encryption_context" || got != nil {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	tooLong := binary.BigEndian.AppendUint32(nil, 1)
	tooLong = appendString(appendString(tooLong, "k"), strings.Repeat("v", MaxContext))
	if _, err := ParseContext(tooLong); !errors.Is(err, ErrInput) {
		t.Errorf("parsing more than the limit: %v", err)
	}
}

func TestEmptyContextIsNone(t *testing.T) {
	for _, pairs := range []map[string]string{nil, {}} {
		if b, err := CanonicalContext(pairs); b != nil || err != nil {
			t.Errorf("%x, %v", b, err)
		}
	}
	if pairs, err := ParseContext(nil); pairs != nil || err != nil {
		t.Errorf("%v, %v", pairs, err)
	}
}

// FuzzParseContext: what parses is canonical, byte for byte, so no two forms
// have the same pairs.
func FuzzParseContext(f *testing.F) {
	vectors := readContextVectors(f)
	for _, v := range vectors.Valid {
		f.Add([]byte(v.Canonical))
	}
	for _, v := range vectors.Refused {
		f.Add([]byte(v.Canonical))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseContext(b)
		if err != nil {
			return
		}
		if again, err := CanonicalContext(pairs); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x has the canonical form %x, %v", b, again, err)
		}
	})
}

// FuzzCanonicalContext: different pairs have different forms, equal pairs equal
// forms, and each form gives its pairs back.
func FuzzCanonicalContext(f *testing.F) {
	f.Add("a", "b", "c", "d", "a", "b", "c", "d")
	f.Add("a", "bc", "d", "", "ab", "c", "d", "")
	f.Add("", "", "", "x", "", "x", "", "")
	f.Add("a\x00", "b", "a", "\x00b", "a", "\x00b", "a\x00", "b")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, k3, v3, k4, v4 string) {
		left, right := map[string]string{k1: v1, k2: v2}, map[string]string{k3: v3, k4: v4}
		a, errA := CanonicalContext(left)
		b, errB := CanonicalContext(right)
		if errA != nil || errB != nil {
			return
		}
		if bytes.Equal(a, b) != maps.Equal(left, right) {
			t.Errorf("%q and %q: %x and %x", left, right, a, b)
		}
		if back, err := ParseContext(a); err != nil || !maps.Equal(back, left) {
			t.Errorf("%q came back as %q, %v", left, back, err)
		}
	})
}
