package keyfile

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// jwk is a JSON Web Key with its secret part (RFC 7517, 7518, 8037, 8812).
type jwk struct {
	KeyType string `json:"kty"`
	Curve   string `json:"crv"`
	K       octets `json:"k"`
	D       octets `json:"d"`
	X       octets `json:"x"`
	Y       octets `json:"y"`
	N       octets `json:"n"`
	E       octets `json:"e"`
	P       octets `json:"p"`
	Q       octets `json:"q"`
	Others  []any  `json:"oth"`
	Keys    []any  `json:"keys"` // of a set
}

// octets are base64url without padding (RFC 7515).
type octets []byte

// UnmarshalJSON reads a string. Its errors hold nothing of it.
func (o *octets) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		return errOctets
	}
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return errOctets
	}
	*o = decoded
	return nil
}

var errOctets = errors.New("a part of the key is not base64url (RFC 7515)")

func (k *jwk) wipe() {
	for _, secret := range []octets{k.K, k.D, k.P, k.Q} {
		clear(secret)
	}
}

var jwkCurves = map[string]struct {
	oid  asn1.ObjectIdentifier
	size int // bytes of a coordinate
}{
	"P-256":     {asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, 32},
	"P-384":     {asn1.ObjectIdentifier{1, 3, 132, 0, 34}, 48},
	"P-521":     {asn1.ObjectIdentifier{1, 3, 132, 0, 35}, 66},
	"secp256k1": {asn1.ObjectIdentifier{1, 3, 132, 0, 10}, 32},
}

// parseJWK reads one private or symmetric JSON Web Key.
func parseJWK(content []byte) ([]byte, error) {
	var k jwk
	defer k.wipe()
	if err := json.Unmarshal(content, &k); err != nil {
		if errors.Is(err, errOctets) {
			return nil, fmt.Errorf("holds no JSON Web Key: %w", errOctets)
		}
		return nil, errors.New("holds no JSON Web Key: it is no JSON object of one")
	}
	read := map[string]func() ([]byte, error){"oct": k.symmetric, "EC": k.elliptic, "RSA": k.rsa, "OKP": k.okp}[k.KeyType]
	switch {
	case len(k.Keys) > 0:
		return nil, errors.New("holds a set of JSON Web Keys; give a file with one key")
	case read == nil:
		return nil, fmt.Errorf("holds a JSON Web Key of type %.20q; oct, EC, RSA and OKP are known", k.KeyType)
	case k.KeyType != "oct" && len(k.D) == 0:
		return nil, errors.New("holds a public JSON Web Key; its private part, d, is missing")
	}
	return read()
}

func (k *jwk) symmetric() ([]byte, error) {
	if len(k.K) == 0 {
		return nil, errors.New("holds a JSON Web Key without k, its bytes")
	}
	return append([]byte(nil), k.K...), nil
}

func (k *jwk) elliptic() ([]byte, error) {
	curve, ok := jwkCurves[k.Curve]
	if !ok {
		return nil, fmt.Errorf("holds a JSON Web Key on the curve %.20q; P-256, P-384, P-521 and secp256k1 are known", k.Curve)
	}
	if len(k.D) > curve.size || len(k.X) != curve.size || len(k.Y) != curve.size {
		return nil, fmt.Errorf("holds a JSON Web Key whose parts are not of the size of %s", k.Curve)
	}
	point := append(append([]byte{4}, k.X...), k.Y...)
	key := ecPrivateKey{Version: 1, Scalar: k.D, Curve: curve.oid, PublicKey: asn1.BitString{Bytes: point, BitLength: 8 * len(point)}}
	return key.asPKCS8()
}

func (k *jwk) rsa() ([]byte, error) {
	if len(k.Others) > 0 {
		return nil, errors.New("holds an RSA key of more than two primes")
	}
	if len(k.P) == 0 || len(k.Q) == 0 {
		return nil, errors.New("holds an RSA key without its primes, p and q")
	}
	exponent := new(big.Int).SetBytes(k.E)
	if !exponent.IsInt64() || exponent.Int64() > 1<<31-1 {
		return nil, errors.New("holds an RSA key whose exponent e is too large")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(exponent.Int64())},
		D: new(big.Int).SetBytes(k.D), Primes: []*big.Int{new(big.Int).SetBytes(k.P), new(big.Int).SetBytes(k.Q)}}
	if key.Validate() != nil {
		return nil, errors.New("holds an RSA key whose parts do not belong together")
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// okp reads a key of RFC 8037 and writes it as RFC 8410 says, with its public key.
func (k *jwk) okp() ([]byte, error) {
	oid, ok := map[string]asn1.ObjectIdentifier{"Ed25519": oidEd25519, "X25519": oidX25519}[k.Curve]
	if !ok {
		return nil, fmt.Errorf("holds a JSON Web Key on the curve %.20q; Ed25519 and X25519 are known", k.Curve)
	}
	if len(k.D) != 32 || len(k.X) != 32 {
		return nil, fmt.Errorf("holds a JSON Web Key whose parts are not of the size of %s", k.Curve)
	}
	inner, err := asn1.Marshal([]byte(k.D))
	if err != nil {
		return nil, errNoPrivate
	}
	defer clear(inner)
	return asn1.Marshal(struct { // RFC 5958's, with the public key
		Version   int
		Algorithm algorithm
		Key       []byte
		PublicKey asn1.BitString `asn1:"tag:1"`
	}{1, algorithm{ID: oid}, inner, asn1.BitString{Bytes: k.X, BitLength: 8 * len(k.X)}})
}
