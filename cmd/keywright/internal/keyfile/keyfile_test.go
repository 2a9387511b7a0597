package keyfile

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func armour(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// sameKey wants PKCS#8 that holds the key.
func sameKey(t *testing.T, der []byte, want any) {
	t.Helper()
	got := must[any](t)(x509.ParsePKCS8PrivateKey(der))
	same := false
	switch k := want.(type) {
	case *rsa.PrivateKey:
		same = k.Equal(got.(*rsa.PrivateKey))
	case *ecdsa.PrivateKey:
		same = k.Equal(got.(*ecdsa.PrivateKey))
	case ed25519.PrivateKey:
		same = k.Equal(got.(ed25519.PrivateKey))
	case *ecdh.PrivateKey:
		same = k.Equal(got.(*ecdh.PrivateKey))
	}
	if !same {
		t.Errorf("a %T came out as another", want)
	}
}

func TestEveryFormOfAKey(t *testing.T) {
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	x25519 := must[*ecdh.PrivateKey](t)(ecdh.X25519().GenerateKey(rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := must[[]byte](t)(x509.MarshalECPrivateKey(p384))
	pkcs8 := func(key any) []byte { return must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key)) }
	parameters := armour("EC PARAMETERS", must[[]byte](t)(asn1.Marshal(asn1.ObjectIdentifier{1, 3, 132, 0, 34})))
	for _, c := range []struct {
		name    string
		content []byte
		format  Format
		key     any
	}{
		{"PKCS#8, PEM", armour("PRIVATE KEY", pkcs8(ed)), PEM, ed},
		{"PKCS#8, DER", pkcs8(p384), DER, p384},
		{"PKCS#1, PEM", armour("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), PEM, rsaKey},
		{"PKCS#1, DER", x509.MarshalPKCS1PrivateKey(rsaKey), DER, rsaKey},
		{"SEC1, PEM", armour("EC PRIVATE KEY", sec1), PEM, p384},
		{"SEC1 behind parameters", append(parameters, armour("EC PRIVATE KEY", sec1)...), PEM, p384},
		{"JWK, EC", ecJWK(t, p384), JWK, p384},
		{"JWK, RSA", rsaJWK(t, rsaKey), JWK, rsaKey},
		{"JWK, Ed25519", object(t, "kty", "OKP", "crv", "Ed25519", "d", ed.Seed(), "x", []byte(ed.Public().(ed25519.PublicKey))), JWK, ed},
		{"JWK, X25519", object(t, "kty", "OKP", "crv", "X25519", "d", x25519.Bytes(), "x", x25519.PublicKey().Bytes()), JWK, x25519},
	} {
		t.Run(c.name, func(t *testing.T) {
			sameKey(t, must[[]byte](t)(Parse(c.content, c.format)), c.key)
			sameKey(t, must[[]byte](t)(Parse(c.content, Auto)), c.key)
		})
	}
}

func TestRawAndOct(t *testing.T) {
	key := make([]byte, 32)
	rand.Read(key)
	for name, c := range map[string]struct {
		content []byte
		format  Format
	}{
		"raw": {key, Raw}, "raw, found out": {key, Auto},
		"oct": {object(t, "kty", "oct", "k", key), JWK}, "oct, found out": {object(t, "kty", "oct", "k", key), Auto},
	} {
		if got, err := Parse(c.content, c.format); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatHoldsNoKey(t *testing.T) {
	p256 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(p256))
	whole := armour("PRIVATE KEY", der)
	nameless := must[[]byte](t)(asn1.Marshal(ecPrivateKey{Version: 1, Scalar: make([]byte, 32)}))
	dek := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: der})
	for _, c := range []struct {
		name    string
		content []byte
		format  Format
		want    string
	}{
		{"nothing", nil, Auto, "empty"},
		{"an encrypted key", armour("ENCRYPTED PRIVATE KEY", der), Auto, "encrypted key"},
		{"an old encrypted key", dek, Auto, "encrypted key"},
		{"two keys", append(bytes.Clone(whole), whole...), Auto, "more than one"},
		{"a certificate", armour("CERTIFICATE", der), Auto, "no private key"},
		{"a public key", armour("PUBLIC KEY", must[[]byte](t)(x509.MarshalPKIXPublicKey(&p256.PublicKey))), Auto, "no private key"},
		{"a broken key", armour("PRIVATE KEY", der[:50]), Auto, "no private key"},
		{"OpenSSH", armour("OPENSSH PRIVATE KEY", der), Auto, "OpenSSH"},
		{"no PEM", []byte("hello"), PEM, "no private key"},
		{"no DER", []byte("hello"), DER, "no private key"},
		{"a byte behind DER", append(bytes.Clone(der), 0), DER, "no private key"},
		{"no curve", nameless, DER, "does not name its curve"},
		{"no JSON", []byte("hello"), JWK, "no JSON object"},
		{"a public JWK", object(t, "kty", "EC", "crv", "P-256", "x", make([]byte, 32), "y", make([]byte, 32)), JWK, "public"},
		{"another type of JWK", object(t, "kty", "AKP", "d", []byte{1}), JWK, "type"},
		{"another curve", object(t, "kty", "EC", "crv", "P-999", "d", []byte{1}), JWK, "P-999"},
		{"a short coordinate", object(t, "kty", "EC", "crv", "P-256", "d", make([]byte, 32), "x", make([]byte, 31), "y", make([]byte, 32)), JWK, "size"},
		{"a set", []byte(`{"kty":"oct","keys":[{}]}`), JWK, "set"},
		{"no primes", object(t, "kty", "RSA", "d", []byte{1}, "n", []byte{1}, "e", []byte{3}), JWK, "primes"},
		{"other parts", object(t, "kty", "RSA", "d", []byte{1}, "n", []byte{15}, "e", []byte{3}, "p", []byte{3}, "q", []byte{7}), JWK, "belong together"},
		{"no base64url", []byte(`{"kty":"oct","k":"+secret+"}`), JWK, "base64url"},
	} {
		got, err := Parse(c.content, c.format)
		if err == nil || !strings.Contains(err.Error(), c.want) || got != nil {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error quotes the file: %v", c.name, err)
		}
	}
	if _, err := ParseFormat("pkcs12"); err == nil {
		t.Error("pkcs12 is taken for a format")
	}
}

func FuzzParse(f *testing.F) {
	key := must[*ecdsa.PrivateKey](f)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](f)(x509.MarshalECPrivateKey(key))
	f.Add(der)
	f.Add(armour("EC PRIVATE KEY", der))
	f.Add(ecJWK(f, key))
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, format := range []Format{Auto, PEM, DER, JWK, Raw} {
			if got, err := Parse(content, format); (err == nil) != (len(got) > 0) {
				t.Fatalf("%s: %d bytes and %v", format, len(got), err)
			}
		}
	})
}

// object is a JSON object of names and values; bytes are base64url.
func object(t testing.TB, pairs ...any) []byte {
	t.Helper()
	members := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		if b, ok := pairs[i+1].([]byte); ok {
			pairs[i+1] = base64.RawURLEncoding.EncodeToString(b)
		}
		members[pairs[i].(string)] = pairs[i+1]
	}
	return must[[]byte](t)(json.Marshal(members))
}

func ecJWK(t testing.TB, key *ecdsa.PrivateKey) []byte {
	point, size := must[[]byte](t)(key.PublicKey.Bytes()), (key.Params().BitSize+7)/8
	return object(t, "kty", "EC", "crv", key.Params().Name, "d", must[[]byte](t)(key.Bytes()), "x", point[1:1+size], "y", point[1+size:])
}

func rsaJWK(t testing.TB, key *rsa.PrivateKey) []byte {
	return object(t, "kty", "RSA", "n", key.N.Bytes(), "e", binary.BigEndian.AppendUint32(nil, uint32(key.E)), "d", key.D.Bytes(),
		"p", key.Primes[0].Bytes(), "q", key.Primes[1].Bytes())
}
