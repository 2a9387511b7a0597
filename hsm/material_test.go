package hsm_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// materialFor makes a key outside of any token, as ImportKey takes it: raw bytes, or
// PKCS#8.
func materialFor(t testing.TB, name string) (material []byte, ok bool) {
	t.Helper()
	switch name {
	case "AES_256_GCM", "HMAC_SHA256":
		return random(32), true
	case "AES_128_GCM":
		return random(16), true
	case "HMAC_SHA384":
		return random(48), true
	case "HMAC_SHA512":
		return random(64), true
	}
	key := privateKeyFor(t, name)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der, true
}

func privateKeyFor(t testing.TB, name string) (key crypto.PrivateKey) {
	t.Helper()
	var err error
	switch name {
	case "ECDSA_P256_SHA256", "ECDH_P256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSA_P384_SHA384", "ECDH_P384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSA_P521_SHA512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "X25519":
		key, err = ecdh.X25519().GenerateKey(rand.Reader)
	default:
		for bits, once := range rsaKeys {
			if strings.Contains(name, fmt.Sprintf("_%d_", bits)) {
				key, err = once()
			}
		}
	}
	if err != nil || key == nil {
		t.Fatalf("no private key of %s: %v", name, err)
	}
	return key
}

// rsaKeys holds one RSA key of each size: they take long to make.
var rsaKeys = map[int]func() (*rsa.PrivateKey, error){2048: rsaOnce(2048), 3072: rsaOnce(3072), 4096: rsaOnce(4096)}

func rsaOnce(bits int) func() (*rsa.PrivateKey, error) {
	return sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) })
}

// publicOf is the SubjectPublicKeyInfo of imported material, nil of a secret key.
func publicOf(t testing.TB, name string, material []byte) []byte {
	t.Helper()
	if strings.HasPrefix(name, "AES") || strings.HasPrefix(name, "HMAC") {
		return nil
	}
	key, err := x509.ParsePKCS8PrivateKey(material)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.(interface{ Public() crypto.PublicKey }).Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}
