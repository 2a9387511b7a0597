package checkpoint

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

const origin = "keywright/00112233445566778899aabbccddeeff"

// memory signs with a private key in memory, in the forms of an HSM.
type memory struct{ private crypto.Signer }

func (m memory) Sign(_ context.Context, message []byte) ([]byte, error) {
	if _, ok := m.private.(ed25519.PrivateKey); ok {
		return m.private.Sign(nil, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return m.private.Sign(rand.Reader, sum[:], crypto.SHA256)
}

func newEd25519(t testing.TB, name string, seed byte) (Key, memory) {
	t.Helper()
	m := memory{ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32)))}
	return named(t, name, m), m
}

func newECDSA(t testing.TB, name string) (Key, memory) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := memory{private}
	return named(t, name, m), m
}

func named(t testing.TB, name string, m memory) Key {
	t.Helper()
	key, err := NewKey(name, m.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sample() Checkpoint {
	return Checkpoint{Origin: origin, Size: 1042, Root: sha256.Sum256([]byte("root")), Epoch: 7}
}

func mustSign(t testing.TB, c Checkpoint, key Key, m memory) []byte {
	t.Helper()
	signed, err := Sign(t.Context(), c, key, m)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestText(t *testing.T) {
	const want = origin + "\n1042\nSBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=\nkeywright-epoch 7\n"
	got := sample().Text()
	if got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
	if back, err := ParseText(got); err != nil || back != sample() {
		t.Errorf("parsed %+v (%v)", back, err)
	}
}

func TestSignAndOpen(t *testing.T) {
	first, firstSigner := newEd25519(t, origin, 'a')
	second, secondSigner := newECDSA(t, origin)
	stranger, _ := newEd25519(t, origin, 'x')
	for _, test := range []struct {
		key    Key
		signer memory
	}{{first, firstSigner}, {second, secondSigner}} {
		signed := mustSign(t, sample(), test.key, test.signer)
		for _, keys := range [][]Key{{test.key}, {test.key, test.key}, {stranger, test.key}} {
			if c, err := Open(signed, keys...); err != nil || c != sample() {
				t.Errorf("algorithm %d: %+v (%v)", test.key.Algorithm(), c, err)
			}
		}
		if c, err := Peek(signed); err != nil || c != sample() {
			t.Errorf("peek: %+v (%v)", c, err)
		}
		for _, keys := range [][]Key{nil, {stranger}} {
			if _, err := Open(signed, keys...); !errors.Is(err, ErrSignature) {
				t.Errorf("opened with %v: %v", keys, err)
			}
		}
		if back, err := ParseKey(test.key.String()); err != nil || !back.Equal(test.key) {
			t.Errorf("%s came back as %s (%v)", test.key, back, err)
		}
	}
	if _, err := Sign(t.Context(), sample(), first, secondSigner); !errors.Is(err, ErrSignature) {
		t.Errorf("a signature of another key was believed: %v", err)
	}
	other := sample()
	other.Origin = "keywright/other"
	if _, err := Open(mustSign(t, other, first, firstSigner), first); !errors.Is(err, ErrOrigin) {
		t.Errorf("opened a checkpoint of another origin: %v", err)
	}
	bad := sample()
	bad.Origin = "two words"
	if _, err := Sign(t.Context(), bad, first, firstSigner); !errors.Is(err, ErrForm) {
		t.Errorf("signed a bad origin: %v", err)
	}
}

// TestNoBitOfANoteMayChange flips each bit of the text and of the signature.
func TestNoBitOfANoteMayChange(t *testing.T) {
	key, m := newEd25519(t, origin, 'a')
	signed := mustSign(t, sample(), key, m)
	for i := range signed {
		for bit := range 8 {
			changed := append([]byte(nil), signed...)
			changed[i] ^= 1 << bit
			if _, err := Open(changed, key); err == nil {
				t.Fatalf("bit %d of byte %d changed without effect: %q", bit, i, changed)
			}
		}
	}
}

// TestPublishedNote is the example of C2SP signed-note.
func TestPublishedNote(t *testing.T) {
	key, err := ParseKey("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
	if err != nil {
		t.Fatal(err)
	}
	const signed = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
	n, err := openNote([]byte(signed), key)
	if err != nil || n.Text != "This is an example message.\n" {
		t.Errorf("%v (%v)", n, err)
	}
}

func TestParseTextRefuses(t *testing.T) {
	good := sample().Text()
	line := strings.SplitAfter(good, "\n")
	for name, text := range map[string]string{
		"nothing":          "",
		"no newline":       strings.TrimSuffix(good, "\n"),
		"no epoch":         line[0] + line[1] + line[2],
		"more lines":       good + "more\n",
		"empty line":       good + "\n",
		"no origin":        "\n" + line[1] + line[2] + line[3],
		"space in origin":  "a b\n" + line[1] + line[2] + line[3],
		"plus in origin":   "a+b\n" + line[1] + line[2] + line[3],
		"long origin":      strings.Repeat("a", 256) + "\n" + line[1] + line[2] + line[3],
		"leading zero":     line[0] + "01\n" + line[2] + line[3],
		"signed size":      line[0] + "+1\n" + line[2] + line[3],
		"negative size":    line[0] + "-1\n" + line[2] + line[3],
		"size too large":   line[0] + "9223372036854775808\n" + line[2] + line[3],
		"short root":       line[0] + line[1] + "AAAA\n" + line[3],
		"loose base64":     line[0] + line[1] + strings.Repeat("A", 42) + "B=\n" + line[3],
		"carriage return":  line[0] + line[1] + strings.Replace(line[2], "\n", "\r\n", 1) + line[3],
		"other extension":  line[0] + line[1] + line[2] + "colour red\n",
		"epoch too large":  line[0] + line[1] + line[2] + "keywright-epoch 18446744073709551616\n",
		"epoch with space": line[0] + line[1] + line[2] + "keywright-epoch  7\n",
	} {
		if c, err := ParseText(text); !errors.Is(err, ErrForm) || c != (Checkpoint{}) {
			t.Errorf("%s: %+v, %v; want ErrForm", name, c, err)
		}
	}
}

func TestKeyRefuses(t *testing.T) {
	key, _ := newEd25519(t, origin, 'x') // its id has a letter
	parts := strings.Split(key.String(), "+")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(b ...byte) string { return base64.StdEncoding.EncodeToString(b) }
	for name, vkey := range map[string]string{
		"nothing":        "",
		"a name":         "name",
		"no data":        parts[0] + "+" + parts[1],
		"empty data":     parts[0] + "+" + parts[1] + "+",
		"wrong id":       parts[0] + "+00000000+" + strings.Join(parts[2:], "+"),
		"upper case id":  parts[0] + "+" + strings.ToUpper(parts[1]) + "+" + strings.Join(parts[2:], "+"),
		"no name":        "+" + parts[1] + "+" + strings.Join(parts[2:], "+"),
		"unknown type":   parts[0] + "+00000000+" + raw(9, 1, 2, 3),
		"short key":      parts[0] + "+00000000+" + raw(1, 1, 2, 3),
		"ECDSA, garbage": parts[0] + "+00000000+" + raw(2, 1, 2, 3),
	} {
		if _, err := ParseKey(vkey); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v, want ErrForm", name, err)
		}
	}
	for name, public := range map[string]crypto.PublicKey{"P-384": &p384.PublicKey, "another type": []byte("key"), "none": nil} {
		if _, err := NewKey(origin, public); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v, want ErrForm", name, err)
		}
	}
	if _, err := NewKey("two words", p384.Public()); !errors.Is(err, ErrForm) {
		t.Errorf("bad name: %v", err)
	}
	if (Key{}).Verify(nil, nil) {
		t.Error("no key verifies")
	}
}

// cosigner is a witness's key and what it signs.
func cosigner(t testing.TB, name string) (Key, func(text string, at uint64) string) {
	t.Helper()
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat("w", 32)))
	key, err := newKey(name, Cosignature, private.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return key, func(text string, at uint64) string {
		raw := binary.BigEndian.AppendUint32(nil, key.KeyHash())
		raw = binary.BigEndian.AppendUint64(raw, at)
		raw = append(raw, ed25519.Sign(private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))...)
		return "— " + name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
	}
}

func TestCosignature(t *testing.T) {
	key, m := newEd25519(t, origin, 'a')
	signed := mustSign(t, sample(), key, m)
	witness, cosign := cosigner(t, "witness.example/w1")
	both := append(signed[:len(signed):len(signed)], cosign(sample().Text(), 1679315147)...)
	if c, err := Open(both, key); err != nil || c != sample() {
		t.Errorf("cosigned: %v", err)
	}
	if n, err := openNote(both, witness); err != nil || len(n.Sigs) != 1 {
		t.Errorf("cosignature: %v", err)
	}
	if _, err := Open(both, witness); !errors.Is(err, ErrSignature) {
		t.Errorf("a witness's signature passed for the log's: %v", err)
	}
	if _, err := openNote(append(signed[:len(signed):len(signed)], cosign("other text\n", 1)...), witness); !errors.Is(err, ErrSignature) {
		t.Errorf("a cosignature of another text: %v", err)
	}
	if _, err := openNote(append(signed[:len(signed):len(signed)], cosign(sample().Text(), 0)...), witness); !errors.Is(err, ErrSignature) {
		t.Errorf("a cosignature without time: %v", err)
	}
}

func TestProof(t *testing.T) {
	key, m := newEd25519(t, origin, 'a')
	lines := []string{"zero", "one", "two"}
	var leaves []tlog.Hash
	for _, line := range lines {
		leaves = append(leaves, tlog.RecordHash([]byte(line)))
	}
	left := tlog.NodeHash(leaves[0], leaves[1])
	c := Checkpoint{Origin: origin, Size: 3, Root: tlog.NodeHash(left, leaves[2])}
	p := Proof{Extra: []byte("one"), Index: 1, Hashes: [][32]byte{leaves[0], leaves[2]}, Note: mustSign(t, c, key, m)}
	back, err := ParseProof(p.Text())
	if err != nil || string(back.Text()) != string(p.Text()) || string(back.Extra) != "one" {
		t.Fatalf("came back as %+v (%v)", back, err)
	}
	if got, err := back.Verify([]byte("one"), key); err != nil || got != c {
		t.Errorf("%+v (%v)", got, err)
	}
	stranger, _ := newEd25519(t, origin, 'x')
	moved, beyond, short := back, back, back
	moved.Index, beyond.Index, short.Hashes = 0, 3, back.Hashes[:1]
	for name, err := range map[string]error{
		"another line": second(back.Verify([]byte("two"), key)), "another index": second(moved.Verify([]byte("one"), key)),
		"beyond": second(beyond.Verify([]byte("one"), key)), "a hash less": second(short.Verify([]byte("one"), key)),
	} {
		if !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v, want ErrProof", name, err)
		}
	}
	if _, err := back.Verify([]byte("one"), stranger); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
