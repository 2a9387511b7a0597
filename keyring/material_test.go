package keyring

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSecretsDoNotPrint(t *testing.T) {
	m := NewMaterial([]byte("SECRETSECRETSECRETSECRETSECRETSE"))
	v := must[*Version](t)(NewVersion(Default(PurposeEncryptDecrypt), 1, 1, m))
	type holder struct {
		m Material
		v *Version
		w Version
	}
	for _, secret := range []any{m, &m, v, *v, []Material{m}, map[string]*Version{"k": v}, holder{m, v, *v}, &holder{m, v, *v}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%o", "%t"} {
			assertHidden(t, fmt.Sprintf("%T %s", secret, verb), fmt.Sprintf(verb, secret))
		}
		assertHidden(t, "JSON", string(must[[]byte](t)(json.Marshal(secret))))
		var text, structured strings.Builder
		slog.New(slog.NewTextHandler(&text, nil)).Info("x", "secret", secret)
		slog.New(slog.NewJSONHandler(&structured, nil)).Info("x", "secret", secret)
		assertHidden(t, "slog text", text.String())
		assertHidden(t, "slog JSON", structured.String())
	}
	if s := fmt.Sprintf("%v %+v %s %x", m, v, m, v); s != strings.TrimSpace(strings.Repeat("[redacted] ", 4)) {
		t.Errorf("prints %s", s)
	}
	if j := must[[]byte](t)(json.Marshal(map[string]any{"m": m, "v": v})); string(j) != `{"m":"[redacted]","v":"[redacted]"}` {
		t.Errorf("marshals to %s", j)
	}
}

func assertHidden(t *testing.T, where, s string) {
	t.Helper()
	// The secret as text, hex, or decimal and octal bytes.
	for _, form := range []string{"SECRET", "534543", "83 69 67", "0x53, 0x45", "123 105 103", "U0VDUkVU"} {
		if strings.Contains(s, form) {
			t.Errorf("%s shows the secret: %s", where, s)
		}
	}
}

func TestWipe(t *testing.T) {
	b := []byte("0123456789abcdef0123456789abcdef")
	m := NewMaterial(b)
	v := must[*Version](t)(NewVersion(Default(PurposeEncryptDecrypt), 1, 1, m))
	twin := m
	m.Wipe()
	if !bytes.Equal(b, make([]byte, 32)) || m.Bytes() != nil || twin.Bytes() != nil {
		t.Errorf("left over: %x %x", b, twin.Bytes())
	}
	m.Wipe()
	Material{}.Wipe()
	if _, err := v.Seal(nil, nil, NoAAD()); err != nil {
		t.Errorf("the version is gone, too: %v", err)
	}
}

// A version keeps nothing of its material: wiped, everything still fits.
func TestVersionsOutliveTheirMaterial(t *testing.T) {
	for _, a := range usable("") {
		m := goldenMaterial(t, a)
		v := must[*Version](t)(NewVersion(a, testKeyID, testVersion, m))
		m.Wipe()
		twin := newTestVersion(t, a)
		switch a.purpose {
		case PurposeEncryptDecrypt:
			ct := must[[]byte](t)(v.Seal(nil, []byte("x"), NoAAD()))
			if _, err := twin.Open(nil, ct, NoAAD()); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
		case PurposeMAC:
			if err := twin.VerifyMAC(nil, must[[]byte](t)(v.MAC(nil))); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
		default:
			exercise(t, v, []byte("message"))
		}
	}
}

func TestGenerate(t *testing.T) {
	for _, a := range usable("") {
		if slowToGenerate(a) {
			continue
		}
		m := must[Material](t)(a.Generate(rand.Reader))
		if err := a.Validate(m); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
		other := must[Material](t)(a.Generate(rand.Reader))
		if bytes.Equal(m.Bytes(), other.Bytes()) {
			t.Errorf("%s: the same key twice", a.name)
		}
		exercise(t, must[*Version](t)(NewVersion(a, 1, 1, m)), []byte("message"))
	}
}

func TestGenerateLargerRSA(t *testing.T) {
	a := row(t, "RSA_OAEP_3072_SHA256")
	if err := a.Validate(must[Material](t)(a.Generate(rand.Reader))); err != nil {
		t.Error(err)
	}
}

// All but RSA's keys come from the given reader and nowhere else.
func TestGenerateReadsOnlyTheReader(t *testing.T) {
	for _, a := range usable("") {
		if _, isRSA := a.keys.(rsaKeys); isRSA {
			continue
		}
		m := must[Material](t)(a.Generate(seeded("golden " + a.name)))
		if !bytes.Equal(m.Bytes(), goldenMaterial(t, a).Bytes()) {
			t.Errorf("%s: not the golden key again", a.name)
		}
		for name, random := range map[string]io.Reader{
			"failing": iotest.ErrReader(io.ErrClosedPipe),
			"short":   bytes.NewReader(make([]byte, 5)),
		} {
			if m, err := a.Generate(random); !errors.Is(err, ErrRandom) || m.Bytes() != nil {
				t.Errorf("%s: %s reader: %v", a.name, name, err)
			}
		}
	}
}

type constant byte

func (c constant) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c)
	}
	return len(b), nil
}

// Out of range is drawn again; a stuck source ends in an error, not in a loop.
func TestGenerateRejects(t *testing.T) {
	for _, name := range []string{"ECDSA_P256_SHA256", "ECDSA_P384_SHA384", "ECDSA_P521_SHA512", "ECDH_P256", "ECDH_P384", "ECDSA_SECP256K1_SHA256"} {
		t.Run(name, func(t *testing.T) {
			a := row(t, name)
			for _, stuck := range []constant{0, 0xff} {
				if _, err := a.Generate(stuck); !errors.Is(err, ErrRandom) {
					t.Errorf("source of %x: %v", byte(stuck), err)
				}
			}
			size := (a.keySize + 7) / 8
			late := io.MultiReader(io.LimitReader(constant(0), int64(size)), seeded("late"))
			if err := a.Validate(must[Material](t)(a.Generate(late))); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidateRefusesSizes(t *testing.T) {
	for _, a := range usable("") {
		good := goldenMaterial(t, a).Bytes()
		if err := a.Validate(NewMaterial(good)); err != nil {
			t.Errorf("%s: golden: %v", a.name, err)
		}
		for name, bad := range map[string][]byte{"nothing": nil, "short": good[:len(good)-1], "long": append(bytes.Clone(good), 0)} {
			if err := a.Validate(NewMaterial(bad)); !errors.Is(err, ErrInvalidMaterial) {
				t.Errorf("%s: %s: %v", a.name, name, err)
			}
		}
	}
}

func TestValidateRefusesRanges(t *testing.T) {
	for _, a := range usable("") {
		if a.scalar == 0 && a.purpose != PurposeKeyAgreement || a.name == "X25519" {
			continue
		}
		size := len(goldenMaterial(t, a).Bytes())
		for name, bad := range map[string][]byte{"zero": make([]byte, size), "over the order": bytes.Repeat([]byte{0xff}, size)} {
			if err := a.Validate(NewMaterial(bad)); !errors.Is(err, ErrInvalidMaterial) {
				t.Errorf("%s: %s: %v", a.name, name, err)
			}
		}
	}
}

func TestValidateRefusesRSA(t *testing.T) {
	a := row(t, "RSA_PSS_3072_SHA256")
	parse := func(name string) *rsa.PrivateKey {
		return must[any](t)(x509.ParsePKCS8PrivateKey(goldenMaterial(t, row(t, name)).Bytes())).(*rsa.PrivateKey)
	}
	broken := parse("RSA_PSS_3072_SHA256")
	brokenDER := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(broken))
	flips(brokenDER, func(i int, changed []byte) {
		if i%97 != 0 {
			return // every byte takes a primality test's time
		}
		if err := a.Validate(NewMaterial(changed)); err != nil && !errors.Is(err, ErrInvalidMaterial) {
			t.Errorf("byte %d: %v", i, err)
		}
	})
	small := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(parse("RSA_PSS_2048_SHA256")))
	for name, der := range map[string][]byte{
		"2048 bits": small,
		"PKCS#1":    x509.MarshalPKCS1PrivateKey(broken),
		"ECDSA":     pkcs8(t, "ECDSA_P256_SHA256"),
	} {
		if err := a.Validate(NewMaterial(der)); !errors.Is(err, ErrInvalidMaterial) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// pkcs8 wraps a key of another kind.
func pkcs8(t *testing.T, name string) []byte {
	t.Helper()
	private := newTestVersion(t, row(t, name)).primitive().(ecdsaPrivate).private
	return must[[]byte](t)(x509.MarshalPKCS8PrivateKey(private))
}
