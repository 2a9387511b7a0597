package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" //nolint:gosec // RSA-OAEP, where a token does no other hash
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
)

func newID() (id hsm.KeyID) {
	_, _ = rand.Read(id[:])
	return id
}

func listed(t testing.TB, d *hsm.Device, id hsm.KeyID) bool {
	t.Helper()
	ids, err := d.ListKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(ids, id)
}

// usesOf are the uses of an algorithm's keys.
func usesOf(name string) []hsm.Use {
	for prefix, uses := range map[string][]hsm.Use{
		"AES": {hsm.UseEncrypt, hsm.UseDecrypt}, "HMAC": {hsm.UseMAC}, "RSA_OAEP": {hsm.UseDecryptAsymmetric},
		"ECDH": {hsm.UseAgree}, "X25519": {hsm.UseAgree},
	} {
		if strings.HasPrefix(name, prefix) {
			return uses
		}
	}
	return []hsm.Use{hsm.UseSign}
}

// user uses one key.
type user struct {
	testing.TB
	device *hsm.Device
	key    hsm.Key
}

func (u user) try(use hsm.Use, data, extra []byte) ([]byte, error) {
	return u.device.UseKey(context.Background(), u.key.ID, u.key.Algorithm, use, data, extra)
}

func (u user) use(use hsm.Use, data, extra []byte) []byte {
	u.Helper()
	made, err := u.try(use, data, extra)
	if err != nil {
		u.Fatal(err)
	}
	return made
}

// works uses a key and checks the result with the standard library.
func works(t testing.TB, d *hsm.Device, key hsm.Key) {
	t.Helper()
	u := user{t, d, key}
	switch usesOf(key.Algorithm)[0] {
	case hsm.UseEncrypt:
		u.encrypts()
	case hsm.UseMAC:
		u.macs()
	case hsm.UseSign:
		u.signs()
	case hsm.UseDecryptAsymmetric:
		u.decrypts()
	case hsm.UseAgree:
		u.agrees()
	}
}

func (u user) encrypts() {
	u.Helper()
	for _, size := range []int{0, 1, 32, 5000} {
		plaintext, aad := random(size), random(size%7)
		body := u.use(hsm.UseEncrypt, plaintext, aad)
		if len(body) != size+28 || bytes.Equal(body[:12], u.use(hsm.UseEncrypt, plaintext, aad)[:12]) {
			u.Fatalf("%d bytes: ciphertext of %d bytes, or an IV twice", size, len(body))
		}
		if opened := u.use(hsm.UseDecrypt, body, aad); !bytes.Equal(opened, plaintext) {
			u.Fatalf("%d bytes: opened to something else", size)
		}
		for _, i := range []int{0, 11, 12, len(body) - 1} {
			bad := bytes.Clone(body)
			bad[i] ^= 1
			_, err := u.try(hsm.UseDecrypt, bad, aad)
			want(u, err, hsm.ErrDecrypt, hsm.ClassCaller)
		}
		_, err := u.try(hsm.UseDecrypt, body, append(aad, 0))
		want(u, err, hsm.ErrDecrypt, hsm.ClassCaller)
		_, err = u.try(hsm.UseDecrypt, body[:27], aad)
		want(u, err, hsm.ErrDecrypt, hsm.ClassCaller)
	}
	_, err := u.try(hsm.UseEncrypt, make([]byte, hsm.MaxData+1), nil)
	want(u, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	_, err = u.try(hsm.UseEncrypt, nil, make([]byte, hsm.MaxAAD+1))
	want(u, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
}

func (u user) macs() {
	u.Helper()
	for _, size := range []int{0, 1, 200, 5000} {
		message := random(size)
		tag := u.use(hsm.UseMAC, message, nil)
		if len(tag) != hashOf(u.key.Algorithm).Size() || !bytes.Equal(tag, u.use(hsm.UseMAC, message, nil)) {
			u.Fatalf("tag %x", tag)
		}
	}
}

func (u user) signs() {
	u.Helper()
	data := random(200)
	if h := hashOf(u.key.Algorithm); h != 0 {
		data = random(h.Size())
		_, err := u.try(hsm.UseSign, data[1:], nil)
		want(u, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	}
	signature := u.use(hsm.UseSign, data, nil)
	if !verified(u, u.key, data, signature) {
		u.Fatalf("signature %x does not verify", signature)
	}
	data[0] ^= 1
	if verified(u, u.key, data, signature) {
		u.Fatal("signature verifies for other data")
	}
	_, err := u.try(hsm.UseSign, data, []byte("extra"))
	want(u, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
}

// verified checks a signature with the standard library alone.
func verified(t testing.TB, key hsm.Key, data, signature []byte) bool {
	t.Helper()
	h := hashOf(key.Algorithm)
	switch public := parsePublic(t, key.PublicKey).(type) {
	case ed25519.PublicKey:
		return key.Algorithm == "ED25519" && ed25519.Verify(public, data, signature)
	case *ecdsa.PublicKey:
		return strings.HasPrefix(key.Algorithm, "ECDSA_P"+public.Params().Name[2:]) && ecdsa.VerifyASN1(public, data, signature)
	case *rsa.PublicKey:
		if strings.HasPrefix(key.Algorithm, "RSA_PSS") {
			return rsa.VerifyPSS(public, h, data, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(public, h, data, signature) == nil
	}
	t.Fatalf("no public key of %s", key.Algorithm)
	return false
}

func (u user) decrypts() {
	u.Helper()
	public := parsePublic(u, u.key.PublicKey).(*rsa.PublicKey)
	secret := random(32)
	encrypt := func(label []byte) []byte {
		ciphertext, err := rsa.EncryptOAEP(hashOf(u.key.Algorithm).New(), rand.Reader, public, secret, label)
		if err != nil {
			u.Fatal(err)
		}
		return ciphertext
	}
	ciphertext := encrypt(nil)
	if opened := u.use(hsm.UseDecryptAsymmetric, ciphertext, []byte{}); !bytes.Equal(opened, secret) {
		u.Fatal("opened to something else")
	}
	if os.Getenv("KEYWRIGHT_DEVICE") == "tpm2-pkcs11" {
		u.Log("cannot: refuse a forged RSA-OAEP ciphertext, or one with a label: swtpm takes that for its own failure, and stops")
		return
	}
	opened, err := u.try(hsm.UseDecryptAsymmetric, encrypt([]byte("label")), []byte("label"))
	if errors.Is(err, hsm.ErrInvalidArgument) {
		u.Logf("cannot: label of RSA-OAEP: %v", err)
	} else if err != nil || !bytes.Equal(opened, secret) {
		u.Fatalf("with a label: %v", err)
	}
	ciphertext[len(ciphertext)-1] ^= 1
	for _, bad := range [][]byte{ciphertext, encrypt([]byte("other")), ciphertext[1:], bytes.Repeat([]byte{0xff}, len(ciphertext)), nil} {
		_, err := u.try(hsm.UseDecryptAsymmetric, bad, nil)
		want(u, err, hsm.ErrDecrypt, hsm.ClassCaller)
	}
}

func (u user) agrees() {
	u.Helper()
	public := agreementKey(u, u.key.PublicKey)
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		u.Fatal(err)
	}
	expected, err := peer.ECDH(public)
	if err != nil {
		u.Fatal(err)
	}
	if got := u.use(hsm.UseAgree, peer.PublicKey().Bytes(), nil); !bytes.Equal(got, expected) {
		u.Fatalf("secret %x, want %x", got, expected)
	}
	point := peer.PublicKey().Bytes()
	for _, bad := range [][]byte{nil, point[1:], append(bytes.Clone(point), 0), make([]byte, len(point))} {
		_, err := u.try(hsm.UseAgree, bad, nil)
		want(u, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	}
}

// agrees compares the token with the material that was imported.
func agrees(t testing.TB, d *hsm.Device, key hsm.Key, material []byte) {
	t.Helper()
	u := user{t, d, key}
	switch usesOf(key.Algorithm)[0] {
	case hsm.UseEncrypt:
		block, err := aes.NewCipher(material)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := gcm.Open(nil, nil, u.use(hsm.UseEncrypt, []byte("plaintext"), []byte("aad")), []byte("aad"))
		if err != nil || string(opened) != "plaintext" {
			t.Fatalf("what the token sealed does not open: %v", err)
		}
		if got := u.use(hsm.UseDecrypt, gcm.Seal(nil, nil, []byte("plaintext"), nil), nil); string(got) != "plaintext" {
			t.Fatal("the token opens something else")
		}
	case hsm.UseMAC:
		mac := hmac.New(hashOf(key.Algorithm).New, material)
		mac.Write([]byte("message"))
		if tag := u.use(hsm.UseMAC, []byte("message"), nil); !hmac.Equal(tag, mac.Sum(nil)) {
			t.Fatalf("tag %x", tag)
		}
	}
}

func parsePublic(t testing.TB, der []byte) crypto.PublicKey {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func agreementKey(t testing.TB, der []byte) *ecdh.PublicKey {
	t.Helper()
	switch public := parsePublic(t, der).(type) {
	case *ecdh.PublicKey:
		return public
	case *ecdsa.PublicKey:
		key, err := public.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	t.Fatal("no key for agreement")
	return nil
}

func hashOf(name string) crypto.Hash {
	for suffix, h := range map[string]crypto.Hash{"SHA1": crypto.SHA1, "SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512} {
		if strings.HasSuffix(name, "_"+suffix) {
			return h
		}
	}
	return 0
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}
