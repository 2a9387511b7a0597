package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// aads has one of each kind; the last two carry the same bytes.
func aads(t testing.TB) map[string]AAD {
	t.Helper()
	context := must[[]byte](t)(CanonicalContext(map[string]string{"tenant": "acme"}))
	return map[string]AAD{
		"none":    NoAAD(),
		"raw":     RawAAD(bytes.Repeat([]byte("x"), 1000)),
		"context": ContextAAD(context),
		"same":    RawAAD(context),
	}
}

func forEachAEAD(t *testing.T, f func(t *testing.T, v *Version)) {
	t.Helper()
	rows := usable(PurposeEncryptDecrypt)
	if len(rows) < 3 {
		t.Fatalf("only %d AEADs", len(rows))
	}
	for _, a := range rows {
		t.Run(a.name, func(t *testing.T) { f(t, newTestVersion(t, a)) })
	}
}

func TestSealOpen(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		for kind, aad := range aads(t) {
			for _, n := range []int{0, 1, 15, 16, 17, 32, 1000, 70_000} {
				plaintext := bytes.Repeat([]byte{0xa5}, n)
				ct := must[[]byte](t)(v.Seal(nil, plaintext, aad))
				if len(ct) != n+v.algorithm.Overhead() {
					t.Fatalf("%s, %d bytes: ciphertext of %d", kind, n, len(ct))
				}
				if got, err := v.Open(nil, ct, aad); err != nil || !bytes.Equal(got, plaintext) {
					t.Fatalf("%s, %d bytes: opened to %d, %v", kind, n, len(got), err)
				}
			}
		}
	})
}

func TestSealAndOpenAppend(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		for _, room := range []int{0, 5, 200} {
			prefix := append(make([]byte, 0, 3+room), "pre"...)
			ct := must[[]byte](t)(v.Seal(prefix, []byte("text"), RawAAD([]byte("aad"))))
			if !bytes.HasPrefix(ct, []byte("pre\x01")) {
				t.Fatalf("room for %d: %q", room, ct)
			}
			got, err := v.Open(prefix, ct[3:], RawAAD([]byte("aad")))
			if err != nil || string(got) != "pretext" {
				t.Fatalf("room for %d: %q, %v", room, got, err)
			}
		}
	})
}

func TestCiphertextsDiffer(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		seen := map[string]bool{}
		for range 100 {
			seen[string(must[[]byte](t)(v.Seal(nil, []byte("same"), NoAAD())))] = true
		}
		want := 100
		if v.algorithm.Deterministic() {
			want = 1
		}
		if len(seen) != want {
			t.Errorf("%d different ciphertexts, want %d", len(seen), want)
		}
	})
}

func TestOpenRefusesTruncation(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		ct := must[[]byte](t)(v.Seal(nil, []byte("some plaintext"), NoAAD()))
		for n := range len(ct) {
			if got, err := v.Open(nil, ct[:n], NoAAD()); err != ErrDecrypt || got != nil {
				t.Errorf("%d of %d bytes: %x, %v", n, len(ct), got, err)
			}
		}
		if _, err := v.Open(nil, append(ct, 0), NoAAD()); err != ErrDecrypt {
			t.Errorf("one byte more: %v", err)
		}
	})
}

func TestOpenRefusesFlips(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		ct := must[[]byte](t)(v.Seal(nil, []byte("some plaintext"), NoAAD()))
		flips(ct, func(i int, changed []byte) {
			want := ErrDecrypt
			if 0 < i && i < HeaderSize {
				want = ErrWrongKey
			}
			if got, err := v.Open(nil, changed, NoAAD()); err != want || got != nil {
				t.Errorf("byte %d: %x, %v", i, got, err)
			}
		})
	})
}

// The header is authenticated, not only compared: a twin with the same material
// under another id or number opens nothing of it.
func TestOpenRefusesAnotherHeader(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		ct := must[[]byte](t)(v.Seal(nil, []byte("some plaintext"), NoAAD()))
		for _, h := range []Header{{testKeyID + 1, testVersion}, {testKeyID, testVersion + 1}} {
			twin := must[*Version](t)(NewVersion(v.algorithm, h.KeyID, h.Version, goldenMaterial(t, v.algorithm)))
			if _, err := twin.Open(nil, ct, NoAAD()); err != ErrWrongKey {
				t.Errorf("as it is: %v", err)
			}
			moved := append(h.AppendTo(nil), ct[HeaderSize:]...)
			if _, err := twin.Open(nil, moved, NoAAD()); err != ErrDecrypt {
				t.Errorf("with the twin's header: %v", err)
			}
		}
	})
}

func TestOpenRefusesAnotherAAD(t *testing.T) {
	forEachAEAD(t, func(t *testing.T, v *Version) {
		for sealed, aad := range aads(t) {
			ct := must[[]byte](t)(v.Seal(nil, []byte("some plaintext"), aad))
			for opened, other := range aads(t) {
				if _, err := v.Open(nil, ct, other); (err == nil) != (sealed == opened) || err != nil && err != ErrDecrypt {
					t.Errorf("sealed with %s, opened with %s: %v", sealed, opened, err)
				}
			}
		}
	})
}

func TestEmptyAADIsNone(t *testing.T) {
	v := newTestVersion(t, Default(PurposeEncryptDecrypt))
	for _, aad := range []AAD{{}, NoAAD(), RawAAD(nil), RawAAD([]byte{}), ContextAAD(nil), ContextAAD([]byte{})} {
		ct := must[[]byte](t)(v.Seal(nil, []byte("x"), aad))
		if _, err := v.Open(nil, ct, NoAAD()); err != nil {
			t.Error(err)
		}
	}
}

func TestSealRefusesTooLong(t *testing.T) {
	// A row with a small limit: nobody has 64 GiB for the real one.
	a := *Default(PurposeEncryptDecrypt)
	a.maxPlaintext = 10
	v := newTestVersion(t, &a)
	if _, err := v.Seal(nil, make([]byte, 10), NoAAD()); err != nil {
		t.Error(err)
	}
	_, err := v.Seal(nil, make([]byte, 11), NoAAD())
	var input *InputError
	if !errors.As(err, &input) || input.Field != "plaintext" || !errors.Is(err, ErrInput) {
		t.Errorf("too long: %v", err)
	}
	if _, err := v.Open(nil, append(must[[]byte](t)(v.Seal(nil, make([]byte, 10), NoAAD())), 0), NoAAD()); err != ErrDecrypt {
		t.Errorf("longer than any ciphertext: %v", err)
	}
}

// operations has one call of each private operation.
var operations = map[Purpose][]func(v *Version) error{
	PurposeEncryptDecrypt: {
		func(v *Version) error { _, err := v.Seal(nil, nil, NoAAD()); return err },
		func(v *Version) error { _, err := v.Open(nil, make([]byte, 100), NoAAD()); return err },
	},
	PurposeSignVerify: {
		func(v *Version) error { _, err := v.Sign(nil, SignOptions{}); return err },
		func(v *Version) error { return v.Verify(nil, nil, SignOptions{}) },
	},
	PurposeMAC: {
		func(v *Version) error { _, err := v.MAC(nil); return err },
		func(v *Version) error { return v.VerifyMAC(nil, nil) },
	},
	PurposeAsymmetricDecrypt: {
		func(v *Version) error { _, err := v.DecryptAsymmetric(nil, nil); return err },
	},
	PurposeKeyAgreement: {
		func(v *Version) error { _, err := v.SharedSecret(nil); return err },
	},
}

func TestOperationsKeepToThePurpose(t *testing.T) {
	for _, a := range usable("") {
		v := newTestVersion(t, a)
		for purpose, calls := range operations {
			for i, call := range calls {
				if err := call(v); errors.Is(err, ErrPurpose) == (purpose == a.purpose) {
					t.Errorf("%s: %s operation %d: %v", a.name, purpose, i, err)
				}
			}
		}
	}
}

func TestPublicVersion(t *testing.T) {
	for _, a := range usable("") {
		if a.purpose == PurposeEncryptDecrypt || a.purpose == PurposeMAC {
			if _, err := PublicVersion(a, 1, 1, nil); !errors.Is(err, ErrPurpose) {
				t.Errorf("%s: %v", a.name, err)
			}
			continue
		}
		private := newTestVersion(t, a)
		public := publicHalf(t, private)
		for purpose, calls := range operations {
			want := ErrPurpose
			if purpose == a.purpose {
				want = ErrPublicOnly
			}
			if err := calls[0](public); !errors.Is(err, want) {
				t.Errorf("%s: %s: %v", a.name, purpose, err)
			}
		}
		if a, b := must[[]byte](t)(private.PublicKeyPEM()), must[[]byte](t)(public.PublicKeyPEM()); !bytes.Equal(a, b) {
			t.Errorf("PEM differs: %s %s", a, b)
		}
	}
}

func TestPublicVersionRefuses(t *testing.T) {
	ders := map[string][]byte{"nothing": nil, "garbage": []byte("garbage")}
	for _, a := range usable("") {
		if der, err := newTestVersion(t, a).PublicKeyDER(); err == nil {
			ders[fmt.Sprintf("%s_%d", goldenKeyName(a), a.keySize)] = der
			ders["longer "+goldenKeyName(a)] = append(bytes.Clone(der), 0)
		}
	}
	for _, a := range usable("") {
		if a.purpose == PurposeEncryptDecrypt || a.purpose == PurposeMAC {
			continue
		}
		fits := 0
		for name, der := range ders {
			v, err := PublicVersion(a, 1, 1, der)
			switch {
			case err == nil && bytes.Equal(der, must[[]byte](t)(v.PublicKeyDER())):
				fits++
			case !errors.Is(err, ErrInvalidPublicKey):
				t.Errorf("%s takes %s: %v", a.name, name, err)
			}
		}
		// A key on a NIST curve looks the same for ECDSA and for ECDH.
		if fits < 1 || fits > 2 {
			t.Errorf("%s takes %d keys", a.name, fits)
		}
	}
}

func TestVersionIsConcurrent(t *testing.T) {
	for _, a := range usable("") {
		if strings.HasPrefix(a.name, "RSA") && a.keySize > 2048 {
			continue // the same code as 2048, only slower
		}
		v := newTestVersion(t, a)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 5 {
					exercise(t, v, fmt.Appendf(nil, "message %d %d", i, j))
				}
			})
		}
		wg.Wait()
	}
}

// exercise runs the version's operation back and forth.
func exercise(t *testing.T, v *Version, message []byte) {
	switch v.algorithm.purpose {
	case PurposeEncryptDecrypt:
		ct, err := v.Seal(nil, message, RawAAD(message))
		if got, err2 := v.Open(nil, ct, RawAAD(message)); err != nil || err2 != nil || !bytes.Equal(got, message) {
			t.Errorf("%s: %v, %v", v.algorithm, err, err2)
		}
	case PurposeSignVerify:
		sig, err := v.Sign(message, SignOptions{})
		if err2 := v.Verify(message, sig, SignOptions{}); err != nil || err2 != nil {
			t.Errorf("%s: %v, %v", v.algorithm, err, err2)
		}
	case PurposeMAC:
		tag, err := v.MAC(message)
		if err2 := v.VerifyMAC(message, tag); err != nil || err2 != nil {
			t.Errorf("%s: %v, %v", v.algorithm, err, err2)
		}
	case PurposeAsymmetricDecrypt:
		ct := encryptOAEP(t, v, message, nil)
		if got, err := v.DecryptAsymmetric(ct, nil); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%s: %v", v.algorithm, err)
		}
	case PurposeKeyAgreement:
		der, _ := v.PublicKeyDER()
		if _, err := v.SharedSecret(der); err != nil {
			t.Errorf("%s: %v", v.algorithm, err)
		}
	}
}

func TestVerifyMAC(t *testing.T) {
	for _, a := range usable(PurposeMAC) {
		v := newTestVersion(t, a)
		tag := must[[]byte](t)(v.MAC([]byte("message")))
		if len(tag) != a.hash.Size() {
			t.Errorf("%s: tag of %d bytes", a.name, len(tag))
		}
		if err := v.VerifyMAC([]byte("message"), tag); err != nil {
			t.Error(err)
		}
		for n := range tag {
			if err := v.VerifyMAC([]byte("message"), tag[:n]); err != ErrVerify {
				t.Errorf("%s: %d bytes of the tag: %v", a.name, n, err)
			}
		}
		flips(tag, func(i int, changed []byte) {
			if err := v.VerifyMAC([]byte("message"), changed); err != ErrVerify {
				t.Errorf("%s: byte %d flipped: %v", a.name, i, err)
			}
		})
		if err := v.VerifyMAC([]byte("massage"), tag); err != ErrVerify {
			t.Errorf("%s: other message: %v", a.name, err)
		}
	}
}

func TestDecryptAsymmetric(t *testing.T) {
	for _, a := range usable(PurposeAsymmetricDecrypt) {
		v := newTestVersion(t, a)
		longest := bytes.Repeat([]byte{7}, int(a.MaxPlaintext()))
		ct := encryptOAEP(t, v, longest, []byte("label"))
		if got, err := v.DecryptAsymmetric(ct, []byte("label")); err != nil || !bytes.Equal(got, longest) {
			t.Errorf("%s: %v", a.name, err)
		}
		for name, bad := range map[string]struct{ ct, label []byte }{
			"label":  {ct, []byte("another")},
			"none":   {nil, []byte("label")},
			"short":  {ct[:len(ct)-1], []byte("label")},
			"long":   {append(bytes.Clone(ct), 0), []byte("label")},
			"larger": {bytes.Repeat([]byte{0xff}, len(ct)), []byte("label")},
		} {
			if got, err := v.DecryptAsymmetric(bad.ct, bad.label); err != ErrDecrypt || got != nil {
				t.Errorf("%s: wrong %s: %x, %v", a.name, name, got, err)
			}
		}
	}
}

func TestHeader(t *testing.T) {
	h := Header{KeyID: 0x0102030405060708, Version: 0x090a0b0c}
	b := h.AppendTo(nil)
	if want := []byte{1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; !bytes.Equal(b, want) {
		t.Fatalf("header is %x", b)
	}
	if got, err := ParseHeader(append(b, "body"...)); err != nil || got != h {
		t.Errorf("parsed %v, %v", got, err)
	}
	for n := range b {
		if _, err := ParseHeader(b[:n]); err != ErrFormat {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	b[0] = 2
	if _, err := ParseHeader(b); err != ErrFormat {
		t.Errorf("another format: %v", err)
	}
}

func TestVersionAccessors(t *testing.T) {
	a := Default(PurposeEncryptDecrypt)
	v := newTestVersion(t, a)
	if v.KeyID() != testKeyID || v.Number() != testVersion || v.Algorithm() != a {
		t.Errorf("%x %d %s", v.KeyID(), v.Number(), v.Algorithm())
	}
}
