package token

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seed    = bytes.Repeat([]byte{7}, ed25519.SeedSize)
	private = ed25519.NewKeyFromSeed(seed)
	issued  = time.Unix(1_800_000_000, 0).UTC()
)

func statement() Statement {
	return Statement{
		Installation: [16]byte{1, 2, 3}, Epoch: 4, ID: [16]byte{5}, Origin: [16]byte{6},
		Bearer: Bearer{Principal: "billing", Groups: []string{"staff", "ops"}},
		Issued: issued, Expires: issued.Add(time.Hour),
	}
}

// grandchild has everything that a token can have.
func grandchild() Statement {
	s := statement()
	s.Renewable = true
	s.Actions, s.Resources = []string{"Encrypt", "decrypter"}, []string{"pay", "pay/card"}
	s.Ancestors = []Link{
		{ID: [16]byte{7}, Bearer: Bearer{Principal: "parent", Resources: []string{"pay"}}, Issued: issued.Add(-time.Minute)},
		{ID: [16]byte{8}, Bearer: Bearer{Principal: "root", Groups: []string{"ops"}}, Issued: issued.Add(-time.Hour), Renewable: true},
	}
	return s
}

func verifier() *Verifier {
	return &Verifier{
		Installation: statement().Installation,
		Keys:         map[uint32]ed25519.PublicKey{4: private.Public().(ed25519.PublicKey)},
	}
}

func sign(t testing.TB, s Statement) string {
	t.Helper()
	text, err := Sign(s, private)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func repeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestVerifyReturnsTheStatement(t *testing.T) {
	longest := statement()
	longest.Principal = strings.Repeat("p", MaxName)
	longest.Groups = repeat(strings.Repeat("g", MaxName), MaxGroups)
	longest.Installation = [16]byte(bytes.Repeat([]byte{255}, 16))
	longest.Epoch = 1<<32 - 1
	longest.Expires = time.Unix(maxTime, 0).UTC()
	deepest := grandchild()
	deepest.Ancestors = append(deepest.Ancestors, deepest.Ancestors...)
	once := statement()
	once.Once = true
	shortest := Statement{Bearer: Bearer{Principal: "x"}, Issued: time.Unix(0, 0).UTC(), Expires: time.Unix(1<<31, 0).UTC()}
	for name, want := range map[string]Statement{"usual": statement(), "longest": longest, "grandchild": grandchild(), "deepest": deepest, "once": once, "shortest": shortest} {
		t.Run(name, func(t *testing.T) {
			v := &Verifier{Installation: want.Installation, Keys: map[uint32]ed25519.PublicKey{want.Epoch: private.Public().(ed25519.PublicKey)}}
			got, err := v.Verify(sign(t, want), issued)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

// TestText pins the text of a token, which every later release must accept.
func TestText(t *testing.T) {
	const want = "kwt_" +
		"2ToLQtXk0MZgPMwMwRcBPCV6U9Y7gJpKPFv3gcg7WPdIsw8YoBDnemCixKH59WxeAvudOgMaZ6SEQBkPgdzm8s8czk8rgsFGRJ2oWgUQbnxLsU" +
		"Be3rfqeMlSFcHDMwDomy8BhL7bk72NgnnvZVwzYLQpVc9BfV8d7fZwnBWsIsy0D9sZdiHciu87JDZ0sJPuKqw82Hmjbi6dCf1521XyvIP"
	if got := sign(t, statement()); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestVerifyRefuses(t *testing.T) {
	text := sign(t, statement())
	foreign := *verifier()
	foreign.Installation[0]++
	otherKey := &Verifier{Installation: statement().Installation, Keys: map[uint32]ed25519.PublicKey{
		4: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey)}}
	otherEpoch := &Verifier{Installation: statement().Installation, Keys: map[uint32]ed25519.PublicKey{5: verifier().Keys[4]}}
	tests := []struct {
		name string
		v    *Verifier
		text string
		now  time.Time
		want error
	}{
		{"valid at once", verifier(), text, issued, nil},
		{"valid within the clock skew", verifier(), text, issued.Add(-MaxSkew), nil},
		{"before that", verifier(), text, issued.Add(-MaxSkew - time.Nanosecond), ErrNotYetValid},
		{"valid in its last moment", verifier(), text, issued.Add(time.Hour - time.Nanosecond), nil},
		{"expired", verifier(), text, issued.Add(time.Hour), ErrExpired},
		{"another installation", &foreign, text, issued, ErrInstallation},
		{"another key", otherKey, text, issued, ErrSignature},
		{"unknown epoch", otherEpoch, text, issued, ErrSignature},
		{"no keys", &Verifier{Installation: statement().Installation}, text, issued, ErrSignature},
		{"empty", verifier(), "", issued, ErrMalformed},
		{"only the prefix", verifier(), Prefix, issued, ErrMalformed},
		{"only prefix and checksum", verifier(), Prefix + checksum(Prefix), issued, ErrMalformed},
		{"only a signature", verifier(), encode(bytes.Repeat([]byte{1}, 64)), issued, ErrMalformed},
		{"space around it", verifier(), " " + text, issued, ErrMalformed},
		{"newline after it", verifier(), text + "\n", issued, ErrMalformed},
		{"far too long", verifier(), text + strings.Repeat("a", 1<<20), issued, ErrMalformed},
		{"leading zero digit", verifier(), withChecksum(Prefix + "0" + body(text)), issued, ErrMalformed},
		{"a sign", verifier(), withChecksum(Prefix + "+" + body(text)), issued, ErrMalformed},
		{"an underscore inside", verifier(), withChecksum(Prefix + body(text)[:5] + "_" + body(text)[5:]), issued, ErrMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.v.Verify(test.text, test.now)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil && test.text != "" && strings.Contains(err.Error(), body(text)[:8]) {
				t.Fatal("the error holds a part of the token")
			}
		})
	}
}

func body(text string) string         { return text[len(Prefix) : len(text)-checksumDigits] }
func withChecksum(text string) string { return text + checksum(text) }

func TestVerifyRefusesEveryChangedCharacter(t *testing.T) {
	text, v := sign(t, statement()), verifier()
	for i := range text {
		for _, c := range "_" + digits {
			changed := text[:i] + string(c) + text[i+1:]
			if changed == text {
				continue
			}
			if _, err := v.Verify(changed, issued); err == nil {
				t.Fatalf("accepted with character %d changed to %q", i, c)
			}
			if i < len(Prefix) || i >= len(text)-checksumDigits {
				continue
			}
			if _, err := v.Verify(withChecksum(changed[:len(changed)-checksumDigits]), issued); err == nil {
				t.Fatalf("accepted with character %d changed to %q and the checksum made good", i, c)
			}
		}
		if _, err := v.Verify(text[:i], issued); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// TestVerifyRefusesPayloads signs payloads that Sign would never make.
func TestVerifyRefusesPayloads(t *testing.T) {
	payload, err := grandchild().marshal()
	if err != nil {
		t.Fatal(err)
	}
	p := func(n int, text string) []byte {
		return append([]byte{byte(n)}, bytes.Repeat(append([]byte{byte(len(text))}, text...), n)...)
	}
	ancestors := func(n int, flags byte) []byte {
		link := slices.Concat(make([]byte, 16), make([]byte, 8), []byte{flags}, []byte{1, 'x', 0, 0, 0})
		return append([]byte{byte(n)}, bytes.Repeat(link, n)...)
	}
	// lists ends a payload with these; what is a number is a list of so many texts, none.
	lists := func(parts ...any) []byte {
		out := bytes.Clone(payload[:78])
		out[69] = 0
		for _, part := range parts {
			if b, ok := part.([]byte); ok {
				out = append(out, b...)
			} else {
				out = append(out, 0)
			}
		}
		return out
	}
	good := lists(p(16, "g"), p(16, "a"), p(1, strings.Repeat("r", 127)), ancestors(4, 1))
	if s, ok := unmarshal(good); !ok || s.check() != nil {
		t.Fatal("the payload that the bad ones differ from is bad itself")
	}
	edit := func(f func([]byte) []byte) []byte { return f(bytes.Clone(payload)) }
	tests := map[string][]byte{
		"another version":    edit(func(p []byte) []byte { p[0] = 2; return p }),
		"trailing byte":      edit(func(p []byte) []byte { return append(p, 0) }),
		"unknown flag":       edit(func(p []byte) []byte { p[69] = 4; return p }),
		"once and a lease":   edit(func(p []byte) []byte { p[69] = 3; return p }),
		"once with parents":  edit(func(p []byte) []byte { p[69] = 2; return p }),
		"empty principal":    edit(func(p []byte) []byte { return append(p[:70], 0, 0, 0, 0, 0) }),
		"a group too few":    edit(func(p []byte) []byte { p[70+8]++; return p }),
		"a group too many":   edit(func(p []byte) []byte { p[70+8]--; return p }),
		"principal not text": edit(func(p []byte) []byte { p[71] = 0xff; return p }),
		"negative time":      edit(func(p []byte) []byte { p[53] = 0x80; return p }),
		"time past 9999":     edit(func(p []byte) []byte { p[63] = 1; return p }),
		"ends when issued":   edit(func(p []byte) []byte { copy(p[61:69], p[53:61]); return p }),
		"17 groups":          lists(p(17, "g"), 0, 0, 0),
		"64-byte group":      lists(p(1, strings.Repeat("g", 64)), 0, 0, 0),
		"17 actions":         lists(0, p(17, "a"), 0, 0),
		"empty action":       lists(0, p(1, ""), 0, 0),
		"17 resources":       lists(0, 0, p(17, "r"), 0),
		"128-byte resource":  lists(0, 0, p(1, strings.Repeat("r", 128)), 0),
		"five ancestors":     lists(0, 0, 0, ancestors(5, 0)),
		"flag of ancestor":   lists(0, 0, 0, ancestors(1, 2)),
	}
	for i := range payload {
		tests["cut at "+time.Duration(i).String()] = payload[:i]
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			text := encode(append(bytes.Clone(payload), ed25519.Sign(private, signed(payload))...))
			if _, err := verifier().Verify(text, issued); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
		})
	}
}

func TestSignatureIsBoundToItsDomain(t *testing.T) {
	payload, err := statement().marshal()
	if err != nil {
		t.Fatal(err)
	}
	text := encode(append(bytes.Clone(payload), ed25519.Sign(private, payload)...))
	if _, err := verifier().Verify(text, issued); !errors.Is(err, ErrSignature) {
		t.Fatalf("got %v, want ErrSignature", err)
	}
}

func TestSignRefuses(t *testing.T) {
	tests := map[string]func(*Statement){
		"no principal":        func(s *Statement) { s.Principal = "" },
		"long principal":      func(s *Statement) { s.Principal = strings.Repeat("p", MaxName+1) },
		"principal not UTF-8": func(s *Statement) { s.Principal = "\xff" },
		"too many groups":     func(s *Statement) { s.Groups = repeat("g", MaxGroups+1) },
		"empty group":         func(s *Statement) { s.Groups = []string{""} },
		"long group":          func(s *Statement) { s.Groups = []string{strings.Repeat("g", MaxName+1)} },
		"too many actions":    func(s *Statement) { s.Actions = repeat("a", MaxActions+1) },
		"long resource":       func(s *Statement) { s.Resources = []string{strings.Repeat("r", MaxResource+1)} },
		"too deep":            func(s *Statement) { s.Ancestors = make([]Link, MaxAncestors+1) },
		"nameless ancestor":   func(s *Statement) { s.Ancestors = make([]Link, 1) },
		"timeless ancestor":   func(s *Statement) { s.Ancestors = []Link{{Bearer: Bearer{Principal: "p"}}} },
		"lease for one call":  func(s *Statement) { s.Renewable, s.Once = true, true },
		"child for one call":  func(s *Statement) { *s = grandchild(); s.Renewable, s.Once = false, true },
		"too long in all": func(s *Statement) {
			s.Resources = repeat(strings.Repeat("r", MaxResource), MaxResources)
			for range 2 {
				s.Ancestors = append(s.Ancestors, s.Link())
			}
		},
		"issued before 1970":    func(s *Statement) { s.Issued = time.Unix(-1, 0) },
		"expires when issued":   func(s *Statement) { s.Expires = s.Issued.Add(time.Second - 1) },
		"expires after 9999":    func(s *Statement) { s.Expires = time.Unix(maxTime+1, 0) },
		"times were left unset": func(s *Statement) { s.Issued, s.Expires = time.Time{}, time.Time{} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := statement()
			change(&s)
			if text, err := Sign(s, private); !errors.Is(err, ErrStatement) || text != "" {
				t.Fatalf("got %q, %v; want ErrStatement", text, err)
			}
		})
	}
	if _, err := Sign(statement(), private[:10]); !errors.Is(err, ErrStatement) {
		t.Fatalf("short key: got %v", err)
	}
}

// FuzzVerify: whatever is accepted is exactly what Sign makes of the statement.
func FuzzVerify(f *testing.F) {
	f.Add(sign(f, statement()))
	f.Add(sign(f, grandchild()))
	f.Add(Prefix)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := verifier().Verify(text, issued)
		if err != nil {
			return
		}
		if again := sign(t, s); again != text {
			t.Fatalf("two texts for one statement")
		}
	})
}

// FuzzPayload: each payload that reads back to a valid statement is the only one of that statement.
func FuzzPayload(f *testing.F) {
	payload, err := grandchild().marshal()
	if err != nil {
		f.Fatal(err)
	}
	if _, ok := unmarshal(payload); !ok {
		f.Fatal("the seed does not parse")
	}
	f.Add(payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, ok := unmarshal(payload)
		if !ok || s.check() != nil {
			return
		}
		again, err := s.marshal()
		if err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("%x became %x, %v", payload, again, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	text, v := sign(b, statement()), verifier()
	for b.Loop() {
		if _, err := v.Verify(text, issued); err != nil {
			b.Fatal(err)
		}
	}
}
