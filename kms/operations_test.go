package kms

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring"
)

var bindings = map[string]Binding{
	"none":    {},
	"aad":     {AAD: []byte("row 17")},
	"context": {Context: map[string]string{"tenant": "a", "table": "cards"}},
}

func TestEncryptDecryptEveryAlgorithmAndBinding(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for _, a := range keyring.Algorithms() {
		if a.Purpose() != keyring.PurposeEncryptDecrypt {
			continue
		}
		in.key("pay", a.Name(), a.Name())
		for name, b := range bindings {
			sealed, err := in.Encrypt(t.Context(), appCall(), &EncryptRequest{"pay", a.Name(), []byte("secret"), b})
			if err != nil || sealed.Version != 1 {
				t.Fatalf("%s %s: Encrypt = %v, %v", a, name, sealed.Version, err)
			}
			for _, key := range []string{"", a.Name()} {
				opened, err := in.Decrypt(t.Context(), appCall(), &DecryptRequest{"pay", key, sealed.Ciphertext, b})
				if err != nil || string(opened.Plaintext) != "secret" {
					t.Errorf("%s %s: Decrypt = %q, %v", a, name, opened.Plaintext, err)
				}
			}
			for other, wrong := range bindings {
				if other != name {
					_, err := in.Decrypt(t.Context(), appCall(), &DecryptRequest{"pay", "", sealed.Ciphertext, wrong})
					wantCode(t, err, InvalidArgument, "decryption failed")
				}
			}
		}
	}
}

func TestDecryptRefusesDamage(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.key("pay", "other", "")
	sealed := in.encrypt("pay", "card", "secret")
	refused := func(what string, ciphertext []byte) {
		t.Helper()
		_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: ciphertext})
		if CodeOf(err) != InvalidArgument || err.(*Error).Message != "decryption failed" {
			t.Errorf("%s: error %v, want only that decryption failed", what, err)
		}
	}
	for n := range sealed {
		refused("truncated", sealed[:n])
		flipped := bytes.Clone(sealed)
		flipped[n] ^= 0x40
		refused("flipped", flipped)
	}
	refused("longer", append(bytes.Clone(sealed), 0))
	_, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "pay", Key: "other", Ciphertext: sealed})
	wantCode(t, err, InvalidArgument, "decryption failed")
	in.namespace("elsewhere")
	_, err = in.Decrypt(t.Context(), admin(), &DecryptRequest{Namespace: "elsewhere", Ciphertext: sealed})
	wantCode(t, err, InvalidArgument, "decryption failed")
}

func TestSignAndVerifyEveryAlgorithm(t *testing.T) {
	in := newInstallation(t)
	in.namespace("sig")
	for _, a := range keyring.Algorithms() {
		if a.Purpose() != keyring.PurposeSignVerify || a.KeySize() > 2048 {
			continue
		}
		in.key("sig", a.Name(), a.Name())
		for format := keyring.DER; format <= keyring.JWS; format++ {
			signed, err := in.Sign(t.Context(), admin(), &SignRequest{Namespace: "sig", Key: a.Name(), Message: []byte("m"), Format: format})
			if err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			q := &VerifyRequest{Namespace: "sig", Key: a.Name(), Message: []byte("m"), Signature: signed.Signature, Format: format}
			if got, err := in.Verify(t.Context(), admin(), q); err != nil || !got.Valid {
				t.Errorf("%s: Verify = %v, %v", a, got.Valid, err)
			}
			q.Message = []byte("n")
			if got, err := in.Verify(t.Context(), admin(), q); err != nil || got.Valid {
				t.Errorf("%s: Verify of another message = %v, %v", a, got.Valid, err)
			}
		}
		public, err := in.PublicKey(t.Context(), admin(), &PublicKeyRequest{Namespace: "sig", Key: a.Name()})
		if err != nil || !strings.Contains(public.PEM, "BEGIN PUBLIC KEY") || !strings.Contains(public.JWK, `"kid"`) {
			t.Errorf("%s: PublicKey = %v, %v", a, public, err)
		}
	}
}

func TestSignRefusesBadInput(t *testing.T) {
	in := newInstallation(t)
	in.namespace("sig")
	in.key("sig", "ec", "ECDSA_P256_SHA256")
	in.key("sig", "ed", "ED25519")
	in.key("sig", "aes", "")
	digest := sha256.Sum256([]byte("m"))
	for _, c := range []struct {
		name string
		q    SignRequest
		code Code
		part string
	}{
		{"nothing", SignRequest{Key: "ec"}, InvalidArgument, "message"},
		{"both", SignRequest{Key: "ec", Message: []byte("m"), Digest: digest[:]}, InvalidArgument, "exclude"},
		{"short digest", SignRequest{Key: "ec", Digest: digest[:31]}, InvalidArgument, "digest"},
		{"ed25519 digest", SignRequest{Key: "ed", Digest: digest[:]}, InvalidArgument, "digest"},
		{"format", SignRequest{Key: "ec", Message: []byte("m"), Format: 9}, InvalidArgument, "format"},
		{"purpose", SignRequest{Key: "aes", Message: []byte("m")}, FailedPrecondition, "SIGN_VERIFY"},
		{"version", SignRequest{Key: "ec", Message: []byte("m"), Version: 7}, NotFound, "latest is 1"},
		{"key", SignRequest{Key: "none", Message: []byte("m")}, NotFound, "none"},
	} {
		c.q.Namespace = "sig"
		_, err := in.Sign(t.Context(), admin(), &c.q)
		if CodeOf(err) != c.code || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: error %v, want %s with %q", c.name, err, c.code, c.part)
		}
	}
}

func TestMACDecryptAndAgree(t *testing.T) {
	in := newInstallation(t)
	in.namespace("x")
	in.key("x", "mac", "HMAC_SHA256")
	mac := must[MACResponse](t)(in.GenerateMAC(t.Context(), admin(), &MACRequest{Namespace: "x", Key: "mac", Message: []byte("m")}))
	for message, valid := range map[string]bool{"m": true, "n": false} {
		got, err := in.VerifyMAC(t.Context(), admin(), &VerifyMACRequest{Namespace: "x", Key: "mac", Message: []byte(message), MAC: mac.MAC})
		if err != nil || got.Valid != valid {
			t.Errorf("VerifyMAC(%q) = %v, %v", message, got.Valid, err)
		}
	}

	in.key("x", "rsa", "RSA_OAEP_2048_SHA256")
	public := parsePublic(t, in, "rsa").(*rsa.PublicKey)
	sealed := must[[]byte](t)(rsa.EncryptOAEP(sha256.New(), rand.Reader, public, []byte("hello"), []byte("label")))
	opened, err := in.AsymmetricDecrypt(t.Context(), admin(), &AsymmetricDecryptRequest{Namespace: "x", Key: "rsa", Ciphertext: sealed, Label: []byte("label")})
	if err != nil || string(opened.Plaintext) != "hello" {
		t.Errorf("AsymmetricDecrypt = %q, %v", opened.Plaintext, err)
	}
	_, err = in.AsymmetricDecrypt(t.Context(), admin(), &AsymmetricDecryptRequest{Namespace: "x", Key: "rsa", Ciphertext: sealed})
	wantCode(t, err, InvalidArgument, "decryption failed")

	in.key("x", "dh", "X25519")
	ours := parsePublic(t, in, "dh").(*ecdh.PublicKey)
	peer := must[*ecdh.PrivateKey](t)(ecdh.X25519().GenerateKey(rand.Reader))
	shared := must[SharedSecretResponse](t)(in.SharedSecret(t.Context(), admin(), &SharedSecretRequest{Namespace: "x", Key: "dh", PeerPublicKey: peer.PublicKey().Bytes()}))
	if want := must[[]byte](t)(peer.ECDH(ours)); !bytes.Equal(shared.SharedSecret, want) {
		t.Error("the two sides agree on different secrets")
	}
	_, err = in.SharedSecret(t.Context(), admin(), &SharedSecretRequest{Namespace: "x", Key: "dh", PeerPublicKey: make([]byte, 32)})
	wantCode(t, err, InvalidArgument, "peer_public_key")
}

func parsePublic(t *testing.T, in *testInstallation, key string) any {
	t.Helper()
	public := must[PublicKeyResponse](t)(in.PublicKey(t.Context(), admin(), &PublicKeyRequest{Namespace: "x", Key: key}))
	block, _ := pem.Decode([]byte(public.PEM))
	return must[any](t)(x509.ParsePKIXPublicKey(block.Bytes))
}

func TestReEncrypt(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.namespace("archive")
	in.key("pay", "card", "")
	in.key("archive", "cold", "AES_256_GCM")
	for from, source := range bindings {
		for to, destination := range bindings {
			sealed := must[EncryptResponse](t)(in.Encrypt(t.Context(), admin(), &EncryptRequest{"pay", "card", []byte("secret"), source}))
			moved, err := in.ReEncrypt(t.Context(), admin(), &ReEncryptRequest{Namespace: "pay", Ciphertext: sealed.Ciphertext, Binding: source,
				DestinationNamespace: "archive", DestinationKey: "cold", DestinationBinding: destination})
			if err != nil || moved.SourceKey != "card" {
				t.Fatalf("%s to %s: %+v, %v", from, to, moved, err)
			}
			opened, err := in.Decrypt(t.Context(), admin(), &DecryptRequest{"archive", "cold", moved.Ciphertext, destination})
			if err != nil || string(opened.Plaintext) != "secret" {
				t.Errorf("%s to %s: %q, %v", from, to, opened.Plaintext, err)
			}
		}
	}
	// Rights are needed on both sides: this caller has them only in "pay".
	sealed := in.encrypt("pay", "card", "secret")
	_, err := in.ReEncrypt(t.Context(), appCall(), &ReEncryptRequest{Namespace: "pay", Ciphertext: sealed, DestinationNamespace: "archive", DestinationKey: "cold"})
	wantCode(t, err, PermissionDenied)
	if _, err := in.ReEncrypt(t.Context(), appCall(), &ReEncryptRequest{Namespace: "pay", Ciphertext: sealed}); err != nil {
		t.Errorf("ReEncrypt to the same key: %v", err)
	}
}

func TestDataKeysAndRandom(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	made := must[GenerateDataKeyResponse](t)(in.GenerateDataKey(t.Context(), appCall(), &GenerateDataKeyRequest{Namespace: "pay", Key: "card"}))
	in.wantOpens("pay", made.Ciphertext, string(made.Plaintext))
	if len(made.Plaintext) != DefaultDataKey {
		t.Errorf("data key has %d bytes", len(made.Plaintext))
	}
	hidden := must[GenerateDataKeyResponse](t)(in.GenerateDataKey(t.Context(), appCall(), &GenerateDataKeyRequest{Namespace: "pay", Key: "card", Size: 64, OmitPlaintext: true}))
	if hidden.Plaintext != nil {
		t.Error("plaintext was not omitted")
	}
	_, err := in.GenerateDataKey(t.Context(), appCall(), &GenerateDataKeyRequest{Namespace: "pay", Key: "card", Size: MaxDataKey + 1})
	wantCode(t, err, InvalidArgument, "num_bytes", "1024")

	pair := must[GenerateDataKeyPairResponse](t)(in.GenerateDataKeyPair(t.Context(), appCall(), &GenerateDataKeyPairRequest{Namespace: "pay", Key: "card", Algorithm: "ECDSA_P256_SHA256"}))
	in.wantOpens("pay", pair.PrivateKeyCiphertext, string(pair.PrivateKey))
	must[any](t)(x509.ParsePKCS8PrivateKey(pair.PrivateKey))
	_, err = in.GenerateDataKeyPair(t.Context(), appCall(), &GenerateDataKeyPairRequest{Namespace: "pay", Key: "card", Algorithm: "AES_256_GCM"})
	wantCode(t, err, InvalidArgument, "algorithm")

	a := must[GenerateRandomResponse](t)(in.GenerateRandom(t.Context(), appCall(), &GenerateRandomRequest{"pay", MaxRandom}))
	b := must[GenerateRandomResponse](t)(in.GenerateRandom(t.Context(), appCall(), &GenerateRandomRequest{"pay", MaxRandom}))
	if len(a.Data) != MaxRandom || bytes.Equal(a.Data, b.Data) {
		t.Error("random bytes are too few or repeat")
	}
	_, err = in.GenerateRandom(t.Context(), appCall(), &GenerateRandomRequest{"pay", MaxRandom + 1})
	wantCode(t, err, InvalidArgument, "num_bytes")
}

func TestBindingAndPayloadLimits(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for name, c := range map[string]struct {
		q    EncryptRequest
		part string
	}{
		"both":          {EncryptRequest{Plaintext: []byte("x"), Binding: Binding{AAD: []byte("a"), Context: map[string]string{"a": "b"}}}, "exclude"},
		"empty":         {EncryptRequest{}, "plaintext"},
		"large aad":     {EncryptRequest{Plaintext: []byte("x"), Binding: Binding{AAD: make([]byte, MaxAAD+1)}}, "aad"},
		"large context": {EncryptRequest{Plaintext: []byte("x"), Binding: Binding{Context: map[string]string{"a": strings.Repeat("b", keyring.MaxContext)}}}, "encryption_context"},
		"bad UTF-8":     {EncryptRequest{Plaintext: []byte("x"), Binding: Binding{Context: map[string]string{"a": "\xff"}}}, "encryption_context"},
	} {
		c.q.Namespace, c.q.Key = "pay", "card"
		_, err := in.Encrypt(t.Context(), admin(), &c.q)
		if CodeOf(err) != InvalidArgument || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: error %v, want one about %s", name, err, c.part)
		}
	}
}
