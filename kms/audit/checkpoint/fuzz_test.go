package checkpoint

import (
	"bytes"
	"testing"
)

func FuzzParseText(f *testing.F) {
	f.Add(sample().Text())
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseText(text); err == nil && c.Text() != text {
			t.Fatalf("parsed %q, writes %q", text, c.Text())
		}
	})
}

func FuzzPeek(f *testing.F) {
	key, m := newEd25519(f, origin, 'a')
	f.Add(mustSign(f, sample(), key, m))
	f.Fuzz(func(t *testing.T, signed []byte) {
		c, err := Peek(signed)
		if err == nil && !bytes.HasPrefix(signed, []byte(c.Text()+"\n")) {
			t.Fatalf("peeked %q into %q", c.Text(), signed)
		}
		if opened, err := Open(signed, key); err == nil && opened != sample() {
			t.Fatalf("opened %q, which was never signed", signed)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	first, _ := newEd25519(f, origin, 'a')
	second, _ := newECDSA(f, origin)
	third, _ := cosigner(f, "witness.example/w1")
	for _, key := range []Key{first, second, third} {
		f.Add(key.String())
	}
	f.Fuzz(func(t *testing.T, vkey string) {
		if key, err := ParseKey(vkey); err == nil && key.String() != vkey {
			t.Fatalf("parsed %q, writes %q", vkey, key)
		}
	})
}

// FuzzParseSuccession: nothing parses but what the keys signed: a beginning of
// the succession, or one of strangers, which has another first key.
func FuzzParseSuccession(f *testing.F) {
	k := newKeys(f)
	f.Add(k.whole.Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSuccession(text)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Text(), text) {
			t.Fatalf("parsed %q, writes %q", text, s.Text())
		}
		spans, _, err := s.Trusted(s.First())
		if err != nil || len(spans) == 0 || spans[0].From != 0 {
			t.Fatalf("%q: %v (%v)", text, spans, err)
		}
	})
}

func FuzzParseProof(f *testing.F) {
	key, m := newEd25519(f, origin, 'a')
	f.Add(Proof{Extra: []byte("x"), Index: 3, Hashes: [][32]byte{{1}, {2}}, Note: mustSign(f, sample(), key, m)}.Text())
	f.Add(Proof{Note: mustSign(f, sample(), key, m)}.Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := ParseProof(text); err == nil && !bytes.Equal(p.Text(), text) {
			t.Fatalf("parsed %q, writes %q", text, p.Text())
		}
	})
}
