package algorithm

import (
	"crypto"
	"crypto/rsa"
	"math/big"

	"github.com/miekg/pkcs11"
)

// rsaPair is the family of RSA keys.
type rsaPair struct{}

// publicExponent is that of keys made here, and the least of those imported
// (FIPS 186-5, A.1.1).
const publicExponent = 1<<16 + 1

func (rsaPair) generation(bits int, _ Recipe) (public, private []*pkcs11.Attribute) {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, exponentBytes(publicExponent)),
	}, nil
}

func exponentBytes(e int) []byte { return big.NewInt(int64(e)).Bytes() }

func (rsaPair) attributes() []uint {
	return []uint{pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT}
}

func (rsaPair) read(a *Algorithm, values [][]byte) (crypto.PublicKey, error) {
	n, e := new(big.Int).SetBytes(values[0]), new(big.Int).SetBytes(values[1])
	if n.BitLen() != a.Bits {
		return nil, a.other("modulus of %d bits", n.BitLen())
	}
	if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
		return nil, a.other("public exponent %x", values[1])
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func (rsaPair) material(a *Algorithm, material []byte) (public, private []*pkcs11.Attribute, _ crypto.PublicKey, err error) {
	key, ok := parsePKCS8[*rsa.PrivateKey](material)
	if !ok || key.N.BitLen() != a.Bits || len(key.Primes) != 2 || key.E < publicExponent {
		return nil, nil, nil, a.invalid()
	}
	key.Precompute()
	public = []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, key.N.Bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, exponentBytes(key.E)),
	}
	private = []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, key.N.Bytes()),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, exponentBytes(key.E)),
	}
	for _, part := range []struct {
		attribute uint
		value     *big.Int
	}{
		{pkcs11.CKA_PRIVATE_EXPONENT, key.D},
		{pkcs11.CKA_PRIME_1, key.Primes[0]},
		{pkcs11.CKA_PRIME_2, key.Primes[1]},
		{pkcs11.CKA_EXPONENT_1, key.Precomputed.Dp},
		{pkcs11.CKA_EXPONENT_2, key.Precomputed.Dq},
		{pkcs11.CKA_COEFFICIENT, key.Precomputed.Qinv},
	} {
		private = append(private, pkcs11.NewAttribute(part.attribute, part.value.Bytes()))
	}
	return public, private, &key.PublicKey, nil
}
