package keyring

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
)

// pairFamily is a family of asymmetric keys: its material can be written for
// other software, and read from it.
type pairFamily interface {
	keyFamily
	pkcs8(material []byte) ([]byte, error)
	// fromPKCS8 returns the material in der, which was parsed as key.
	fromPKCS8(der []byte, key oneAsymmetricKey) ([]byte, error)
}

// Asymmetric tells whether keys of this algorithm have a public half.
func (a *Algorithm) Asymmetric() bool {
	_, ok := a.keys.(pairFamily)
	return ok
}

// EncodePair writes a key pair in DER: its SubjectPublicKeyInfo (RFC 5280) and
// its PrivateKeyInfo (PKCS#8, RFC 5208). The latter is the secret itself: only
// for key pairs made to be handed out. Errors: ErrPurpose where the algorithm is
// symmetric, ErrInvalidMaterial, ErrNotFIPS.
func (a *Algorithm) EncodePair(m Material) (public, private []byte, err error) {
	family, ok := a.keys.(pairFamily)
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w", a.name, ErrPurpose)
	}
	v, err := NewVersion(a, 0, 0, m)
	if err != nil {
		return nil, nil, err
	}
	if public, err = v.PublicKeyDER(); err != nil {
		return nil, nil, err
	}
	private, err = family.pkcs8(m.Bytes())
	return public, private, err
}

func (f ecdsaKeys) pkcs8(material []byte) ([]byte, error) {
	key, err := ecdsa.ParseRawPrivateKey(f.curve, material)
	if err != nil {
		return nil, ErrInvalidMaterial
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func (ed25519Keys) pkcs8(seed []byte) ([]byte, error) {
	return x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed))
}

func (f ecdhKeys) pkcs8(material []byte) ([]byte, error) {
	key, err := f.curve.NewPrivateKey(material)
	if err != nil {
		return nil, ErrInvalidMaterial
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// pkcs8 copies the material, which is PKCS#8 already.
func (rsaKeys) pkcs8(material []byte) ([]byte, error) { return bytes.Clone(material), nil }

// ecPrivateKey is RFC 5915's, without the parameters that PKCS#8 gives around it.
type ecPrivateKey struct {
	Version   int
	Scalar    []byte
	PublicKey asn1.BitString `asn1:"explicit,tag:1"`
}

// privateKeyInfo is RFC 5208's with a named curve, which crypto/x509 does not
// write for secp256k1.
type privateKeyInfo struct {
	Version   int
	Algorithm struct{ ID, Curve asn1.ObjectIdentifier }
	Key       []byte
}

func (f secp256k1Keys) pkcs8(material []byte) ([]byte, error) {
	p, err := f.private(material)
	if err != nil {
		return nil, err
	}
	point := p.(secp256k1Private).key.SerializeUncompressed()
	public := secp256k1Info(point)
	inner, err := asn1.Marshal(ecPrivateKey{Version: 1, Scalar: material, PublicKey: public.Key})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(privateKeyInfo{Algorithm: public.Algorithm, Key: inner})
}
