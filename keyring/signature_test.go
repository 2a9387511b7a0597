package keyring

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func forEachSigner(t *testing.T, f func(t *testing.T, v *Version)) {
	t.Helper()
	for _, a := range usable(PurposeSignVerify) {
		t.Run(a.name, func(t *testing.T) { f(t, newTestVersion(t, a)) })
	}
}

func TestSignatureFormats(t *testing.T) {
	message := []byte("message")
	forEachSigner(t, func(t *testing.T, v *Version) {
		public := publicHalf(t, v)
		for name, f := range formats {
			sig := must[[]byte](t)(v.Sign(message, SignOptions{Format: f}))
			if a := v.algorithm; f == RAW && a.scalar > 0 && len(sig) != 2*a.scalar {
				t.Errorf("raw signature of %d bytes", len(sig))
			}
			for other, g := range formats {
				same := f == g || v.algorithm.scalar == 0 && f != JWS && g != JWS
				if err := public.Verify(message, sig, SignOptions{Format: g}); (err == nil) != same || err != nil && err != ErrVerify {
					t.Errorf("made as %s, verified as %s: %v", name, other, err)
				}
			}
		}
	})
}

func TestSignDigest(t *testing.T) {
	message := []byte("message")
	forEachSigner(t, func(t *testing.T, v *Version) {
		if v.algorithm.hash == 0 {
			wantInput(t, "digest", func() error { _, err := v.Sign(make([]byte, 32), SignOptions{Digest: true}); return err }())
			wantInput(t, "digest", v.Verify(make([]byte, 32), nil, SignOptions{Digest: true}))
			return
		}
		h := v.algorithm.hash.New()
		h.Write(message)
		digest := h.Sum(nil)
		sig := must[[]byte](t)(v.Sign(digest, SignOptions{Digest: true}))
		if err := v.Verify(message, sig, SignOptions{}); err != nil {
			t.Errorf("of the digest, verified on the message: %v", err)
		}
		sig = must[[]byte](t)(v.Sign(message, SignOptions{}))
		if err := v.Verify(digest, sig, SignOptions{Digest: true}); err != nil {
			t.Errorf("of the message, verified on the digest: %v", err)
		}
		for _, bad := range [][]byte{nil, digest[1:], append(digest, 0)} {
			_, err := v.Sign(bad, SignOptions{Digest: true})
			wantInput(t, "digest", err)
		}
	})
}

func wantInput(t *testing.T, field string, err error) {
	t.Helper()
	var input *InputError
	if !errors.As(err, &input) || input.Field != field {
		t.Errorf("want a refusal of %s, got %v", field, err)
	}
}

func TestUnknownSignatureFormat(t *testing.T) {
	v := newTestVersion(t, Default(PurposeSignVerify))
	_, err := v.Sign(nil, SignOptions{Format: JWS + 1})
	wantInput(t, "format", err)
	wantInput(t, "format", v.Verify(nil, nil, SignOptions{Format: JWS + 1}))
}

func TestVerifyRefusesFlipsAndTruncation(t *testing.T) {
	t.Parallel()
	message := []byte("message")
	forEachSigner(t, func(t *testing.T, v *Version) {
		if strings.HasPrefix(v.algorithm.name, "RSA") && v.algorithm.keySize > 2048 {
			t.Skip("the same code as 2048 bits")
		}
		t.Parallel()
		for name, f := range map[string]Format{"DER": DER, "JWS": JWS} { // RAW is in JWS
			o := SignOptions{Format: f}
			sig := must[[]byte](t)(v.Sign(message, o))
			refuse := func(what string, i int, s []byte) {
				if err := v.Verify(message, s, o); err != ErrVerify {
					t.Errorf("%s, %s %d: %v", name, what, i, err)
				}
			}
			for n := range len(sig) {
				refuse("cut to", n, sig[:n])
			}
			flips(sig, func(i int, changed []byte) { refuse("flipped byte", i, changed) })
			refuse("longer by", 1, append(bytes.Clone(sig), 0))
			if err := v.Verify([]byte("massage"), sig, o); err != ErrVerify {
				t.Errorf("%s: other message: %v", name, err)
			}
		}
	})
}

// One JWS text for one signature: no padding, no line breaks, no stray bits.
func TestJWSIsStrict(t *testing.T) {
	v := newTestVersion(t, row(t, "ED25519")) // 64 bytes leave four bits over
	jws := must[[]byte](t)(v.Sign([]byte("message"), SignOptions{Format: JWS}))
	raw := must[[]byte](t)(base64.RawURLEncoding.DecodeString(string(jws)))
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", jws[len(jws)-1])
	for name, bad := range map[string]string{
		"padded":     base64.URLEncoding.EncodeToString(raw),
		"line break": string(jws[:10]) + "\n" + string(jws[10:]),
		"stray bit":  string(jws[:len(jws)-1]) + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1]),
		"standard":   strings.NewReplacer("-", "+", "_", "/").Replace(string(jws)) + "==",
	} {
		if err := v.Verify([]byte("message"), []byte(bad), SignOptions{Format: JWS}); err != ErrVerify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Low s going out; high s accepted, as other software makes it.
func TestSecp256k1Malleability(t *testing.T) {
	a := row(t, "ECDSA_SECP256K1_SHA256")
	v := newTestVersion(t, a)
	for i := range byte(50) {
		raw := must[[]byte](t)(v.Sign([]byte{i}, SignOptions{Format: RAW}))
		s, ok := secp256k1Scalar(raw[32:])
		if !ok || s.IsOverHalfOrder() {
			t.Fatalf("signature %d has a high s", i)
		}
		high := s.Negate().Bytes()
		if err := v.Verify([]byte{i}, append(raw[:32:32], high[:]...), SignOptions{Format: RAW}); err != nil {
			t.Fatalf("high s: %v", err)
		}
	}
}

func TestRawSignatureOfZeros(t *testing.T) {
	for _, a := range usable(PurposeSignVerify) {
		if a.scalar > 0 {
			v := newTestVersion(t, a)
			if err := v.Verify(nil, make([]byte, 2*a.scalar), SignOptions{Format: RAW}); err != ErrVerify {
				t.Errorf("%s: %v", a.name, err)
			}
		}
	}
}

func TestOpenSSLVerifies(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		unavailable(t, "openssl is missing: install it to check signatures with it")
	}
	forEachSigner(t, func(t *testing.T, v *Version) {
		dir := t.TempDir()
		write := func(name string, content []byte) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		message := []byte("a message for others")
		key := write("key.pem", must[[]byte](t)(v.PublicKeyPEM()))
		good := write("good", must[[]byte](t)(v.Sign(message, SignOptions{})))
		args := opensslArgs(v.algorithm, key, good)
		if out, err := exec.CommandContext(t.Context(), "openssl", append(args, "-in", write("message", message))...).CombinedOutput(); err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
		if out, err := exec.CommandContext(t.Context(), "openssl", append(args, "-in", write("message", []byte("another")))...).CombinedOutput(); err == nil {
			t.Errorf("openssl %v takes another message\n%s", args, out)
		}
	})
}

func opensslArgs(a *Algorithm, key, signature string) []string {
	args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", key, "-sigfile", signature, "-rawin"}
	if a.hash != 0 {
		args = append(args, "-digest", strings.ReplaceAll(a.hash.String(), "-", ""))
	}
	if strings.HasPrefix(a.name, "RSA_PSS") {
		args = append(args, "-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest")
	}
	return args
}

// FuzzVerify: no bytes crash a verifier, and none but the signature hold.
func FuzzVerify(f *testing.F) {
	versions := map[string]*Version{}
	for _, a := range usable(PurposeSignVerify) {
		if a.scalar > 0 || a.hash == 0 {
			v := newTestVersion(f, a)
			versions[a.name] = v
			for _, format := range formats {
				f.Add(must[[]byte](f)(v.Sign([]byte("seed"), SignOptions{Format: format})), uint8(format))
			}
		}
	}
	f.Fuzz(func(t *testing.T, sig []byte, format uint8) {
		for name, v := range versions {
			if err := v.Verify([]byte("another message"), sig, SignOptions{Format: Format(format % 3)}); err != ErrVerify {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
