package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

// heldElsewhere is a key of the table behind the interface of an External: what a
// correct device does, and what a broken one does when spoil is set.
type heldElsewhere struct {
	primitive any
	spoil     func([]byte) []byte
	fail      error
	seen      context.Context //nolint:containedctx // what the last call was given
}

func (h *heldElsewhere) Use(ctx context.Context, use Use, data, extra []byte) ([]byte, error) {
	h.seen = ctx
	if h.fail != nil {
		return nil, h.fail
	}
	out, err := h.answer(use, data, extra)
	if err == nil && h.spoil != nil {
		out = h.spoil(out)
	}
	return out, err
}

func (h *heldElsewhere) answer(use Use, data, extra []byte) ([]byte, error) {
	switch use {
	case UseEncrypt:
		return h.primitive.(aead).seal(nil, data, extra)
	case UseDecrypt:
		return orErrDecrypt(h.primitive.(aead).open(nil, data, extra))
	case UseSign:
		return h.primitive.(signer).sign(data)
	case UseMAC:
		return h.primitive.(macer).mac(data)
	case UseDecryptAsymmetric:
		return orErrDecrypt(h.primitive.(decrypter).decrypt(data, extra))
	case UseAgree:
		return h.primitive.(agreer).agree(data)
	}
	return nil, fmt.Errorf("unknown use %d", use)
}

func orErrDecrypt(plaintext []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, fmt.Errorf("device: %w", ErrDecrypt)
	}
	return plaintext, nil
}

// newExternal returns the golden key of a row twice: held elsewhere, and here.
func newExternal(t testing.TB, a *Algorithm) (*Version, *heldElsewhere, *Version) {
	t.Helper()
	software := newTestVersion(t, a)
	var der []byte
	if a.Asymmetric() {
		der = must[[]byte](t)(software.PublicKeyDER())
	}
	held := &heldElsewhere{primitive: software.primitive()}
	return must[*Version](t)(ExternalVersion(a, testKeyID, testVersion, der, held)), held, software
}

// usePrivate makes a private use of a version, whatever its purpose, and returns its result.
func usePrivate(t testing.TB, v, counterpart *Version) ([]byte, error) {
	t.Helper()
	switch v.algorithm.purpose {
	case PurposeEncryptDecrypt:
		return v.Open(nil, must[[]byte](t)(counterpart.Seal(nil, []byte("plaintext"), RawAAD([]byte("aad")))), RawAAD([]byte("aad")))
	case PurposeSignVerify:
		return v.Sign([]byte("message"), SignOptions{})
	case PurposeMAC:
		return v.MAC([]byte("message"))
	case PurposeAsymmetricDecrypt:
		return v.DecryptAsymmetric(encryptOAEP(t, counterpart, []byte("plaintext"), []byte("label")), []byte("label"))
	default:
		return v.SharedSecret(must[[]byte](t)(counterpart.PublicKeyPEM()))
	}
}

// Whoever uses a key cannot tell where it is held: what one makes the other takes,
// and public keys are the same.
func TestExternalIsLikeSoftware(t *testing.T) {
	for _, a := range usable("") {
		t.Run(a.name, func(t *testing.T) {
			external, _, software := newExternal(t, a)
			external = external.In(t.Context())
			for name, pair := range map[string][2]*Version{"external, software": {external, software}, "software, external": {software, external}} {
				exchange(t, name, pair[0], pair[1])
			}
			if external.KeyID() != testKeyID || external.Number() != testVersion || external.Algorithm() != a {
				t.Errorf("it is version %d of key %x with %s", external.Number(), external.KeyID(), external.Algorithm())
			}
			if a.Asymmetric() {
				own, theirs := must[[]byte](t)(external.PublicKeyJWK("k")), must[[]byte](t)(software.PublicKeyJWK("k"))
				if !bytes.Equal(own, theirs) {
					t.Errorf("public keys %s and %s", own, theirs)
				}
			}
			if text := fmt.Sprintf("%v %+v %#v", external, *external, external); bytes.Contains([]byte(text), []byte("heldElsewhere")) {
				t.Errorf("it prints as %s", text)
			}
		})
	}
}

// exchange has one version make something and the other take it.
func exchange(t *testing.T, name string, from, to *Version) {
	t.Helper()
	message := []byte("message")
	switch from.algorithm.purpose {
	case PurposeEncryptDecrypt:
		for kind, aad := range aads(t) {
			sealed := must[[]byte](t)(from.Seal([]byte("prefix"), message, aad))[len("prefix"):]
			if got, err := to.Open([]byte("prefix"), sealed, aad); err != nil || string(got) != "prefixmessage" {
				t.Errorf("%s, AAD %s: Open = %q, %v", name, kind, got, err)
			}
		}
	case PurposeSignVerify:
		for _, format := range []Format{DER, RAW, JWS} {
			o := SignOptions{Format: format}
			if err := to.Verify(message, must[[]byte](t)(from.Sign(message, o)), o); err != nil {
				t.Errorf("%s, format %d: %v", name, format, err)
			}
		}
	case PurposeMAC:
		if err := to.VerifyMAC(message, must[[]byte](t)(from.MAC(message))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := to.VerifyMAC(message, []byte("wrong")); !errors.Is(err, ErrVerify) {
			t.Errorf("%s: a wrong tag: %v", name, err)
		}
	default:
		a, b := must[[]byte](t)(usePrivate(t, from, to)), must[[]byte](t)(usePrivate(t, to, from))
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %x and %x", name, a, b)
		}
	}
}

// The holder's errors come through as they are; what is wrong with a ciphertext is
// ErrDecrypt and nothing else.
func TestExternalErrors(t *testing.T) {
	away := errors.New("device away")
	for _, a := range usable("") {
		t.Run(a.name, func(t *testing.T) {
			v, held, software := newExternal(t, a)
			held.fail = away
			var external *ExternalError
			if _, err := usePrivate(t, v, software); !errors.Is(err, away) || !errors.As(err, &external) {
				t.Errorf("device away: %v", err)
			}
			held.fail = nil
			bad := bytes.Repeat([]byte{7}, HeaderSize+a.bodyOverhead+a.keySize/8)
			switch a.purpose {
			case PurposeEncryptDecrypt:
				copy(bad, v.bound[:HeaderSize])
				_, err := v.Open(nil, bad, NoAAD())
				_, short := v.Open(nil, bad[:HeaderSize+1], NoAAD())
				if err != ErrDecrypt || short != ErrDecrypt { //nolint:errorlint // nothing may be wrapped around it
					t.Errorf("a bad ciphertext: %v, a short one: %v", err, short)
				}
			case PurposeAsymmetricDecrypt:
				_, err := v.DecryptAsymmetric(bad[:a.keySize/8], nil)
				_, long := v.DecryptAsymmetric(bad, nil)
				if err != ErrDecrypt || long != ErrDecrypt { //nolint:errorlint // nothing may be wrapped around it
					t.Errorf("a bad ciphertext: %v, a long one: %v", err, long)
				}
			case PurposeKeyAgreement:
				if _, err := v.SharedSecret([]byte("no key")); !errors.Is(err, ErrInvalidPublicKey) {
					t.Errorf("a bad peer: %v", err)
				}
			}
		})
	}
}

// An answer that the algorithm cannot give, a wrong signature above all, is never
// passed on.
func TestExternalAnswersAreChecked(t *testing.T) {
	shorter := func(b []byte) []byte { return b[:len(b)-1] }
	flipped := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	zero := func(b []byte) []byte { clear(b); return b }
	for _, a := range usable("") {
		spoils := map[Purpose]map[string]func([]byte) []byte{
			PurposeEncryptDecrypt: {"shorter": shorter},
			PurposeSignVerify:     {"shorter": shorter, "flipped": flipped, "zero": zero},
			PurposeMAC:            {"shorter": shorter},
			PurposeKeyAgreement:   {"shorter": shorter, "zero": zero},
		}[a.purpose]
		for name, spoil := range spoils {
			t.Run(a.name+"/"+name, func(t *testing.T) {
				v, held, software := newExternal(t, a)
				held.spoil = spoil
				if out, err := usePrivate(t, v, software); err == nil {
					t.Errorf("it returned %x", out)
				}
				if a.purpose == PurposeEncryptDecrypt {
					if out, err := v.Seal(nil, []byte("x"), NoAAD()); err == nil {
						t.Errorf("Seal returned %x", out)
					}
				}
			})
		}
	}
}

type contextKey struct{}

// In binds a version held elsewhere to a context, and costs others nothing.
func TestIn(t *testing.T) {
	v, held, _ := newExternal(t, row(t, "HMAC_SHA256"))
	ctx := context.WithValue(t.Context(), contextKey{}, "call")
	must[[]byte](t)(v.In(ctx).MAC([]byte("x")))
	if held.seen.Value(contextKey{}) != "call" {
		t.Error("the call's context did not arrive")
	}
	must[[]byte](t)(v.MAC([]byte("x")))
	if held.seen.Value(contextKey{}) != nil {
		t.Error("binding a copy has bound the version itself")
	}
	software := newTestVersion(t, row(t, "AES_256_GCM"))
	assertAllocations(t, "In", 0, func() {
		if software.In(ctx) != software {
			t.Error("a software version is not itself")
		}
	})
}

func TestExternalVersionRefusesPublicKeys(t *testing.T) {
	p256 := newTestVersion(t, row(t, "ECDSA_P256_SHA256"))
	der := must[[]byte](t)(p256.PublicKeyDER())
	for name, want := range map[string]error{"ECDSA_P384_SHA384": ErrInvalidPublicKey, "RSA_PSS_2048_SHA256": ErrInvalidPublicKey, "AES_256_GCM": ErrPurpose} {
		a, _ := Lookup(name)
		if _, err := ExternalVersion(a, 1, 1, der, &heldElsewhere{}); !errors.Is(err, want) {
			t.Errorf("%s with a P-256 key: %v", name, err)
		}
	}
	a, _ := Lookup("ED25519")
	if _, err := ExternalVersion(a, 1, 1, nil, &heldElsewhere{}); !errors.Is(err, ErrInvalidPublicKey) {
		t.Errorf("ED25519 without a public key: %v", err)
	}
}
