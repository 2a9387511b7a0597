package transit

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]struct {
		number uint32
		body   string
	}{
		"vault:v1:YQ==":             {1, "YQ=="},
		"vault:v4294967295:a":       {4294967295, "a"},
		"vault:v12:not base64 here": {12, "not base64 here"},
	} {
		n, body, err := ParseVersion("ciphertext", []byte(text))
		if err != nil || n != want.number || string(body) != want.body {
			t.Errorf("%s: %d, %s, %v", text, n, body, err)
		}
	}
	for _, text := range []string{"", "vault", "vault:", "vault:v", "vault:v1", "vault:v1:", "vault:v:YQ==", "vault:v0:YQ==", "vault:v01:YQ==",
		"vault:v+1:YQ==", "vault:v-1:YQ==", "vault:v4294967296:YQ==", "vault:v99999999999999999999:YQ==", "vault:v1:YQ==:", "vault:v1::YQ==",
		"Vault:v1:YQ==", " vault:v1:YQ==", "vault:V1:YQ==", "vault:v1 :YQ==", "vault:v1.0:YQ==", "bao:v1:YQ=="} {
		_, _, err := ParseVersion("signature", []byte(text))
		wantInput(t, text, err, "signature")
	}
}

func TestCiphertexts(t *testing.T) {
	for _, s := range usable() {
		if !s.Type.Encrypts() {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			v, p := newTestVersion(t, s), params(s)
			if s.Type.AcceptsAAD() && !s.Convergent {
				p.AAD = []byte("data")
			}
			for _, n := range []int{0, 1, 31, 32, 33, 190} {
				plaintext := bytes.Repeat([]byte("p"), n)
				ct := must[[]byte](t)(v.Encrypt([]byte("before "), plaintext, p))
				if !bytes.HasPrefix(ct, []byte("before vault:v7:")) {
					t.Fatalf("ciphertext %s", ct)
				}
				number, body, err := ParseVersion("ciphertext", ct[len("before "):])
				if err != nil || number != 7 {
					t.Fatal(number, err)
				}
				got, err := v.Decrypt([]byte("before "), body, p)
				if err != nil || string(got) != "before "+string(plaintext) {
					t.Fatalf("%d bytes: %q, %v", n, got, err)
				}
				again := must[[]byte](t)(v.Encrypt(nil, plaintext, p))
				if bytes.HasSuffix(ct, again) != s.Convergent {
					t.Errorf("twice the same: %s, %s", ct, again)
				}
			}
		})
	}
}

// Nothing opens that was changed, cut short, or is of another context or data.
func TestTamperedCiphertexts(t *testing.T) {
	for _, s := range usable() {
		if !s.Type.Encrypts() {
			continue
		}
		v, p := newTestVersion(t, s), params(s)
		_, body, _ := ParseVersion("ciphertext", must[[]byte](t)(v.Encrypt(nil, []byte("plaintext"), p)))
		raw := must[[]byte](t)(std.AppendDecode(nil, body))
		for i := range raw {
			changed := bytes.Clone(raw)
			changed[i] ^= 1
			for what, wrong := range map[string][]byte{"changed": changed, "cut": raw[:i]} {
				if i%7 != 0 && s.Type.rsa() {
					continue // each takes a private operation
				}
				if _, err := v.Decrypt(nil, std.AppendEncode(nil, wrong), p); err != keyring.ErrDecrypt {
					t.Errorf("%s, %s at %d: %v", s, what, i, err)
				}
			}
		}
		for _, text := range []string{"", "=", "YQ", "a b", "YR==", string(body) + "A", strings.ReplaceAll(string(body), "=", "") + "_"} {
			if _, err := v.Decrypt(nil, []byte(text), p); err != keyring.ErrDecrypt {
				t.Errorf("%s: %q: %v", s, text, err)
			}
		}
		if s.Derived {
			if _, err := v.Decrypt(nil, body, Params{Context: []byte("contexT")}); err != keyring.ErrDecrypt {
				t.Errorf("%s, another context: %v", s, err)
			}
		}
		if s.Type.AcceptsAAD() {
			p.AAD = []byte("data")
			if _, err := v.Decrypt(nil, body, p); err != keyring.ErrDecrypt {
				t.Errorf("%s, other data: %v", s, err)
			}
		}
	}
}

func TestParamsThatDoNotFit(t *testing.T) {
	aes, rsa := Settings{Type: typeOf(t, "aes256-gcm96")}, Settings{Type: typeOf(t, "rsa-2048")}
	derived := Settings{Type: aes.Type, Derived: true}
	for _, x := range []struct {
		s     Settings
		p     Params
		field string
	}{
		{aes, Params{Context: []byte("c")}, "context"},
		{derived, Params{}, "context"},
		{rsa, Params{AAD: []byte("a")}, "associated_data"},
		{aes, Params{Padding: "oaep"}, "padding_scheme"},
		{rsa, Params{Padding: "OAEP"}, "padding_scheme"},
	} {
		v := newTestVersion(t, x.s)
		_, err := v.Encrypt(nil, []byte("p"), x.p)
		wantInput(t, fmt.Sprintf("encrypt with %s, %+v", x.s, x.p), err, x.field)
		_, err = v.Decrypt(nil, []byte("YQ=="), x.p)
		wantInput(t, fmt.Sprintf("decrypt with %s, %+v", x.s, x.p), err, x.field)
	}
}

func TestConvergentRefusesWhatWouldShareNonces(t *testing.T) {
	v := newTestVersion(t, Settings{Type: typeOf(t, "aes256-gcm96"), Derived: true, Convergent: true})
	_, err := v.Encrypt(nil, nil, Params{Context: []byte("c"), AAD: []byte("a")})
	wantInput(t, "data", err, "associated_data")
}

// Nobody chooses the nonce of a new ciphertext.
func TestNoncesOfCallersAreIgnored(t *testing.T) {
	for _, s := range usable() {
		if !s.Type.AcceptsAAD() {
			continue
		}
		v, p := newTestVersion(t, s), params(s)
		p.Nonce = []byte("12 bytes....")
		_, body, _ := ParseVersion("ciphertext", must[[]byte](t)(v.Encrypt(nil, []byte("plaintext"), p)))
		if raw := must[[]byte](t)(std.AppendDecode(nil, body)); bytes.HasPrefix(raw, p.Nonce) {
			t.Errorf("%s: the caller's nonce is used", s)
		}
		if got, err := v.Decrypt(nil, body, p); err != nil || string(got) != "plaintext" {
			t.Errorf("%s: %q, %v", s, got, err)
		}
	}
}

// Of scheme 1 the nonce is a matter of the caller.
func TestOldConvergentNonces(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("FIPS mode has no convergent keys")
	}
	cases := readGolden(t, "vault").Cases
	i := slices.IndexFunc(cases, func(c goldenCase) bool { return strings.Contains(c.Name, "scheme 1") })
	b := must[*Backup](t)(ParseBackup(cases[i].Backup))
	x := cases[i].Ciphertexts[0]
	v, body := open(t, b, x.Ciphertext)
	for _, nonce := range []string{"", "11 bytes...", "13 bytes....."} {
		_, err := v.Decrypt(nil, body, Params{Context: []byte(x.Context), Nonce: []byte(nonce)})
		wantInput(t, "nonce "+nonce, err, "nonce")
	}
	if _, err := v.Decrypt(nil, body, Params{Context: []byte(x.Context), Nonce: []byte("12 bytes....")}); err != keyring.ErrDecrypt {
		t.Errorf("another nonce: %v", err)
	}
	_, err := v.Encrypt(nil, nil, Params{Context: []byte(x.Context)})
	wantInput(t, "encrypt", err, "key_version")
}

func TestRSAPlaintexts(t *testing.T) {
	v := newTestVersion(t, Settings{Type: typeOf(t, "rsa-2048")})
	for padding, limit := range map[string]int{"": 190, "oaep": 190, "pkcs1v15": 245} {
		_, err := v.Encrypt(nil, make([]byte, limit+1), Params{Padding: padding})
		wantInput(t, "too long with "+padding, err, "plaintext")
		ct, err := v.Encrypt(nil, make([]byte, limit), Params{Padding: padding})
		if forbidden(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := ParseVersion("ciphertext", ct)
		if got, err := v.Decrypt(nil, body, Params{Padding: padding}); err != nil || len(got) != limit {
			t.Errorf("%s: %d bytes, %v", padding, len(got), err)
		}
	}
}

func TestWrongPurpose(t *testing.T) {
	for _, s := range usable() {
		v := newTestVersion(t, s)
		_, encrypt := v.Encrypt(nil, nil, params(s))
		_, decrypt := v.Decrypt(nil, nil, params(s))
		_, _, sign := v.Sign(nil, nil, SignOptions{Context: params(s).Context})
		verify := v.Verify(nil, nil, SignOptions{Context: params(s).Context})
		for what, x := range map[string]struct {
			err  error
			able bool
		}{"encrypt": {encrypt, s.Type.Encrypts()}, "decrypt": {decrypt, s.Type.Decrypts()}, "sign": {sign, s.Type.Signs()}, "verify": {verify, s.Type.Signs()}} {
			if errors.Is(x.err, keyring.ErrPurpose) == x.able {
				t.Errorf("%s: %s: %v", s, what, x.err)
			}
		}
	}
}
