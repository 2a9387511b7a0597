package keyring

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
)

// rsaKeys is the family of RSA keys of one modulus and hash (FIPS 186-5, RFC
// 8017); its scheme says what such a key can do.
type rsaKeys struct {
	bits   int
	hash   crypto.Hash
	scheme rsaScheme
}

type rsaScheme interface {
	private(rsaPublic, *rsa.PrivateKey, crypto.Hash) any
	public(rsaPublic, crypto.Hash) any
}

// generate ignores its reader: so does crypto/rsa, which draws primes from its
// own approved generator.
func (f rsaKeys) generate(io.Reader) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, f.bits)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// smallestExponent is FIPS 186-5's bound for keys that sign or decrypt here.
const smallestExponent = 1<<16 + 1

func (f rsaKeys) private(material []byte) (any, error) {
	key, ok := parsePKCS8(material)
	if !ok {
		return nil, fmt.Errorf("%w: not a consistent RSA key in PKCS#8", ErrInvalidMaterial)
	}
	if key.N.BitLen() != f.bits {
		return nil, fmt.Errorf("%w: modulus of %d bits instead of %d", ErrInvalidMaterial, key.N.BitLen(), f.bits)
	}
	if len(key.Primes) != 2 || key.E < smallestExponent {
		return nil, fmt.Errorf("%w: must have two primes and a public exponent of at least %d", ErrInvalidMaterial, smallestExponent)
	}
	return f.scheme.private(rsaPublic{&key.PublicKey}, key, f.hash), nil
}

// parsePKCS8 reads one key and nothing behind it, which crypto/x509 lets pass.
func parsePKCS8(material []byte) (*rsa.PrivateKey, bool) {
	var whole asn1.RawValue
	if rest, err := asn1.Unmarshal(material, &whole); err != nil || len(rest) > 0 {
		return nil, false
	}
	parsed, err := x509.ParsePKCS8PrivateKey(material)
	key, ok := parsed.(*rsa.PrivateKey)
	return key, ok && err == nil
}

// public takes any exponent that crypto/rsa takes: old keys still verify.
func (f rsaKeys) public(der []byte) (any, error) {
	key, err := parsePKIX[*rsa.PublicKey](der)
	if err != nil {
		return nil, err
	}
	if key.N.BitLen() != f.bits {
		return nil, fmt.Errorf("%w: modulus of %d bits instead of %d", ErrInvalidPublicKey, key.N.BitLen(), f.bits)
	}
	return f.scheme.public(rsaPublic{key}, f.hash), nil
}

type rsaPublic struct{ key *rsa.PublicKey }

func (p rsaPublic) value() crypto.PublicKey { return p.key }
func (p rsaPublic) der() ([]byte, error)    { return x509.MarshalPKIXPublicKey(p.key) }

func (p rsaPublic) jwk() jwk {
	exponent := binary.BigEndian.AppendUint64(nil, uint64(p.key.E))
	return jwk{KeyType: "RSA", N: base64url(p.key.N.Bytes()), E: base64url(bytes.TrimLeft(exponent, "\x00"))}
}

// rsaPadding is one of the two signature schemes.
type rsaPadding interface {
	sign(*rsa.PrivateKey, crypto.Hash, []byte) ([]byte, error)
	verify(key *rsa.PublicKey, h crypto.Hash, digest, signature []byte) error
}

// pss is RSASSA-PSS with MGF1 of the same hash and a salt as long as the hash,
// neither more nor less when verifying.
type pss struct{}

func (pss) sign(key *rsa.PrivateKey, h crypto.Hash, digest []byte) ([]byte, error) {
	return rsa.SignPSS(rand.Reader, key, h, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

func (pss) verify(key *rsa.PublicKey, h crypto.Hash, digest, signature []byte) error {
	return rsa.VerifyPSS(key, h, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
}

// pkcs1 is RSASSA-PKCS1-v1_5, deterministic.
type pkcs1 struct{}

func (pkcs1) sign(key *rsa.PrivateKey, h crypto.Hash, digest []byte) ([]byte, error) {
	return rsa.SignPKCS1v15(rand.Reader, key, h, digest)
}

func (pkcs1) verify(key *rsa.PublicKey, h crypto.Hash, digest, signature []byte) error {
	return rsa.VerifyPKCS1v15(key, h, digest, signature)
}

// rsaSigning is the scheme of signature keys.
type rsaSigning struct{ padding rsaPadding }

func (s rsaSigning) private(p rsaPublic, key *rsa.PrivateKey, h crypto.Hash) any {
	return rsaSigner{rsaVerifier{p, h, s.padding}, key}
}

func (s rsaSigning) public(p rsaPublic, h crypto.Hash) any { return rsaVerifier{p, h, s.padding} }

type rsaVerifier struct {
	rsaPublic
	hash    crypto.Hash
	padding rsaPadding
}

func (v rsaVerifier) verify(digest, signature []byte) bool {
	return v.padding.verify(v.key, v.hash, digest, signature) == nil
}

type rsaSigner struct {
	rsaVerifier
	private *rsa.PrivateKey
}

func (s rsaSigner) sign(digest []byte) ([]byte, error) {
	return s.padding.sign(s.private, s.hash, digest)
}

// decrypter opens what was encrypted to its public key.
type decrypter interface {
	decrypt(ciphertext, label []byte) ([]byte, error)
}

// rsaDecryption is RSAES-OAEP with MGF1 of the same hash.
type rsaDecryption struct{}

func (rsaDecryption) private(p rsaPublic, key *rsa.PrivateKey, h crypto.Hash) any {
	return rsaDecrypter{p, key, h}
}

func (rsaDecryption) public(p rsaPublic, _ crypto.Hash) any { return p }

type rsaDecrypter struct {
	rsaPublic
	private *rsa.PrivateKey
	hash    crypto.Hash
}

func (d rsaDecrypter) decrypt(ciphertext, label []byte) ([]byte, error) {
	return d.private.Decrypt(nil, ciphertext, &rsa.OAEPOptions{Hash: d.hash, Label: label})
}
