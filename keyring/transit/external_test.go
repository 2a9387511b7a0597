package transit

import (
	"context"
	"crypto"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring"
)

// held is a key behind the interface of an External: what a correct device does with it,
// and what a broken one does when spoil is set.
type held struct {
	cipher cipher.AEAD
	sign   func(digest []byte) ([]byte, error)
	spoil  func([]byte) []byte
	fail   error
	seen   context.Context //nolint:containedctx // what the last call was given
}

func (h *held) Use(ctx context.Context, use keyring.Use, data, extra []byte) (out []byte, err error) {
	h.seen = ctx
	if h.fail != nil {
		return nil, h.fail
	}
	switch use {
	case keyring.UseEncrypt:
		out = h.cipher.Seal(nil, nil, data, extra)
	case keyring.UseDecrypt:
		if out, err = h.cipher.Open(nil, nil, data, extra); err != nil {
			return nil, fmt.Errorf("device: %w", keyring.ErrDecrypt)
		}
	case keyring.UseSign:
		out, err = h.sign(data)
	default:
		return nil, fmt.Errorf("unexpected use %d", use)
	}
	if err == nil && h.spoil != nil {
		out = h.spoil(out)
	}
	return out, err
}

// newExternal makes a key twice: held elsewhere, and here, with one HMAC key.
func newExternal(t *testing.T, name string) (external *Version, device *held, software *Version) {
	t.Helper()
	s := Settings{Type: typeOf(t, name)}
	m := newMaterial(t, s)
	software = must[*Version](t)(NewVersion(s, 7, m))
	device = &held{}
	switch p := software.hidden.Get().primitive.(type) {
	case fixed:
		device.cipher = p.sealer.(gcm).AEAD
	case ecdsaKey:
		device.sign = func(digest []byte) ([]byte, error) { return p.private.Sign(rand.Reader, digest, crypto.Hash(0)) }
	case ed25519Key:
		device.sign = func(message []byte) ([]byte, error) { s, _, err := p.sign(message, signing{}); return s, err }
	case rsaKey:
		device.sign = func(digest []byte) ([]byte, error) {
			return rsa.SignPSS(rand.Reader, p.private, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	}
	hmacKey := keyring.NewMaterial(append([]byte(nil), must[secret](t)(s.open(m)).hmacKey...))
	external, err := NewExternalVersion(s, 7, publicDER(t, software), hmacKey, device)
	if err != nil {
		t.Fatal(err)
	}
	hmacKey.Wipe()
	return external, device, software
}

func publicDER(t *testing.T, v *Version) []byte {
	t.Helper()
	p, ok := v.hidden.Get().primitive.(publicKey)
	if !ok {
		return nil
	}
	return must[[]byte](t)(p.der())
}

var externalTypes = []string{"aes128-gcm96", "aes256-gcm96", "ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048"}

// signOptions are those that a key which is held elsewhere signs with.
func signOptions(name string) []SignOptions {
	hash := map[string]string{"ecdsa-p384": "sha2-384", "ecdsa-p521": "sha3-512"}[name]
	return []SignOptions{{HashAlgorithm: hash}, {HashAlgorithm: hash, Marshaling: "jws"}, {HashAlgorithm: hash, SaltLength: "hash"}, {HashAlgorithm: hash, SaltLength: "32"}}
}

// Whoever uses a key cannot tell where it is held: what one makes the other takes.
func TestExternalIsLikeSoftware(t *testing.T) {
	for _, name := range externalTypes {
		t.Run(name, func(t *testing.T) {
			external, device, software := newExternal(t, name)
			type mark struct{}
			ctx := context.WithValue(t.Context(), mark{}, name)
			external = external.In(ctx)
			for _, pair := range [][2]*Version{{external, software}, {software, external}} {
				exchange(t, name, pair[0], pair[1])
			}
			if device.seen == nil || device.seen.Value(mark{}) != name {
				t.Error("the call's context does not reach the device")
			}
			if external.PublicKey() != software.PublicKey() || external.Number() != 7 || software.In(ctx) != software {
				t.Errorf("public keys %q and %q", external.PublicKey(), software.PublicKey())
			}
			if block, _ := pem.Decode([]byte(external.PublicKey())); block != nil {
				must[any](t)(x509.ParsePKIXPublicKey(block.Bytes))
			}
			if text := fmt.Sprintf("%v %+v %#v", external, *external, external); strings.Contains(text, "held") {
				t.Errorf("it prints as %s", text)
			}
		})
	}
}

// exchange has one version open and verify what another makes.
func exchange(t *testing.T, name string, from, to *Version) {
	t.Helper()
	message := []byte("message")
	_, tag, _ := ParseVersion("hmac", must[[]byte](t)(from.HMAC(nil, message, "")))
	if err := to.VerifyHMAC(message, tag, ""); err != nil {
		t.Errorf("hmac: %v", err)
	}
	if from.settings.Type.AcceptsAAD() {
		p := Params{AAD: []byte("data")}
		_, body, _ := ParseVersion("ciphertext", must[[]byte](t)(from.Encrypt(nil, message, p)))
		if got, err := to.Decrypt([]byte("before "), body, p); err != nil || string(got) != "before message" {
			t.Errorf("decrypts %q, %v", got, err)
		}
		if _, err := to.Decrypt(nil, body, Params{}); err != keyring.ErrDecrypt {
			t.Errorf("without data: %v", err)
		}
		if _, err := to.Decrypt(nil, body[:16], p); err != keyring.ErrDecrypt {
			t.Errorf("cut short: %v", err)
		}
		return
	}
	for _, o := range signOptions(name) {
		signed, _, err := from.Sign(nil, message, o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		_, body, _ := ParseVersion("signature", signed)
		if err := to.Verify(message, body, o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
		if err := to.Verify([]byte("Message"), body, o); err != keyring.ErrVerify {
			t.Errorf("%+v of another message: %v", o, err)
		}
	}
}

// useHeld makes a private use of a version.
func useHeld(v *Version, name string) error {
	if v.settings.Type.AcceptsAAD() {
		_, err := v.Encrypt(nil, []byte("message"), Params{})
		return err
	}
	_, _, err := v.Sign(nil, []byte("message"), signOptions(name)[0])
	return err
}

func TestBrokenDevices(t *testing.T) {
	for _, name := range externalTypes {
		external, device, software := newExternal(t, name)
		var refused *keyring.ExternalError
		device.fail = errors.New("the device is gone")
		if err := useHeld(external, name); !errors.As(err, &refused) || !errors.Is(err, device.fail) {
			t.Errorf("%s: gone: %v", name, err)
		}
		device.fail, device.spoil = nil, func(b []byte) []byte { return b[:len(b)-1] }
		if err := useHeld(external, name); !errors.As(err, &refused) {
			t.Errorf("%s: cut short: %v", name, err)
		}
		if !software.settings.Type.AcceptsAAD() {
			continue
		}
		_, body, _ := ParseVersion("ciphertext", must[[]byte](t)(software.Encrypt(nil, []byte("message"), Params{})))
		if _, err := external.Decrypt(nil, body, Params{}); !errors.As(err, &refused) {
			t.Errorf("%s: decrypts cut short: %v", name, err)
		}
	}
}

func TestExternalOptionsThatDoNotFit(t *testing.T) {
	p256, _, _ := newExternal(t, "ecdsa-p256")
	p384, _, _ := newExternal(t, "ecdsa-p384")
	rsa, _, _ := newExternal(t, "rsa-2048")
	for _, x := range []struct {
		v     *Version
		o     SignOptions
		field string
	}{
		{p384, SignOptions{}, "hash_algorithm"},
		{p256, SignOptions{HashAlgorithm: "sha2-512"}, "hash_algorithm"},
		{p256, SignOptions{Prehashed: true, HashAlgorithm: "sha2-512"}, "input"},
		{p256, SignOptions{Prehashed: true}, "input"},
		{rsa, SignOptions{Algorithm: "pkcs1v15"}, "signature_algorithm"},
		{rsa, SignOptions{HashAlgorithm: "sha2-512"}, "hash_algorithm"},
		{rsa, SignOptions{SaltLength: "20"}, "salt_length"},
		{rsa, SignOptions{Prehashed: true}, "input"},
	} {
		message := make([]byte, 48)
		if x.v == p256 && x.o.HashAlgorithm == "" || x.v == rsa {
			message = message[:7]
		}
		_, _, err := x.v.Sign(nil, message, x.o)
		wantInput(t, fmt.Sprintf("%s with %+v", x.v.settings, x.o), err, x.field)
	}
	if _, err := rsa.Encrypt(nil, nil, Params{}); !errors.Is(err, keyring.ErrPurpose) {
		t.Errorf("rsa encrypts: %v", err)
	}
}

func TestExternalVersionsThatCannotBe(t *testing.T) {
	_, _, p256 := newExternal(t, "ecdsa-p256")
	der := publicDER(t, p256)
	aes := typeOf(t, "aes256-gcm96")
	_, err := NewExternalVersion(Settings{Type: aes, Derived: true}, 1, nil, keyring.Material{}, &held{})
	wantInput(t, "derived", err, "derived")
	_, err = NewExternalVersion(Settings{Type: typeOf(t, "hmac")}, 1, nil, keyring.Material{}, &held{})
	wantInput(t, "hmac", err, "type")
	if _, err := NewExternalVersion(Settings{Type: aes}, 1, der, keyring.Material{}, &held{}); !errors.Is(err, keyring.ErrPurpose) {
		t.Errorf("a public key for AES: %v", err)
	}
	if _, err := NewExternalVersion(Settings{Type: typeOf(t, "ecdsa-p384")}, 1, der, keyring.Material{}, &held{}); !errors.Is(err, keyring.ErrInvalidPublicKey) {
		t.Errorf("a public key on another curve: %v", err)
	}
	v := must[*Version](t)(NewExternalVersion(Settings{Type: aes}, 1, nil, keyring.Material{}, &held{}))
	_, err = v.HMAC(nil, nil, "")
	wantInput(t, "no HMAC key", err, "key_version")
}
