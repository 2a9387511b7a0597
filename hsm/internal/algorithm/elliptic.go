package algorithm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/miekg/pkcs11"
)

// onCurve is what the families of keys on curves have in common.
type onCurve struct{}

func (onCurve) generation(_ int, r Recipe) (public, private []*pkcs11.Attribute) {
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, r.Params)}, nil
}

func (onCurve) attributes() []uint {
	return []uint{pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT}
}

// point returns the point, of size bytes, of a key on the algorithm's curve.
// CKA_EC_POINT is a DER OCTET STRING, which some modules leave out.
func (onCurve) point(a *Algorithm, values [][]byte, size int) ([]byte, error) {
	params, point := values[0], values[1]
	if !slices.ContainsFunc(a.Recipes, func(r Recipe) bool { return bytes.Equal(r.Params, params) }) {
		return nil, a.other("CKA_EC_PARAMS %x", params)
	}
	if len(point) == size {
		return point, nil
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 && len(inner) == size {
		return inner, nil
	}
	return nil, a.other("CKA_EC_POINT of %d bytes", len(point))
}

// parts are the templates' parts that hold a point and a scalar.
func (onCurve) parts(point, scalar []byte) (public, private []*pkcs11.Attribute) {
	encoded, _ := asn1.Marshal(point) // bytes always encode
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, encoded)},
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, scalar)}
}

// ecdsaPair is the family of ECDSA keys.
type ecdsaPair struct {
	onCurve
	curve elliptic.Curve
}

func (f ecdsaPair) read(a *Algorithm, values [][]byte) (crypto.PublicKey, error) {
	point, err := f.point(a, values, pointSize(a.Bits))
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(f.curve, point)
}

// pointSize is that of an uncompressed point (SEC 1, 2.3.3).
func pointSize(bits int) int { return 1 + 2*((bits+7)/8) }

func (f ecdsaPair) material(a *Algorithm, material []byte) (public, private []*pkcs11.Attribute, _ crypto.PublicKey, err error) {
	key, ok := parsePKCS8[*ecdsa.PrivateKey](material)
	if !ok || key.Curve != f.curve {
		return nil, nil, nil, a.invalid()
	}
	scalar, err := key.Bytes()
	if err != nil {
		return nil, nil, nil, a.invalid()
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, nil, nil, a.invalid()
	}
	public, private = f.parts(point, scalar)
	return public, private, &key.PublicKey, nil
}

// edwardsPair is the family of Ed25519 keys.
type edwardsPair struct{ onCurve }

func (f edwardsPair) read(a *Algorithm, values [][]byte) (crypto.PublicKey, error) {
	point, err := f.point(a, values, ed25519.PublicKeySize)
	return ed25519.PublicKey(point), err
}

func (f edwardsPair) material(a *Algorithm, material []byte) (public, private []*pkcs11.Attribute, _ crypto.PublicKey, err error) {
	key, ok := parsePKCS8[ed25519.PrivateKey](material)
	if !ok {
		return nil, nil, nil, a.invalid()
	}
	point := key.Public().(ed25519.PublicKey)
	public, private = f.parts(point, key.Seed())
	return public, private, point, nil
}

// ecdhPair is the family of Diffie-Hellman keys.
type ecdhPair struct {
	onCurve
	curve ecdh.Curve
}

func (f ecdhPair) read(a *Algorithm, values [][]byte) (crypto.PublicKey, error) {
	size := pointSize(a.Bits)
	if f.curve == ecdh.X25519() {
		size = 32
	}
	point, err := f.point(a, values, size)
	if err != nil {
		return nil, err
	}
	return f.curve.NewPublicKey(point)
}

func (f ecdhPair) material(a *Algorithm, material []byte) (public, private []*pkcs11.Attribute, _ crypto.PublicKey, err error) {
	key, ok := parsePKCS8[*ecdh.PrivateKey](material)
	if !ok {
		var twin *ecdsa.PrivateKey // how crypto/x509 reads keys on NIST's curves
		if twin, ok = parsePKCS8[*ecdsa.PrivateKey](material); ok {
			key, err = twin.ECDH()
		}
	}
	if !ok || err != nil || key.Curve() != f.curve {
		return nil, nil, nil, a.invalid()
	}
	public, private = f.parts(key.PublicKey().Bytes(), key.Bytes())
	return public, private, key.PublicKey(), nil
}

// Peer checks a peer's public key, as CKM_ECDH1_DERIVE takes it: an uncompressed
// point on the curve, or 32 bytes for X25519. A point of low order, with which the
// secret would be nobody's (RFC 7748, 6.1), is none.
func (a *Algorithm) Peer(raw []byte) (*ecdh.PublicKey, bool) {
	f, ok := a.family.(ecdhPair)
	if !ok {
		return nil, false
	}
	key, err := f.curve.NewPublicKey(raw)
	if err == nil && f.curve == ecdh.X25519() {
		_, err = anyX25519.ECDH(key)
	}
	return key, err == nil
}

// anyX25519 is a private key, no matter which: with all of them a point of low
// order gives zero.
var anyX25519 = func() *ecdh.PrivateKey {
	key, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		panic(err) // every 32 bytes are a key
	}
	return key
}()

// parsePKCS8 reads one key of a type and nothing behind it, which crypto/x509 lets
// pass.
func parsePKCS8[K any](material []byte) (key K, ok bool) {
	var whole asn1.RawValue
	if rest, err := asn1.Unmarshal(material, &whole); err != nil || len(rest) > 0 {
		return key, false
	}
	parsed, err := x509.ParsePKCS8PrivateKey(material)
	if err != nil {
		return key, false
	}
	key, ok = parsed.(K)
	return key, ok
}
