package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
)

// ecdsaKeys is the family of ECDSA on NIST curves (FIPS 186-5). Signatures are
// randomised, and strict DER is asked for when verifying.
type ecdsaKeys struct{ curve elliptic.Curve }

func (f ecdsaKeys) generate(random io.Reader) ([]byte, error) {
	return randomScalar(random, f.curve.Params().BitSize, func(b []byte) bool {
		_, err := ecdsa.ParseRawPrivateKey(f.curve, b)
		return err == nil
	})
}

func (f ecdsaKeys) private(material []byte) (any, error) {
	key, err := ecdsa.ParseRawPrivateKey(f.curve, material)
	if err != nil {
		return nil, fmt.Errorf("%w: not a scalar of %s", ErrInvalidMaterial, f.curve.Params().Name)
	}
	return ecdsaPrivate{ecdsaPublic{&key.PublicKey}, key}, nil
}

func (f ecdsaKeys) public(der []byte) (any, error) {
	key, err := parsePKIX[*ecdsa.PublicKey](der)
	if err != nil {
		return nil, err
	}
	if key.Curve != f.curve {
		return nil, fmt.Errorf("%w: not on %s", ErrInvalidPublicKey, f.curve.Params().Name)
	}
	return ecdsaPublic{key}, nil
}

type ecdsaPublic struct{ key *ecdsa.PublicKey }

func (p ecdsaPublic) value() crypto.PublicKey { return p.key }
func (p ecdsaPublic) der() ([]byte, error)    { return x509.MarshalPKIXPublicKey(p.key) }

func (p ecdsaPublic) jwk() jwk {
	point, _ := p.key.Bytes() // on the curve since it was parsed
	return ellipticJWK(p.key.Params().Name, point)
}

func (p ecdsaPublic) verify(digest, signature []byte) bool {
	return ecdsa.VerifyASN1(p.key, digest, signature)
}

type ecdsaPrivate struct {
	ecdsaPublic
	private *ecdsa.PrivateKey
}

func (p ecdsaPrivate) sign(digest []byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, p.private, digest)
}
