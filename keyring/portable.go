package keyring

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// DecodePortable reads key material as other software keeps it: the raw bytes of
// a symmetric key, or of a key pair its private key in PKCS#8, DER (RFC 5208, or
// RFC 5958 with the public key, which must then be the private key's). b is only
// read. The key is validated: its type, its size or curve, and that its parts
// belong together; a symmetric key that is one byte repeated, or an AES-SIV key of
// two equal halves, is refused as no random key. Errors: ErrInvalidMaterial, with
// what is there and what should be; ErrNotFIPS.
func (a *Algorithm) DecodePortable(b []byte) (Material, error) {
	if err := a.approved(); err != nil {
		return Material{}, err
	}
	material, err := a.decodePortable(b)
	if err != nil {
		clear(material)
		return Material{}, fmt.Errorf("%s: %w", a.name, err)
	}
	m := NewMaterial(material)
	if err := a.Validate(m); err != nil {
		m.Wipe()
		return Material{}, err
	}
	return m, nil
}

func (a *Algorithm) decodePortable(b []byte) ([]byte, error) {
	family, ok := a.keys.(pairFamily)
	if !ok {
		return a.decodeSymmetric(b)
	}
	key, err := parsePrivateKeyInfo(b)
	if err != nil {
		return nil, err
	}
	defer clear(key.Key)
	return family.fromPKCS8(b, key)
}

func (a *Algorithm) decodeSymmetric(b []byte) ([]byte, error) {
	if len(b) != a.keySize/8 {
		return nil, fmt.Errorf("%w: %d bytes instead of the %d bytes of a raw key", ErrInvalidMaterial, len(b), a.keySize/8)
	}
	if key, err := parsePrivateKeyInfo(b); err == nil { // Ed25519's are as long as an HMAC key
		clear(key.Key)
		return nil, fmt.Errorf("%w: a private key in PKCS#8 instead of the bytes of a raw key", ErrInvalidMaterial)
	}
	if bytes.Count(b, b[:1]) == len(b) {
		return nil, fmt.Errorf("%w: one byte repeated, which is no random key", ErrInvalidMaterial)
	}
	if half := len(b) / 2; a.deterministic && bytes.Equal(b[:half], b[half:]) {
		return nil, fmt.Errorf("%w: its two halves are equal, which must be independent keys (RFC 5297)", ErrInvalidMaterial)
	}
	return bytes.Clone(b), nil
}

// EncodePortable writes key material as DecodePortable reads it. It is the secret
// itself, for who is about to wrap it. Errors: ErrInvalidMaterial, ErrNotFIPS.
func (a *Algorithm) EncodePortable(m Material) ([]byte, error) {
	if !a.Asymmetric() {
		if err := a.Validate(m); err != nil {
			return nil, err
		}
		return bytes.Clone(m.Bytes()), nil
	}
	_, private, err := a.EncodePair(m)
	return private, err
}

// oneAsymmetricKey is RFC 5958's, which is PKCS#8's with a public key behind it.
type oneAsymmetricKey struct {
	Version    int
	Algorithm  algorithmIdentifier
	Key        []byte
	Attributes asn1.RawValue  `asn1:"optional,tag:0"`
	PublicKey  asn1.BitString `asn1:"optional,tag:1"`
}

type algorithmIdentifier struct {
	ID         asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

// parsePrivateKeyInfo reads one private key and nothing behind it.
func parsePrivateKeyInfo(der []byte) (oneAsymmetricKey, error) {
	var key oneAsymmetricKey
	rest, err := asn1.Unmarshal(der, &key)
	if err != nil || len(rest) > 0 || key.Version < 0 || key.Version > 1 {
		return oneAsymmetricKey{}, fmt.Errorf("%w: not a private key in PKCS#8 (DER, not encrypted)", ErrInvalidMaterial)
	}
	return key, nil
}

// The object identifiers of key types (RFC 8017, RFC 5480, RFC 8410).
const (
	oidRSA     = "1.2.840.113549.1.1.1"
	oidEC      = "1.2.840.10045.2.1"
	oidX25519  = "1.3.101.110"
	oidEd25519 = "1.3.101.112"
)

var keyTypes = map[string]string{
	oidRSA: "an RSA key", oidEC: "an elliptic-curve key", oidX25519: "an X25519 key", oidEd25519: "an Ed25519 key",
	"1.2.840.113549.1.1.10": "an RSA key that is bound to PSS", "1.3.101.111": "an X448 key", "1.3.101.113": "an Ed448 key",
	"1.2.840.10040.4.1": "a DSA key", "1.2.840.113549.1.3.1": "a Diffie-Hellman key",
}

var curveNames = map[string]string{
	"1.2.840.10045.3.1.7": "P-256", "1.3.132.0.34": "P-384", "1.3.132.0.35": "P-521", "1.3.132.0.10": "secp256k1",
	"1.3.132.0.33": "P-224", "1.2.840.10045.3.1.1": "P-192", "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1", "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
}

// need refuses a key of another type.
func (k oneAsymmetricKey) need(oid string) error {
	have := k.Algorithm.ID.String()
	if have == oid {
		return nil
	}
	name := keyTypes[have]
	if name == "" {
		name = "a key of type " + have
	}
	return fmt.Errorf("%w: %s instead of %s", ErrInvalidMaterial, name, keyTypes[oid])
}

// samePublic refuses a public key that came with another one's private key.
func samePublic(given asn1.BitString, public []byte) error {
	if given.BitLength == 0 || bytes.Equal(given.RightAlign(), public) {
		return nil
	}
	return fmt.Errorf("%w: its public key is not the private key's", ErrInvalidMaterial)
}

// ecKey is RFC 5915's ECPrivateKey with all that is optional.
type ecKey struct {
	Version   int
	Scalar    []byte
	Curve     asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	PublicKey asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

// scalar returns the private scalar of a key on the named curve, as wide as the
// curve's order, and the public key that came with it, if one did.
func (k oneAsymmetricKey) scalar(curve string, size int) (_ []byte, public asn1.BitString, err error) {
	if err := k.need(oidEC); err != nil {
		return nil, public, err
	}
	var oid asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(k.Algorithm.Parameters.FullBytes, &oid); err != nil || len(rest) > 0 {
		return nil, public, fmt.Errorf("%w: its curve has no name; write the key with a named curve", ErrInvalidMaterial)
	}
	var inner ecKey
	rest, err := asn1.Unmarshal(k.Key, &inner)
	if err != nil || len(rest) > 0 || inner.Version != 1 || len(inner.Curve) > 0 && !inner.Curve.Equal(oid) {
		return nil, public, fmt.Errorf("%w: not an elliptic-curve key (RFC 5915)", ErrInvalidMaterial)
	}
	defer clear(inner.Scalar)
	if have := curveNames[oid.String()]; have != curve {
		if have == "" {
			have = oid.String()
		}
		return nil, public, fmt.Errorf("%w: a key on the curve %s instead of %s", ErrInvalidMaterial, have, curve)
	}
	number := new(big.Int).SetBytes(inner.Scalar) // some software writes leading zeros, or leaves them out
	if (number.BitLen()+7)/8 > size {
		return nil, public, fmt.Errorf("%w: not a scalar of %s", ErrInvalidMaterial, curve)
	}
	return number.FillBytes(make([]byte, size)), inner.PublicKey, nil
}

// samePoint is samePublic for a point, which may be compressed (SEC 1, 2.3.3).
func samePoint(given asn1.BitString, point []byte) error {
	x := point[1 : 1+len(point)/2]
	compressed := append([]byte{2 + point[len(point)-1]&1}, x...)
	if given.BitLength > 0 && bytes.Equal(given.RightAlign(), compressed) {
		return nil
	}
	return samePublic(given, point)
}

func (f ecdsaKeys) fromPKCS8(_ []byte, key oneAsymmetricKey) ([]byte, error) {
	curve := f.curve.Params()
	scalar, public, err := key.scalar(curve.Name, (curve.N.BitLen()+7)/8)
	if err != nil {
		return nil, err
	}
	built, err := ecdsa.ParseRawPrivateKey(f.curve, scalar)
	if err != nil {
		return nil, fmt.Errorf("%w: not a scalar of %s", ErrInvalidMaterial, curve.Name)
	}
	point, err := built.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return scalar, samePoint(public, point)
}

func (f secp256k1Keys) fromPKCS8(_ []byte, key oneAsymmetricKey) ([]byte, error) {
	scalar, public, err := key.scalar("secp256k1", 32)
	if err != nil {
		return nil, err
	}
	built, err := f.private(scalar)
	if err != nil {
		return nil, err
	}
	return scalar, samePoint(public, built.(secp256k1Private).key.SerializeUncompressed())
}

func (ed25519Keys) fromPKCS8(_ []byte, key oneAsymmetricKey) ([]byte, error) {
	seed, err := key.octets(oidEd25519, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return seed, samePublic(key.PublicKey, ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}

// octets returns the key that RFC 8410 puts into one more octet string.
func (k oneAsymmetricKey) octets(oid string, size int) ([]byte, error) {
	if err := k.need(oid); err != nil {
		return nil, err
	}
	var secret []byte
	if rest, err := asn1.Unmarshal(k.Key, &secret); err != nil || len(rest) > 0 || len(secret) != size {
		return nil, fmt.Errorf("%w: not a key of %d bytes (RFC 8410)", ErrInvalidMaterial, size)
	}
	return secret, nil
}

func (f ecdhKeys) fromPKCS8(_ []byte, key oneAsymmetricKey) ([]byte, error) {
	if f.curve == ecdh.X25519() {
		secret, err := key.octets(oidX25519, f.bits/8)
		if err != nil {
			return nil, err
		}
		return secret, f.sameKey(secret, key.PublicKey, samePublic)
	}
	scalar, public, err := key.scalar(f.name, f.bits/8)
	if err != nil {
		return nil, err
	}
	return scalar, f.sameKey(scalar, public, samePoint)
}

func (f ecdhKeys) sameKey(secret []byte, given asn1.BitString, same func(asn1.BitString, []byte) error) error {
	key, err := f.curve.NewPrivateKey(secret)
	if err != nil {
		return fmt.Errorf("%w: not a private key of %s", ErrInvalidMaterial, f.name)
	}
	return same(given, key.PublicKey().Bytes())
}

// fromPKCS8 writes the key anew, so that nothing is kept but the key.
func (f rsaKeys) fromPKCS8(der []byte, info oneAsymmetricKey) ([]byte, error) {
	if err := info.need(oidRSA); err != nil {
		return nil, err
	}
	var sizes struct { // of RFC 8017's RSAPrivateKey
		Version int
		Modulus *big.Int
		Rest    asn1.RawValue
	}
	if _, err := asn1.Unmarshal(info.Key, &sizes); err != nil {
		return nil, fmt.Errorf("%w: not an RSA key (RFC 8017)", ErrInvalidMaterial)
	}
	if have := sizes.Modulus.BitLen(); have != f.bits { // before much is computed with it
		return nil, fmt.Errorf("%w: an RSA key of %d bits instead of %d", ErrInvalidMaterial, have, f.bits)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || len(key.Primes) != 2 {
		return nil, fmt.Errorf("%w: not a consistent RSA key of two primes", ErrInvalidMaterial)
	}
	return x509.MarshalPKCS8PrivateKey(key)
}
