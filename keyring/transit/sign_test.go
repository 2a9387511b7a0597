package transit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/keywright/keywright/keyring"
)

func TestSignatures(t *testing.T) {
	message := []byte("message")
	for _, s := range usable() {
		if !s.Type.Signs() {
			continue
		}
		v := newTestVersion(t, s)
		for _, o := range []SignOptions{{}, {Marshaling: "jws"}, {HashAlgorithm: "sha3-384", Algorithm: "pkcs1v15"}, {HashAlgorithm: "sha2-224", SaltLength: "HASH"}, {SaltLength: "17"}} {
			o.Context = params(s).Context
			signed, public, err := v.Sign([]byte("before "), message, o)
			if err != nil || !bytes.HasPrefix(signed, []byte("before vault:v7:")) || (public != nil) != s.Derived {
				t.Fatalf("%s, %+v: %s, %x, %v", s, o, signed, public, err)
			}
			_, body, _ := ParseVersion("signature", signed[len("before "):])
			if o.Marshaling == "jws" && bytes.ContainsAny(body, "+/=") {
				t.Errorf("%s: jws as %s", s, body)
			}
			if err := v.Verify(message, body, o); err != nil {
				t.Errorf("%s, %+v: %v", s, o, err)
			}
			for what, err := range map[string]error{
				"another message": v.Verify([]byte("Message"), body, o),
				"cut":             v.Verify(message, body[:len(body)-4], o),
				"nothing":         v.Verify(message, nil, o),
				"no base64":       v.Verify(message, []byte("!"), o),
				"another key":     newTestVersion(t, Settings{Type: typeOf(t, "ed25519")}).Verify(message, body, SignOptions{Marshaling: o.Marshaling}),
			} {
				if err != keyring.ErrVerify {
					t.Errorf("%s, %+v: %s: %v", s, o, what, err)
				}
			}
		}
	}
}

func TestDerivedPublicKeys(t *testing.T) {
	v := newTestVersion(t, Settings{Type: typeOf(t, "ed25519"), Derived: true})
	keys := map[string]bool{}
	for _, context := range []string{"one", "another"} {
		signed, public, err := v.Sign(nil, []byte("message"), SignOptions{Context: []byte(context)})
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := ParseVersion("signature", signed)
		signature := must[[]byte](t)(base64.StdEncoding.AppendDecode(nil, body))
		if !ed25519.Verify(public, []byte("message"), signature) {
			t.Error("the public key does not verify the signature")
		}
		if shown, err := v.PublicKeyFor([]byte(context)); err != nil || shown != base64.StdEncoding.EncodeToString(public) {
			t.Errorf("a read shows %s, %v", shown, err)
		}
		keys[string(public)] = true
	}
	if len(keys) != 2 || v.PublicKey() != "" {
		t.Errorf("%d keys, and %s", len(keys), v.PublicKey())
	}
	if shown, err := v.PublicKeyFor(nil); err != nil || shown != "" {
		t.Errorf("without a context, a read shows %s, %v", shown, err)
	}
	p256 := newTestVersion(t, Settings{Type: typeOf(t, "ecdsa-p256")})
	if shown, err := p256.PublicKeyFor([]byte("context")); err != nil || shown != p256.PublicKey() {
		t.Errorf("a read of a key that is not derived shows %s, %v", shown, err)
	}
}

func TestPrehashed(t *testing.T) {
	digest := sha256.Sum256([]byte("message"))
	for _, name := range []string{"ecdsa-p256", "ecdsa-p384", "rsa-2048"} {
		v := newTestVersion(t, Settings{Type: typeOf(t, name)})
		signed, _, err := v.Sign(nil, digest[:], SignOptions{Prehashed: true})
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := ParseVersion("signature", signed)
		if err := v.Verify([]byte("message"), body, SignOptions{}); err != nil {
			t.Errorf("%s: the message does not verify: %v", name, err)
		}
		_, _, err = v.Sign(nil, []byte(hex.EncodeToString(digest[:5])), SignOptions{Prehashed: true})
		wantInput(t, name+" of no digest", err, "input")
		wantInput(t, name+" verifies no digest", v.Verify(nil, body, SignOptions{Prehashed: true}), "input")
	}
}

func TestSignOptionsThatDoNotFit(t *testing.T) {
	rsa, ed := newTestVersion(t, Settings{Type: typeOf(t, "rsa-2048")}), newTestVersion(t, Settings{Type: typeOf(t, "ed25519"), Derived: true})
	long := []byte(strings.Repeat("m", 246))
	for _, x := range []struct {
		v     *Version
		o     SignOptions
		field string
	}{
		{rsa, SignOptions{HashAlgorithm: "sha256"}, "hash_algorithm"},
		{rsa, SignOptions{HashAlgorithm: "none"}, "hash_algorithm"},
		{rsa, SignOptions{HashAlgorithm: "none", Prehashed: true}, "hash_algorithm"},
		{rsa, SignOptions{HashAlgorithm: "none", Algorithm: "pkcs1v15"}, "hash_algorithm"},
		{rsa, SignOptions{HashAlgorithm: "none", Algorithm: "pkcs1v15", Prehashed: true}, "input"},
		{rsa, SignOptions{Algorithm: "rsa"}, "signature_algorithm"},
		{rsa, SignOptions{Marshaling: "der"}, "marshaling_algorithm"},
		{rsa, SignOptions{SaltLength: "-2"}, "salt_length"},
		{rsa, SignOptions{SaltLength: "some"}, "salt_length"},
		{rsa, SignOptions{SaltLength: "223"}, "salt_length"},
		{rsa, SignOptions{Context: []byte("c")}, "context"},
		{rsa, SignOptions{Prehashed: true}, "input"},
		{ed, SignOptions{}, "context"},
	} {
		_, _, err := x.v.Sign(nil, long, x.o)
		if forbidden(err) && x.o.HashAlgorithm == "none" {
			continue
		}
		wantInput(t, fmt.Sprintf("sign with %+v", x.o), err, x.field)
		wantInput(t, fmt.Sprintf("verify with %+v", x.o), x.v.Verify(long, nil, x.o), x.field)
	}
}

func TestHashes(t *testing.T) {
	for name, want := range map[string]string{ // of "abc", FIPS 180-4 and FIPS 202
		"":         "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha2-224": "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
		"sha2-256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"sha2-384": "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
		"sha2-512": "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
		"sha3-224": "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
		"sha3-256": "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
		"sha3-384": "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
		"sha3-512": "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
	} {
		if got, err := Hash(name, []byte("abc")); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	for _, name := range []string{"sha1", "none", "md5", "SHA2-256"} {
		_, err := Hash(name, nil)
		wantInput(t, name, err, "algorithm")
	}
}

func TestHMACsThatDoNotHold(t *testing.T) {
	for _, s := range usable() {
		v := newTestVersion(t, s)
		_, body, _ := ParseVersion("hmac", must[[]byte](t)(v.HMAC(nil, []byte("message"), "sha3-256")))
		for what, err := range map[string]error{
			"another message": v.VerifyHMAC([]byte("Message"), body, "sha3-256"),
			"another hash":    v.VerifyHMAC([]byte("message"), body, "sha2-256"),
			"cut":             v.VerifyHMAC([]byte("message"), body[:8], "sha3-256"),
			"nothing":         v.VerifyHMAC([]byte("message"), nil, "sha3-256"),
			"no base64":       v.VerifyHMAC([]byte("message"), []byte("!"), "sha3-256"),
		} {
			if err != keyring.ErrVerify {
				t.Errorf("%s: %s: %v", s, what, err)
			}
		}
		for _, name := range []string{"none", "sha256"} {
			_, err := v.HMAC(nil, nil, name)
			wantInput(t, name, err, "algorithm")
			wantInput(t, name, v.VerifyHMAC(nil, body, name), "algorithm")
		}
	}
}

func TestVersionsWithoutHMACKey(t *testing.T) {
	s := Settings{Type: typeOf(t, "aes256-gcm96")}
	v := must[*Version](t)(NewVersion(s, 1, secret{key: make([]byte, 32)}.encode()))
	_, err := v.HMAC(nil, nil, "")
	wantInput(t, "hmac", err, "key_version")
	wantInput(t, "verify", v.VerifyHMAC(nil, []byte("YQ=="), ""), "key_version")
}
