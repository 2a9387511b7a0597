package transit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/keywright/keywright/keyring"
)

func TestTypes(t *testing.T) {
	const want = `aes128-gcm96 AES_128_GCM encrypts derives converges random
aes256-gcm96 AES_256_GCM encrypts derives converges random
chacha20-poly1305 CHACHA20_POLY1305 encrypts derives converges random
xchacha20-poly1305 XCHACHA20_POLY1305 encrypts derives converges
ed25519 ED25519 signs derives asymmetric
ecdsa-p256 ECDSA_P256_SHA256 signs asymmetric
ecdsa-p384 ECDSA_P384_SHA384 signs asymmetric
ecdsa-p521 ECDSA_P521_SHA512 signs asymmetric
rsa-2048 RSA_PSS_2048_SHA256 encrypts signs asymmetric
rsa-3072 RSA_PSS_3072_SHA256 encrypts signs asymmetric
rsa-4096 RSA_PSS_4096_SHA256 encrypts signs asymmetric
hmac HMAC_SHA256
`
	var got strings.Builder
	for _, typ := range Types() {
		fmt.Fprint(&got, typ, " ", typ.Algorithm())
		for name, is := range map[string]bool{"decrypts": typ.Decrypts() != typ.Encrypts(), "aad": typ.AcceptsAAD() != typ.Converges()} {
			if is {
				t.Errorf("%s: %s", typ, name)
			}
		}
		for _, p := range []struct {
			name string
			is   bool
		}{{"encrypts", typ.Encrypts()}, {"signs", typ.Signs()}, {"derives", typ.Derives()}, {"converges", typ.Converges()}, {"asymmetric", typ.Asymmetric()}, {"random", typ.Random()}} {
			if p.is {
				fmt.Fprint(&got, " ", p.name)
			}
		}
		fmt.Fprintln(&got)
		if found, ok := LookupType(typ.Name()); !ok || found != typ {
			t.Errorf("%s is not found", typ)
		}
	}
	if got.String() != want {
		t.Errorf("types:\n%s\ninstead of\n%s", got.String(), want)
	}
	if _, ok := LookupType("AES256-GCM96"); ok {
		t.Error("found by another name")
	}
}

// wantInput asserts an InputError that names the field.
func wantInput(t *testing.T, what string, err error, field string) {
	t.Helper()
	var refused *keyring.InputError
	if !errors.As(err, &refused) || refused.Field != field || refused.Reason == "" {
		t.Errorf("%s: %v, want one about %s", what, err, field)
	}
}

func TestSettingsThatDoNotFit(t *testing.T) {
	aes, rsa, ed := typeOf(t, "aes256-gcm96"), typeOf(t, "rsa-2048"), typeOf(t, "ed25519")
	for _, x := range []struct {
		s     Settings
		field string
	}{
		{Settings{}, "type"},
		{Settings{Type: rsa, Derived: true}, "derived"},
		{Settings{Type: typeOf(t, "hmac"), Derived: true}, "derived"},
		{Settings{Type: ed, Derived: true, Convergent: true}, "convergent_encryption"},
		{Settings{Type: aes, Convergent: true}, "convergent_encryption"},
		{Settings{Type: aes, KeySize: 32}, "key_size"},
		{Settings{Type: typeOf(t, "hmac"), KeySize: 31}, "key_size"},
		{Settings{Type: typeOf(t, "hmac"), KeySize: 513}, "key_size"},
	} {
		wantInput(t, fmt.Sprintf("%+v", x.s), x.s.Check(), x.field)
		_, err := x.s.Generate(rand.Reader)
		wantInput(t, "generate", err, x.field)
		_, err = NewVersion(x.s, 1, keyring.Material{})
		wantInput(t, "build", err, x.field)
	}
	for _, s := range usable() {
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestGenerateHMACSizes(t *testing.T) {
	for size, want := range map[int]int{0: 32, 32: 32, 512: 512} {
		s := Settings{Type: typeOf(t, "hmac"), KeySize: size}
		m := must[keyring.Material](t)(s.Generate(rand.Reader))
		if o := must[secret](t)(s.open(m)); len(o.key) != want || len(o.hmacKey) != 0 {
			t.Errorf("size %d: %d and %d bytes", size, len(o.key), len(o.hmacKey))
		}
	}
}

func TestRandomnessThatFails(t *testing.T) {
	for _, s := range usable() {
		if _, err := s.Generate(iotest.ErrReader(errors.New("broken"))); !errors.Is(err, keyring.ErrRandom) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := GenerateHMACKey(bytes.NewReader(make([]byte, 31))); !errors.Is(err, keyring.ErrRandom) {
		t.Error(err)
	}
}

func TestImport(t *testing.T) {
	random := make([]byte, 600)
	_, _ = rand.Read(random)
	pkcs8 := func(key any, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	p256 := pkcs8(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	keys := map[string][]byte{
		"aes128-gcm96": random[:16], "aes256-gcm96": random[:32], "chacha20-poly1305": random[:32], "xchacha20-poly1305": random[:32],
		"ed25519": pkcs8(ed, err), "ecdsa-p256": p256, "ecdsa-p384": pkcs8(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ecdsa-p521": pkcs8(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), "rsa-2048": pkcs8(rsa.GenerateKey(rand.Reader, 2048)),
		"hmac": random[:64],
	}
	for _, s := range usable() {
		key, ok := keys[s.Type.Name()]
		if !ok {
			continue
		}
		m, err := s.Import(rand.Reader, key)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if _, err := NewVersion(s, 1, m); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		for what, wrong := range map[string][]byte{"nothing": nil, "more": append(bytes.Clone(key), make([]byte, 500)...), "another type": random[:17], "zeros": make([]byte, 32)} {
			if _, err := s.Import(rand.Reader, wrong); !errors.Is(err, keyring.ErrInvalidMaterial) {
				t.Errorf("%s: %s: %v", s, what, err)
			}
		}
	}
	if _, err := (Settings{Type: typeOf(t, "ecdsa-p384")}).Import(rand.Reader, p256); !errors.Is(err, keyring.ErrInvalidMaterial) {
		t.Errorf("a key on another curve: %v", err)
	}
}

func TestMaterialThatIsNone(t *testing.T) {
	aes, convergent := Settings{Type: typeOf(t, "aes256-gcm96")}, Settings{Type: typeOf(t, "aes256-gcm96"), Derived: true, Convergent: true}
	aes128, hmac := Settings{Type: typeOf(t, "aes128-gcm96"), Derived: true}, Settings{Type: typeOf(t, "hmac")}
	key := bytes.Repeat([]byte("k"), 32)
	for what, x := range map[string]struct {
		s Settings
		b []byte
	}{
		"nothing":                  {aes, nil},
		"a header":                 {aes, []byte{1, 0, 0, 0, 0}},
		"another format":           {aes, append([]byte{2, 0, 0, 0, 0}, key...)},
		"an HMAC key cut short":    {aes, append([]byte{1, 0, 0, 0, 33}, key...)},
		"an HMAC key alone":        {aes, append([]byte{1, 0, 0, 0, 32}, key...)},
		"a key of another size":    {aes, append([]byte{1, 0, 0, 0, 1}, key...)},
		"a scheme":                 {aes, append([]byte{1, 3, 0, 0, 0}, key...)},
		"no scheme":                {convergent, append([]byte{1, 0, 0, 0, 0}, key...)},
		"an unknown scheme":        {convergent, append([]byte{1, 4, 0, 0, 0}, key...)},
		"counter mode, scheme 3":   {convergent, append([]byte{1, 3, 1, 0, 0}, key...)},
		"an unknown derivation":    {convergent, append([]byte{1, 3, 2, 0, 0}, key...)},
		"counter mode, 128 bits":   {aes128, append([]byte{1, 0, 1, 0, 0}, key[:16]...)},
		"counter mode, no context": {aes, append([]byte{1, 0, 1, 0, 0}, key...)},
		"two HMAC keys":            {hmac, append([]byte{1, 0, 0, 0, 1}, key...)},
		"a short HMAC key":         {hmac, append([]byte{1, 0, 0, 0, 0}, key[1:]...)},
		"ECDSA of zero":            {Settings{Type: typeOf(t, "ecdsa-p256")}, append([]byte{1, 0, 0, 0, 0}, make([]byte, 32)...)},
		"Ed25519 cut short":        {Settings{Type: typeOf(t, "ed25519")}, append([]byte{1, 0, 0, 0, 0}, key[1:]...)},
		"RSA that is none":         {Settings{Type: typeOf(t, "rsa-2048")}, append([]byte{1, 0, 0, 0, 0}, key...)},
	} {
		if fips140.Enforced() && x.s.Convergent {
			continue
		}
		if _, err := NewVersion(x.s, 1, keyring.NewMaterial(x.b)); !errors.Is(err, keyring.ErrInvalidMaterial) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A version lives on when its material is wiped, and takes nothing of it along.
func TestVersionsOutliveTheirMaterial(t *testing.T) {
	for _, s := range usable() {
		v := newTestVersion(t, s) // which wipes it
		if _, err := v.HMAC(nil, []byte("message"), ""); err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if s.Type.Encrypts() {
			ct := must[[]byte](t)(v.Encrypt(nil, []byte("p"), params(s)))
			_, body, _ := ParseVersion("ciphertext", ct)
			if got, err := v.Decrypt(nil, body, params(s)); err != nil || string(got) != "p" {
				t.Errorf("%s: %q, %v", s, got, err)
			}
		}
		if v.Number() != 7 {
			t.Errorf("number %d", v.Number())
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	key := []byte("SECRETSECRETSECRETSECRETSECRETSE")
	s := Settings{Type: typeOf(t, "aes256-gcm96")}
	m := must[keyring.Material](t)(s.Import(rand.Reader, key))
	v := must[*Version](t)(NewVersion(s, 1, m))
	type holder struct{ v *Version }
	h := holder{v}
	var text strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		fmt.Fprintf(&text, verb+verb+verb+verb, v, *v, h, BackupVersion{Material: m})
	}
	fmt.Fprintf(&text, "%s", must[[]byte](t)(json.Marshal(v)))
	slog.New(slog.NewJSONHandler(&text, nil)).Info("key", "version", v)
	for _, leak := range []string{"SECRET", "534543524554", "83 69 67", "53 45 43"} {
		if strings.Contains(text.String(), leak) {
			t.Errorf("%s is printed in %s", leak, text.String())
		}
	}
	if got := v.String(); got != "[redacted]" {
		t.Errorf("printed as %s", got)
	}
}
