package keyring

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
)

// publicKey is the public half of a primitive.
type publicKey interface {
	value() crypto.PublicKey
	der() ([]byte, error) // SubjectPublicKeyInfo
	jwk() jwk             // key type and parameters
}

// jwk is a public JSON Web Key (RFC 7517, 7518, 8037, 8812).
type jwk struct {
	KeyType   string `json:"kty"`
	KeyID     string `json:"kid,omitempty"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

// ellipticJWK describes an uncompressed point (SEC 1, 2.3.3).
func ellipticJWK(curve string, point []byte) jwk {
	xy := point[1:]
	return jwk{KeyType: "EC", Curve: curve, X: base64url(xy[:len(xy)/2]), Y: base64url(xy[len(xy)/2:])}
}

// octetJWK describes a key of RFC 8032 or RFC 7748.
func octetJWK(curve string, key []byte) jwk {
	return jwk{KeyType: "OKP", Curve: curve, X: base64url(key)}
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// parsePKIX reads a SubjectPublicKeyInfo (RFC 5280) of Go type K.
func parsePKIX[K any](der []byte) (K, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	k, ok := key.(K)
	if err != nil || !ok {
		return k, fmt.Errorf("%w: not a SubjectPublicKeyInfo of the algorithm's type", ErrInvalidPublicKey)
	}
	return k, nil
}

const pemPublicKey = "PUBLIC KEY" // RFC 7468, section 13

// decodePEM returns the DER in a PEM text that holds one public key.
func decodePEM(b []byte) ([]byte, bool) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemPublicKey || len(bytes.TrimSpace(rest)) > 0 {
		return nil, false
	}
	return block.Bytes, true
}

// PublicKey returns the public key as *ecdsa.PublicKey, ed25519.PublicKey,
// *rsa.PublicKey, *ecdh.PublicKey or *secp256k1.PublicKey. Error: ErrPurpose
// where the key is symmetric.
func (v *Version) PublicKey() (crypto.PublicKey, error) {
	p, err := v.public()
	if err != nil {
		return nil, err
	}
	return p.value(), nil
}

// PublicKeyDER returns the SubjectPublicKeyInfo (RFC 5280; RFC 8410 for Ed25519
// and X25519; RFC 5480 with OID 1.3.132.0.10 for secp256k1). Error: ErrPurpose.
func (v *Version) PublicKeyDER() ([]byte, error) {
	p, err := v.public()
	if err != nil {
		return nil, err
	}
	return p.der()
}

// PublicKeyPEM returns the SubjectPublicKeyInfo as PEM (RFC 7468). Error:
// ErrPurpose.
func (v *Version) PublicKeyPEM() ([]byte, error) {
	der, err := v.PublicKeyDER()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublicKey, Bytes: der}), nil
}

// PublicKeyJWK returns the public JSON Web Key (RFC 7517, 7518, 8037, 8812)
// with the given key id, which may be empty. Error: ErrPurpose.
func (v *Version) PublicKeyJWK(kid string) ([]byte, error) {
	p, err := v.public()
	if err != nil {
		return nil, err
	}
	k := p.jwk()
	k.KeyID, k.Algorithm, k.Use = kid, v.algorithm.jwa, "enc"
	if v.algorithm.purpose == PurposeSignVerify {
		k.Use = "sig"
	}
	return json.Marshal(k)
}

func (v *Version) public() (publicKey, error) {
	p, ok := v.primitive().(publicKey)
	if !ok {
		return nil, v.refuse("", "show a public key")
	}
	return p, nil
}
