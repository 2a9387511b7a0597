package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// transitKey makes a key of VAULT framing in namespace pay.
func (in *testInstallation) transitKey(name string, o TransitOptions) Key {
	in.t.Helper()
	return must[Key](in.t)(in.CreateKey(context.Background(), admin(), CreateKeyRequest{Namespace: "pay", Key: name, Transit: &o}))
}

func (in *testInstallation) rotate(name string) uint32 {
	in.t.Helper()
	return must[KeyVersion](in.t)(in.RotateKey(context.Background(), admin(), KeyRef{Namespace: "pay", Key: name})).Version
}

// transitSeal encrypts with a key of VAULT framing; version 0 is the latest.
func (in *testInstallation) transitSeal(name string, version uint32, text string, p transit.Params) []byte {
	in.t.Helper()
	return must[TransitEncryptResponse](in.t)(in.TransitEncrypt(context.Background(), admin(),
		&TransitEncryptRequest{Namespace: "pay", Key: name, Version: version, Plaintext: []byte(text), Params: p})).Ciphertext
}

func (in *testInstallation) transitOpen(name string, ciphertext []byte, p transit.Params) (DecryptResponse, error) {
	return in.TransitDecrypt(context.Background(), admin(), &TransitDecryptRequest{Namespace: "pay", Key: name, Ciphertext: ciphertext, Params: p})
}

func (in *testInstallation) wantTransitOpens(name string, ciphertext []byte, text string, p transit.Params) {
	in.t.Helper()
	got, err := in.transitOpen(name, ciphertext, p)
	if err != nil || string(got.Plaintext) != text {
		in.t.Fatalf("%s: TransitDecrypt(%s) = %q, %v, want %q", name, ciphertext, got.Plaintext, err, text)
	}
}

// transitKinds are all sensible settings of all types, by the key's name.
func transitKinds() map[string]TransitOptions {
	kinds := map[string]TransitOptions{}
	for _, kind := range transit.Types() {
		kinds[kind.Name()] = TransitOptions{Type: kind.Name()}
		if kind.Derives() {
			kinds[kind.Name()+".derived"] = TransitOptions{Type: kind.Name(), Derived: true}
		}
		if kind.Converges() {
			kinds[kind.Name()+".convergent"] = TransitOptions{Type: kind.Name(), Derived: true, Convergent: true}
		}
	}
	return kinds
}

func (o TransitOptions) params() transit.Params {
	if o.Derived {
		return transit.Params{Context: []byte("tenant 7")}
	}
	return transit.Params{}
}

func TestTransitKeysOfEveryType(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	kinds := transitKinds()
	if len(kinds) < 12 {
		t.Fatalf("only %d kinds of keys", len(kinds))
	}
	sealed, signed, macs := map[string][]byte{}, map[string][]byte{}, map[string][]byte{}
	for name, o := range kinds {
		k := in.transitKey(name, o)
		if k.Transit == nil || k.Transit.Type != o.Type || k.Transit.MinDecryptionVersion != 1 || k.Algorithm == "" {
			t.Errorf("%s: made %+v", name, k)
		}
		kind, _ := transit.LookupType(o.Type)
		if kind.Encrypts() {
			sealed[name] = in.transitSeal(name, 0, "secret of "+name, o.params())
		}
		if kind.Signs() {
			signed[name] = must[TransitSignResponse](t)(in.TransitSign(t.Context(), admin(), &TransitSignRequest{Namespace: "pay", Key: name, Message: []byte("m"),
				Options: transit.SignOptions{Context: o.params().Context}})).Signature
		}
		macs[name] = must[TransitHMACResponse](t)(in.TransitHMAC(t.Context(), admin(), &TransitHMACRequest{Namespace: "pay", Key: name, Message: []byte("m")})).HMAC
	}
	check := func() {
		t.Helper()
		for name, ciphertext := range sealed {
			in.wantTransitOpens(name, ciphertext, "secret of "+name, kinds[name].params())
		}
		for name, signature := range signed {
			q := &TransitVerifyRequest{Namespace: "pay", Key: name, Message: []byte("m"), Signature: signature, Options: transit.SignOptions{Context: kinds[name].params().Context}}
			if got, err := in.TransitVerify(t.Context(), admin(), q); err != nil || !got.Valid || got.Version != 1 {
				t.Errorf("%s: TransitVerify = %+v, %v", name, got, err)
			}
		}
		for name, mac := range macs {
			q := &TransitVerifyHMACRequest{Namespace: "pay", Key: name, Message: []byte("m"), HMAC: mac}
			if got, err := in.TransitVerifyHMAC(t.Context(), admin(), q); err != nil || !got.Valid {
				t.Errorf("%s: TransitVerifyHMAC = %+v, %v", name, got, err)
			}
		}
	}
	check()
	in.close()
	in.open() // from the store
	check()
	for name := range kinds {
		in.rotate(name)
	}
	check() // with the older version
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	check()
	in.close()
	in.open()
	check()
	in.wantBracketed()
}

func TestTransitCiphertexts(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("card", TransitOptions{})
	in.transitKey("same", TransitOptions{Derived: true, Convergent: true})
	a, b := transit.Params{Context: []byte("a")}, transit.Params{Context: []byte("b")}

	if sealed := in.transitSeal("card", 0, "x", transit.Params{}); !bytes.HasPrefix(sealed, []byte("vault:v1:")) {
		t.Errorf("ciphertext %s", sealed)
	}
	in.wantTransitOpens("card", in.transitSeal("card", 0, "", transit.Params{}), "", transit.Params{})
	bound := in.transitSeal("card", 0, "x", transit.Params{AAD: []byte("row 7")})
	in.wantTransitOpens("card", bound, "x", transit.Params{AAD: []byte("row 7")})
	_, err := in.transitOpen("card", bound, transit.Params{AAD: []byte("row 8")})
	wantCode(t, err, InvalidArgument, "decryption failed")

	one := in.transitSeal("same", 0, "x", a)
	if again := in.transitSeal("same", 0, "x", a); !bytes.Equal(one, again) {
		t.Errorf("a convergent key made %s and %s of the same", one, again)
	}
	if other := in.transitSeal("same", 0, "x", b); bytes.Equal(one, other) {
		t.Error("another context gave the same ciphertext")
	}
	_, err = in.transitOpen("same", one, b)
	wantCode(t, err, InvalidArgument, "decryption failed")
	for name, c := range map[string]struct {
		q    TransitEncryptRequest
		part string
	}{
		"AAD with a convergent key": {TransitEncryptRequest{Key: "same", Params: transit.Params{Context: []byte("a"), AAD: []byte("x")}}, "associated_data"},
		"no context":                {TransitEncryptRequest{Key: "same"}, "context"},
		"context of no derived key": {TransitEncryptRequest{Key: "card", Params: a}, "context"},
		"a context too long":        {TransitEncryptRequest{Key: "same", Params: transit.Params{Context: make([]byte, MaxAAD+1)}}, "the limit is 65536"},
		"AAD too long":              {TransitEncryptRequest{Key: "card", Params: transit.Params{AAD: make([]byte, MaxAAD+1)}}, "the limit is 65536"},
		"a version to come":         {TransitEncryptRequest{Key: "card", Version: 2}, "key_version is 2, and the latest version of key card is 1"},
	} {
		c.q.Namespace = "pay"
		_, err := in.TransitEncrypt(t.Context(), admin(), &c.q)
		t.Run(name, func(t *testing.T) { wantCode(t, err, InvalidArgument, c.part) })
	}
	for _, text := range []string{"", "vault", "vault:v1", "vault:v0:AAAA", "vault:1:AAAA", "keywright:v1:AAAA", "vault:v1:AAAA:AAAA", "vault:v9:AAAA", "vault:v1:!", "vault:v1:AAAA"} {
		_, err := in.transitOpen("card", []byte(text), transit.Params{})
		wantCode(t, err, InvalidArgument)
	}
}

func TestTransitRewrapAndDataKey(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("card", TransitOptions{})
	sealed := in.transitSeal("card", 0, "x", transit.Params{AAD: []byte("old")})
	in.rotate("card")
	rewrap := &TransitRewrapRequest{Namespace: "pay", Key: "card", Ciphertext: sealed, Params: transit.Params{AAD: []byte("old")}, EncryptParams: &transit.Params{}}
	again := must[TransitEncryptResponse](t)(in.TransitRewrap(t.Context(), admin(), rewrap))
	if again.Version != 2 || !bytes.HasPrefix(again.Ciphertext, []byte("vault:v2:")) {
		t.Errorf("rewrapped %s as version %d", again.Ciphertext, again.Version)
	}
	in.wantTransitOpens("card", again.Ciphertext, "x", transit.Params{})
	if e := in.last("ReEncrypt"); e.Version != 1 || e.Details["destination"] != "pay/card" || e.Details["destination_version"] != "2" {
		t.Errorf("logged %+v", e)
	}

	for _, size := range []int{16, 32, 64} {
		q := &TransitDataKeyRequest{Namespace: "pay", Key: "card", Size: size}
		made := must[GenerateDataKeyResponse](t)(in.TransitDataKey(t.Context(), admin(), q))
		if len(made.Plaintext) != size {
			t.Errorf("a data key of %d bytes has %d", size, len(made.Plaintext))
		}
		in.wantTransitOpens("card", made.Ciphertext, string(made.Plaintext), transit.Params{})
		q.OmitPlaintext = true
		if made := must[GenerateDataKeyResponse](t)(in.TransitDataKey(t.Context(), admin(), q)); made.Plaintext != nil {
			t.Error("the plaintext was to be omitted")
		}
	}
	_, err := in.TransitDataKey(t.Context(), admin(), &TransitDataKeyRequest{Namespace: "pay", Key: "card", Size: 24})
	wantCode(t, err, InvalidArgument, "bits is 192; use 128, 256 or 512")
}

func TestTransitSignatures(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("signer", TransitOptions{Type: "ecdsa-p256"})
	in.transitKey("card", TransitOptions{})
	signature := must[TransitSignResponse](t)(in.TransitSign(t.Context(), admin(), &TransitSignRequest{Namespace: "pay", Key: "signer", Message: []byte("m")})).Signature
	verify := func(message, signature string) (VerifyResponse, error) {
		return in.TransitVerify(t.Context(), admin(), &TransitVerifyRequest{Namespace: "pay", Key: "signer", Message: []byte(message), Signature: []byte(signature)})
	}
	for _, c := range []struct {
		message, signature string
		valid              bool
	}{
		{"m", string(signature), true},
		{"n", string(signature), false},
		{"m", "vault:v1:AAAA", false},
		{"m", "vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, 72)), false},
	} {
		if got, err := verify(c.message, c.signature); err != nil || got.Valid != c.valid {
			t.Errorf("verify %q, %q: %+v, %v", c.message, c.signature, got, err)
		}
	}
	_, err := verify("m", strings.TrimPrefix(string(signature), "vault:"))
	wantCode(t, err, InvalidArgument, "signature")
	_, err = in.TransitSign(t.Context(), admin(), &TransitSignRequest{Namespace: "pay", Key: "card", Message: []byte("m")})
	wantCode(t, err, FailedPrecondition, "aes256-gcm96", "does not sign")
	_, err = in.TransitEncrypt(t.Context(), admin(), &TransitEncryptRequest{Namespace: "pay", Key: "signer", Plaintext: []byte("m")})
	wantCode(t, err, FailedPrecondition, "ecdsa-p256", "does not encrypt")
	_, err = in.transitOpen("signer", []byte("vault:v1:AAAA"), transit.Params{})
	wantCode(t, err, FailedPrecondition, "does not decrypt")
	if got, err := in.TransitVerifyHMAC(t.Context(), admin(), &TransitVerifyHMACRequest{Namespace: "pay", Key: "card", Message: []byte("m"), HMAC: []byte("vault:v1:AAAA")}); err != nil || got.Valid {
		t.Errorf("another HMAC: %+v, %v", got, err)
	}
}

func TestFramingsDoNotMix(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "native", "")
	in.transitKey("vault", TransitOptions{Type: "rsa-2048"})
	sealed := in.encrypt("pay", "native", "x")
	ctx := t.Context()
	for name, err := range map[string]error{
		"encrypt":     second(in.Encrypt(ctx, admin(), &EncryptRequest{Namespace: "pay", Key: "vault", Plaintext: []byte("x")})),
		"decrypt":     second(in.Decrypt(ctx, admin(), &DecryptRequest{Namespace: "pay", Key: "vault", Ciphertext: sealed})),
		"re-encrypt":  second(in.ReEncrypt(ctx, admin(), &ReEncryptRequest{Namespace: "pay", Ciphertext: sealed, DestinationKey: "vault"})),
		"data key":    second(in.GenerateDataKey(ctx, admin(), &GenerateDataKeyRequest{Namespace: "pay", Key: "vault"})),
		"sign":        second(in.Sign(ctx, admin(), &SignRequest{Namespace: "pay", Key: "vault", Message: []byte("x")})),
		"verify":      second(in.Verify(ctx, admin(), &VerifyRequest{Namespace: "pay", Key: "vault", Message: []byte("x")})),
		"MAC":         second(in.GenerateMAC(ctx, admin(), &MACRequest{Namespace: "pay", Key: "vault", Message: []byte("x")})),
		"public key":  second(in.PublicKey(ctx, admin(), &PublicKeyRequest{Namespace: "pay", Key: "vault"})),
		"export":      second(in.ExportKey(ctx, admin(), ExportKeyRequest{Namespace: "pay", Key: "vault", PublicKey: exportToDER()})),
		"set primary": second(in.SetPrimaryVersion(ctx, admin(), VersionRef{Namespace: "pay", Key: "vault", Version: 2})),
		"parameters":  second(in.GetImportParameters(ctx, admin(), ImportParametersRequest{Namespace: "pay", Key: "vault"})),

		"transit encrypt":     second(in.TransitEncrypt(ctx, admin(), &TransitEncryptRequest{Namespace: "pay", Key: "native"})),
		"transit decrypt":     second(in.transitOpen("native", []byte("vault:v1:AAAA"), transit.Params{})),
		"transit rewrap":      second(in.TransitRewrap(ctx, admin(), &TransitRewrapRequest{Namespace: "pay", Key: "native"})),
		"transit data key":    second(in.TransitDataKey(ctx, admin(), &TransitDataKeyRequest{Namespace: "pay", Key: "native", Size: 32})),
		"transit sign":        second(in.TransitSign(ctx, admin(), &TransitSignRequest{Namespace: "pay", Key: "native"})),
		"transit verify":      second(in.TransitVerify(ctx, admin(), &TransitVerifyRequest{Namespace: "pay", Key: "native"})),
		"transit HMAC":        second(in.TransitHMAC(ctx, admin(), &TransitHMACRequest{Namespace: "pay", Key: "native"})),
		"transit verify HMAC": second(in.TransitVerifyHMAC(ctx, admin(), &TransitVerifyHMACRequest{Namespace: "pay", Key: "native"})),
		"transit read":        second(in.ReadTransitKey(ctx, admin(), ReadTransitRequest{Namespace: "pay", Key: "native"})),
		"transit configure":   second(in.ConfigureTransitKey(ctx, admin(), ConfigureTransitRequest{Namespace: "pay", Key: "native"})),
		"transit trim":        second(in.TrimTransitKey(ctx, admin(), TrimTransitRequest{Namespace: "pay", Key: "native", MinAvailableVersion: 1})),
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, err, FailedPrecondition, "framing", "use ")
			if reasonOf(err) != "WRONG_FRAMING" {
				t.Errorf("reason %s", reasonOf(err))
			}
		})
	}
}

func TestTransitObeysPolicies(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("card", TransitOptions{})
	in.transitKey("other", TransitOptions{})
	sealed := in.transitSeal("card", 0, "x", transit.Params{})
	one := as(policy.Token, "one") // may encrypt and decrypt with pay/card
	encrypt := func(call Call, key string) error {
		return second(in.TransitEncrypt(t.Context(), call, &TransitEncryptRequest{Namespace: "pay", Key: key, Plaintext: []byte("x")}))
	}
	wantCode(t, encrypt(one, "card"), OK)
	wantCode(t, encrypt(one, "other"), PermissionDenied)
	wantCode(t, encrypt(one, "none"), PermissionDenied)
	wantCode(t, encrypt(nobody(), "card"), PermissionDenied)
	for name, err := range map[string]error{
		"decrypt":     second(in.TransitDecrypt(t.Context(), nobody(), &TransitDecryptRequest{Namespace: "pay", Key: "card", Ciphertext: sealed})),
		"rewrap":      second(in.TransitRewrap(t.Context(), nobody(), &TransitRewrapRequest{Namespace: "pay", Key: "card", Ciphertext: sealed})),
		"sign":        second(in.TransitSign(t.Context(), one, &TransitSignRequest{Namespace: "pay", Key: "card"})),
		"verify":      second(in.TransitVerify(t.Context(), one, &TransitVerifyRequest{Namespace: "pay", Key: "card"})),
		"HMAC":        second(in.TransitHMAC(t.Context(), one, &TransitHMACRequest{Namespace: "pay", Key: "card"})),
		"verify HMAC": second(in.TransitVerifyHMAC(t.Context(), one, &TransitVerifyHMACRequest{Namespace: "pay", Key: "card"})),
		"read":        second(in.ReadTransitKey(t.Context(), nobody(), ReadTransitRequest{Namespace: "pay", Key: "card"})),
		"configure":   second(in.ConfigureTransitKey(t.Context(), one, ConfigureTransitRequest{Namespace: "pay", Key: "card"})),
		"trim":        second(in.TrimTransitKey(t.Context(), one, TrimTransitRequest{Namespace: "pay", Key: "card", MinAvailableVersion: 1})),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, PermissionDenied) })
	}
	if e := in.last(string(policy.Encrypt)); e.Decision != audit.Deny || e.Principal != `User::"nobody"` {
		t.Errorf("logged %+v", e)
	}
}

func TestTransitBatch(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("card", TransitOptions{})
	in.transitKey("signer", TransitOptions{Type: "ed25519"})
	sealed := in.transitSeal("card", 0, "x", transit.Params{})
	mac := must[TransitHMACResponse](t)(in.TransitHMAC(t.Context(), admin(), &TransitHMACRequest{Namespace: "pay", Key: "card", Message: []byte("m")})).HMAC
	signature := must[TransitSignResponse](t)(in.TransitSign(t.Context(), admin(), &TransitSignRequest{Namespace: "pay", Key: "signer", Message: []byte("m")})).Signature
	operations := []Operation{
		&TransitEncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")},
		&TransitEncryptRequest{Namespace: "pay", Key: "card", Version: 7, Plaintext: []byte("x")},
		&TransitDecryptRequest{Namespace: "pay", Key: "card", Ciphertext: sealed},
		&TransitDecryptRequest{Namespace: "pay", Key: "card", Ciphertext: []byte("vault:v1:AAAA")},
		&TransitRewrapRequest{Namespace: "pay", Key: "card", Ciphertext: sealed},
		&TransitDataKeyRequest{Namespace: "pay", Key: "card", Size: 32},
		&TransitSignRequest{Namespace: "pay", Key: "signer", Message: []byte("m")},
		&TransitVerifyRequest{Namespace: "pay", Key: "signer", Message: []byte("m"), Signature: signature},
		&TransitHMACRequest{Namespace: "pay", Key: "card", Message: []byte("m")},
		&TransitVerifyHMACRequest{Namespace: "pay", Key: "card", Message: []byte("m"), HMAC: mac},
		(*TransitEncryptRequest)(nil),
	}
	failed := map[int]bool{1: true, 3: true, 10: true}
	before := in.audit.Next()
	results := must[[]Result](t)(in.Batch(t.Context(), admin(), operations))
	for i, r := range results {
		if (r.Err != nil) != failed[i] {
			t.Errorf("item %d: %v", i, r.Err)
		}
	}
	if got, ok := results[9].Response.(*VerifyResponse); !ok || !got.Valid {
		t.Errorf("item 9: %+v", results[9])
	}
	entries := in.entries(audit.Filter{From: before})
	if len(entries) != 1 {
		t.Fatalf("%d entries tell of the batch", len(entries))
	}
	var done, refused uint32
	for _, c := range entries[0].Batch {
		done, refused = done+c.OK, refused+c.Failed
	}
	if done != 9 || refused != 3 { // a rewrap is two uses
		t.Errorf("%d items done, %d failed: %+v", done, refused, entries[0].Batch)
	}
}

// Neither what is encrypted nor what a key is derived by is in the log or the store.
func TestTransitKeepsSecrets(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("card", TransitOptions{Derived: true})
	in.transitKey("mac", TransitOptions{Type: "hmac"})
	p := transit.Params{Context: []byte("the patient's number 4711")}
	sealed := in.transitSeal("card", 0, "the very secret plaintext", p)
	in.wantTransitOpens("card", sealed, "the very secret plaintext", p)
	_, err := in.transitOpen("card", sealed, transit.Params{Context: []byte("another patient's 4712")})
	wantCode(t, err, InvalidArgument)
	must[TransitHMACResponse](t)(in.TransitHMAC(t.Context(), admin(), &TransitHMACRequest{Namespace: "pay", Key: "mac", Message: []byte("the very secret plaintext")}))
	must[TransitEncryptResponse](t)(in.TransitRewrap(t.Context(), admin(), &TransitRewrapRequest{Namespace: "pay", Key: "card", Ciphertext: sealed, Params: p}))
	in.close()
	for _, secret := range []string{"the very secret plaintext", "the patient's number 4711", "another patient's 4712", string(sealed)} {
		in.wantNowhere([]byte(secret))
	}
	in.open()
}
