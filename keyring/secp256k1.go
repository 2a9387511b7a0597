package keyring

import (
	"crypto"
	"encoding/asn1"
	"fmt"
	"io"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// secp256k1Keys is the family of ECDSA on secp256k1 (SEC 2, 2.4.1).
//
// Signatures are deterministic (RFC 6979) with a low s. Verifying takes either
// s, as FIPS 186-5 and other software do: who needs unique signatures compares
// s himself. Signing is not in constant time in the library: where an attacker
// can time single signatures on the same machine, use a NIST curve or Ed25519.
type secp256k1Keys struct{}

func (secp256k1Keys) generate(random io.Reader) ([]byte, error) {
	return randomScalar(random, 256, func(b []byte) bool {
		_, ok := secp256k1Scalar(b)
		return ok
	})
}

func (secp256k1Keys) private(material []byte) (any, error) {
	scalar, ok := secp256k1Scalar(material)
	if !ok {
		return nil, fmt.Errorf("%w: not a scalar of secp256k1", ErrInvalidMaterial)
	}
	key := secp256k1.NewPrivateKey(scalar)
	return secp256k1Private{secp256k1Public{key.PubKey()}, key}, nil
}

// secp256k1Scalar reads a scalar in [1, n-1].
func secp256k1Scalar(b []byte) (*secp256k1.ModNScalar, bool) {
	scalar := new(secp256k1.ModNScalar)
	if len(b) != secp256k1.PrivKeyBytesLen {
		return nil, false
	}
	overflow := scalar.SetByteSlice(b)
	return scalar, !overflow && !scalar.IsZero()
}

// subjectPublicKeyInfo is RFC 5480's with a named curve, which crypto/x509 does
// not write for secp256k1.
type subjectPublicKeyInfo struct {
	Algorithm struct{ ID, Curve asn1.ObjectIdentifier }
	Key       asn1.BitString
}

func secp256k1Info(point []byte) subjectPublicKeyInfo {
	info := subjectPublicKeyInfo{Key: asn1.BitString{Bytes: point, BitLength: 8 * len(point)}}
	info.Algorithm.ID = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} // id-ecPublicKey
	info.Algorithm.Curve = asn1.ObjectIdentifier{1, 3, 132, 0, 10}    // secp256k1
	return info
}

func (secp256k1Keys) public(der []byte) (any, error) {
	var info subjectPublicKeyInfo
	want := secp256k1Info(nil).Algorithm
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 || !info.Algorithm.ID.Equal(want.ID) || !info.Algorithm.Curve.Equal(want.Curve) {
		return nil, fmt.Errorf("%w: not a SubjectPublicKeyInfo of secp256k1", ErrInvalidPublicKey)
	}
	point := info.Key.RightAlign()
	key, err := secp256k1.ParsePubKey(point)
	if err != nil || len(point) != secp256k1.PubKeyBytesLenUncompressed || point[0] != secp256k1.PubKeyFormatUncompressed {
		return nil, fmt.Errorf("%w: not an uncompressed point of secp256k1", ErrInvalidPublicKey)
	}
	return secp256k1Public{key}, nil
}

type secp256k1Public struct{ key *secp256k1.PublicKey }

func (p secp256k1Public) value() crypto.PublicKey { return p.key }

func (p secp256k1Public) der() ([]byte, error) {
	return asn1.Marshal(secp256k1Info(p.key.SerializeUncompressed()))
}

func (p secp256k1Public) jwk() jwk {
	return ellipticJWK("secp256k1", p.key.SerializeUncompressed())
}

func (p secp256k1Public) verify(digest, signature []byte) bool {
	s, err := ecdsa.ParseDERSignature(signature)
	return err == nil && s.Verify(digest, p.key)
}

type secp256k1Private struct {
	secp256k1Public
	private *secp256k1.PrivateKey
}

func (p secp256k1Private) sign(digest []byte) ([]byte, error) {
	return ecdsa.Sign(p.private, digest).Serialize(), nil
}
