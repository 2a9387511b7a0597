package keyring

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"io"
)

// agreer computes a shared secret with a peer's public key.
type agreer interface {
	agree(peer []byte) ([]byte, error)
}

// ecdhKeys is the family of Diffie-Hellman on one curve: NIST SP 800-56A for the
// NIST curves, RFC 7748 for X25519.
type ecdhKeys struct {
	curve ecdh.Curve
	name  string // as in a JWK
	bits  int
	jwk   func(curve string, key []byte) jwk
}

func (f ecdhKeys) generate(random io.Reader) ([]byte, error) {
	return randomScalar(random, f.bits, func(b []byte) bool {
		_, err := f.curve.NewPrivateKey(b)
		return err == nil
	})
}

func (f ecdhKeys) private(material []byte) (any, error) {
	key, err := f.curve.NewPrivateKey(material)
	if err != nil {
		return nil, fmt.Errorf("%w: not a private key of %s", ErrInvalidMaterial, f.name)
	}
	return ecdhPrivate{ecdhPublic{f, key.PublicKey()}, key}, nil
}

func (f ecdhKeys) public(der []byte) (any, error) {
	key, err := f.parsePKIX(der)
	if err != nil {
		return nil, err
	}
	return ecdhPublic{f, key}, nil
}

// parsePKIX reads a SubjectPublicKeyInfo; crypto/x509 gives keys on NIST curves
// as ECDSA's, because there they look the same.
func (f ecdhKeys) parsePKIX(der []byte) (*ecdh.PublicKey, error) {
	key, err := parsePKIX[*ecdh.PublicKey](der)
	if err != nil {
		var onCurve *ecdsa.PublicKey
		if onCurve, err = parsePKIX[*ecdsa.PublicKey](der); err == nil {
			key, err = onCurve.ECDH()
		}
	}
	if err != nil || key.Curve() != f.curve {
		return nil, f.invalidPeer()
	}
	return key, nil
}

// parsePeer reads a public key in any form that people hold it in: raw
// (X25519's 32 bytes, an uncompressed point), PEM, or DER.
func (f ecdhKeys) parsePeer(b []byte) (*ecdh.PublicKey, error) {
	if key, err := f.curve.NewPublicKey(b); err == nil {
		return key, nil
	}
	if der, ok := decodePEM(b); ok {
		b = der
	}
	return f.parsePKIX(b)
}

func (f ecdhKeys) invalidPeer() error {
	return fmt.Errorf("%w: must be a key of %s in PEM, in DER, or raw", ErrInvalidPublicKey, f.name)
}

type ecdhPublic struct {
	family ecdhKeys
	key    *ecdh.PublicKey
}

func (p ecdhPublic) value() crypto.PublicKey { return p.key }
func (p ecdhPublic) der() ([]byte, error)    { return x509.MarshalPKIXPublicKey(p.key) }

func (p ecdhPublic) jwk() jwk { return p.family.jwk(p.family.name, p.key.Bytes()) }

type ecdhPrivate struct {
	ecdhPublic
	private *ecdh.PrivateKey
}

func (p ecdhPrivate) agree(peer []byte) ([]byte, error) {
	key, err := p.family.parsePeer(peer)
	if err != nil {
		return nil, err
	}
	secret, err := p.private.ECDH(key)
	if err != nil { // a point of low order
		return nil, p.family.invalidPeer()
	}
	return secret, nil
}
