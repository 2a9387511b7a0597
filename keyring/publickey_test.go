package keyring

import (
	"bytes"
	"crypto/ecdh"
	"crypto/fips140"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// RFC 8037 appendix A.2 gives the public JWK of a known private key.
func TestJWKOfRFC8037(t *testing.T) {
	var seed hexBytes
	if err := seed.UnmarshalText([]byte("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")); err != nil {
		t.Fatal(err)
	}
	v := must[*Version](t)(NewVersion(row(t, "ED25519"), 1, 1, NewMaterial(seed)))
	got := string(must[[]byte](t)(v.PublicKeyJWK("")))
	want := `{"kty":"OKP","use":"sig","alg":"EdDSA","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	if got != want {
		t.Errorf("JWK is %s", got)
	}
}

func TestJWKMembers(t *testing.T) {
	for _, a := range usable("") {
		j, err := newTestVersion(t, a).PublicKeyJWK("the-id")
		if a.purpose == PurposeEncryptDecrypt || a.purpose == PurposeMAC {
			if !errors.Is(err, ErrPurpose) {
				t.Errorf("%s shows a public key: %s, %v", a.name, j, err)
			}
			continue
		}
		var k jwk
		if err := json.Unmarshal(j, &k); err != nil {
			t.Fatal(err)
		}
		use := map[bool]string{true: "sig", false: "enc"}[a.purpose == PurposeSignVerify]
		if k.KeyID != "the-id" || k.Use != use || k.Algorithm != a.jwa || bytes.Contains(j, []byte(`"d"`)) {
			t.Errorf("%s: %s", a.name, j)
		}
		if k.KeyType == "RSA" && (k.E != "AQAB" || len(k.N) != (a.keySize/8*4+2)/3) {
			t.Errorf("%s: e is %s, n has %d characters", a.name, k.E, len(k.N))
		}
		if size := (a.keySize + 7) / 8; k.KeyType == "EC" && (len(k.X) != (size*4+2)/3 || len(k.Y) != len(k.X)) {
			t.Errorf("%s: coordinates of %d and %d characters", a.name, len(k.X), len(k.Y))
		}
	}
}

func TestOpenSSLReadsPublicKeys(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		unavailable(t, "openssl is missing: install it to check public keys with it")
	}
	want := map[string]string{
		"ECDSA_SECP256K1_SHA256": "secp256k1", "ECDSA_P256_SHA256": "prime256v1", "ECDH_P384": "secp384r1",
		"X25519": "X25519", "ED25519": "ED25519", "RSA_OAEP_2048_SHA256": "2048 bit",
	}
	for name, text := range want {
		a, _ := Lookup(name)
		if fips140.Enforced() && !a.fips {
			continue // its refusal is tested elsewhere
		}
		cmd := exec.CommandContext(t.Context(), "openssl", "pkey", "-pubin", "-noout", "-text")
		cmd.Stdin = bytes.NewReader(must[[]byte](t)(newTestVersion(t, a).PublicKeyPEM()))
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), text) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestSharedSecretPeers(t *testing.T) {
	for _, a := range usable(PurposeKeyAgreement) {
		v := newTestVersion(t, a)
		peer := must[*Version](t)(NewVersion(a, 2, 1, must[Material](t)(a.Generate(seeded("peer")))))
		want := must[[]byte](t)(peer.SharedSecret(must[[]byte](t)(v.PublicKeyDER())))
		for form, public := range peerForms(t, peer) {
			if got, err := v.SharedSecret(public); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %x, %v", a.name, form, got, err)
			}
		}
	}
}

func peerForms(t *testing.T, peer *Version) map[string][]byte {
	t.Helper()
	key, _ := must[any](t)(peer.PublicKey()).(*ecdh.PublicKey)
	text := must[[]byte](t)(peer.PublicKeyPEM())
	return map[string][]byte{
		"DER":                  must[[]byte](t)(peer.PublicKeyDER()),
		"PEM":                  text,
		"PEM with blanks":      append(bytes.Clone(text), " \n\n"...),
		"PEM without line end": bytes.TrimSpace(text),
		"raw":                  key.Bytes(),
	}
}

func TestSharedSecretRefuses(t *testing.T) {
	for _, a := range usable(PurposeKeyAgreement) {
		v := newTestVersion(t, a)
		good := peerForms(t, v)
		bad := map[string][]byte{
			"nothing":       nil,
			"zeros":         make([]byte, len(good["raw"])),
			"infinity":      {0},
			"half":          good["raw"][:len(good["raw"])/2],
			"longer DER":    append(bytes.Clone(good["DER"]), 0),
			"two keys":      append(bytes.Clone(good["PEM"]), good["PEM"]...),
			"another label": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good["DER"]}),
			"RSA":           must[[]byte](t)(newTestVersion(t, row(t, "RSA_OAEP_2048_SHA256")).PublicKeyPEM()),
		}
		if _, ok := must[any](t)(v.PublicKey()).(*ecdh.PublicKey); ok && a.name != "X25519" {
			bad["off the curve"] = append(bytes.Clone(good["raw"][:len(good["raw"])-1]), good["raw"][len(good["raw"])-1]^1)
			bad["compressed"] = append([]byte{2}, good["raw"][1:(len(good["raw"])+1)/2]...)
		}
		for _, other := range usable(PurposeKeyAgreement) {
			if other != a {
				bad[other.name] = must[[]byte](t)(newTestVersion(t, other).PublicKeyDER())
			}
		}
		for name, public := range bad {
			if got, err := v.SharedSecret(public); !errors.Is(err, ErrInvalidPublicKey) || got != nil {
				t.Errorf("%s with %s: %x, %v", a.name, name, got, err)
			}
		}
	}
}

// FuzzSharedSecret: no bytes crash the reader of public keys.
func FuzzSharedSecret(f *testing.F) {
	var versions []*Version
	for _, a := range usable(PurposeKeyAgreement) {
		v := newTestVersion(f, a)
		versions = append(versions, v)
		f.Add(must[[]byte](f)(v.PublicKeyDER()))
		f.Add(must[[]byte](f)(v.PublicKeyPEM()))
	}
	f.Fuzz(func(t *testing.T, public []byte) {
		for _, v := range versions {
			if got, err := v.SharedSecret(public); err != nil && (!errors.Is(err, ErrInvalidPublicKey) || got != nil) {
				t.Errorf("%s: %x, %v", v.algorithm, got, err)
			}
		}
	})
}
