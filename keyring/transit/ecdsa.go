package transit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"

	"github.com/keywright/keywright/keyring"
)

// ecdsaKeys is the family of ECDSA keys on a NIST curve (FIPS 186-5).
type ecdsaKeys struct{ curve elliptic.Curve }

var (
	ecdsaP256 = ecdsaKeys{elliptic.P256()}
	ecdsaP384 = ecdsaKeys{elliptic.P384()}
	ecdsaP521 = ecdsaKeys{elliptic.P521()}
)

func (f ecdsaKeys) build(s Settings, o secret) (any, error) {
	key, err := ecdsa.ParseRawPrivateKey(f.curve, o.key)
	if err != nil {
		return nil, s.invalid("not a scalar of %s", f.curve.Params().Name)
	}
	return ecdsaKey{ecdsaPublic{&key.PublicKey}, key}, nil
}

type ecdsaPublic struct{ key *ecdsa.PublicKey }

func (p ecdsaPublic) der() ([]byte, error) { return x509.MarshalPKIXPublicKey(p.key) }

func (p ecdsaPublic) memory() int { return 400 }

func (p ecdsaPublic) verify(message, signature []byte, o signing) (bool, error) {
	digest, err := ecdsaDigest(message, o)
	if err != nil {
		return false, err
	}
	if o.jws {
		if signature, err = p.derFromRaw(signature); err != nil {
			return false, nil //nolint:nilerr // a malformed signature is one that does not hold
		}
	}
	return ecdsa.VerifyASN1(p.key, digest, signature), nil
}

type ecdsaKey struct {
	ecdsaPublic
	private *ecdsa.PrivateKey
}

func (k ecdsaKey) sign(message []byte, o signing) (signature, public []byte, err error) {
	digest, err := ecdsaDigest(message, o)
	if err != nil {
		return nil, nil, err
	}
	der, err := ecdsa.SignASN1(rand.Reader, k.private, digest)
	if err != nil || !o.jws {
		return der, nil, err
	}
	raw, err := k.rawFromDER(der)
	return raw, nil, err
}

// ecdsaDigest takes a digest of any hash where it is given, whatever hash is named, as
// transit does; but nothing that can be no digest, since only its first bytes would be signed.
func ecdsaDigest(message []byte, o signing) ([]byte, error) {
	if o.prehashed && !slices.Contains([]int{20, 28, 32, 48, 64}, len(message)) {
		return nil, input("input", "has %d bytes, which no digest has; send the digest itself, not its hex form, or leave out prehashed", len(message))
	}
	return o.digest(message), nil
}

type ecdsaSignature struct{ R, S *big.Int }

func (p ecdsaPublic) scalar() int { return (p.key.Params().N.BitLen() + 7) / 8 }

// rawFromDER converts a signature that was made here.
func (p ecdsaPublic) rawFromDER(der []byte) ([]byte, error) {
	var s ecdsaSignature
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return nil, err
	}
	n := p.scalar()
	raw := make([]byte, 2*n)
	s.R.FillBytes(raw[:n])
	s.S.FillBytes(raw[n:])
	return raw, nil
}

func (p ecdsaPublic) derFromRaw(raw []byte) ([]byte, error) {
	n := p.scalar()
	if len(raw) != 2*n {
		return nil, keyring.ErrVerify
	}
	return asn1.Marshal(ecdsaSignature{new(big.Int).SetBytes(raw[:n]), new(big.Int).SetBytes(raw[n:])})
}
