package transit

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"slices"
)

// How the families write their keys into a version's entry of a backup, and read them.
// What is returned is a copy.

var errPublicOnly = errors.New("it has no private key")

func (aead) toEntry(key []byte) (keyEntry, error) { return keyEntry{Key: bytes.Clone(key)}, nil }
func (aead) fromEntry(e keyEntry) ([]byte, error) { return bytes.Clone(e.Key), nil }

func (hmacKeys) toEntry(key []byte) (keyEntry, error) { return keyEntry{Key: bytes.Clone(key)}, nil }
func (hmacKeys) fromEntry(e keyEntry) ([]byte, error) { return bytes.Clone(e.Key), nil }

func (ed25519Keys) toEntry(seed []byte) (keyEntry, error) {
	key := ed25519.NewKeyFromSeed(seed)
	return keyEntry{Key: key, PublicKey: base64.StdEncoding.EncodeToString(ed25519Key(key).public())}, nil
}

func (ed25519Keys) fromEntry(e keyEntry) ([]byte, error) {
	switch {
	case len(e.Key) == 0:
		return nil, errPublicOnly
	case len(e.Key) != ed25519.PrivateKeySize:
		return nil, errors.New("its key has not the 64 bytes of seed and public key")
	}
	seed := bytes.Clone(e.Key[:ed25519.SeedSize])
	key := ed25519.NewKeyFromSeed(seed)
	defer clear(key)
	if !bytes.Equal(key, e.Key) {
		return nil, errors.New("its public key is not the private key's")
	}
	return seed, nil
}

func (f ecdsaKeys) toEntry(scalar []byte) (keyEntry, error) {
	key, err := ecdsa.ParseRawPrivateKey(f.curve, scalar)
	if err != nil {
		return keyEntry{}, err
	}
	x, y, err := coordinates(&key.PublicKey)
	if err != nil {
		return keyEntry{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	return keyEntry{X: positive(x), Y: positive(y), D: positive(scalar), PublicKey: encodePEM("PUBLIC KEY", der)}, err
}

func (f ecdsaKeys) fromEntry(e keyEntry) ([]byte, error) {
	size := (f.curve.Params().N.BitLen() + 7) / 8
	switch {
	case e.D == nil:
		return nil, errPublicOnly
	case (e.D.BitLen()+7)/8 > size:
		return nil, errors.New("its ec_d is no scalar of the curve")
	}
	scalar := e.D.FillBytes(make([]byte, size))
	key, err := ecdsa.ParseRawPrivateKey(f.curve, scalar)
	if err != nil {
		return nil, errors.New("its ec_d is no scalar of the curve")
	}
	x, y, err := coordinates(&key.PublicKey)
	if err != nil || !e.X.is(x) || !e.Y.is(y) {
		return nil, errors.New("its public key is not the private key's")
	}
	return scalar, nil
}

func coordinates(key *ecdsa.PublicKey) (x, y []byte, err error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, nil, err
	}
	half := len(point) / 2
	return point[1 : 1+half], point[1+half:], nil
}

func positive(b []byte) *integer {
	i := new(integer)
	i.SetBytes(b)
	return i
}

func (i *integer) is(b []byte) bool { return i != nil && i.Cmp(new(big.Int).SetBytes(b)) == 0 }

func (rsaKeys) toEntry(pkcs8 []byte) (keyEntry, error) {
	key, err := parseRSA(pkcs8)
	if err != nil {
		return keyEntry{}, err
	}
	public := rsaPublicKey{&integer{*key.N}, key.E}
	e := &rsaEntry{rsaPublicKey: public, D: &integer{*key.D}}
	for _, p := range key.Primes {
		e.Primes = append(e.Primes, &integer{*p})
	}
	return keyEntry{RSA: e, RSAPublic: &public}, nil
}

func (rsaKeys) fromEntry(e keyEntry) ([]byte, error) {
	switch {
	case e.RSA == nil:
		return nil, errPublicOnly
	case len(e.RSA.Primes) != 2:
		return nil, errors.New("its RSA key has not two primes")
	case slices.Contains(e.RSA.Primes, nil) || e.RSA.N == nil || e.RSA.D == nil:
		return nil, errors.New("its RSA key is not whole")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: &e.RSA.N.Int, E: e.RSA.E}, D: &e.RSA.D.Int}
	for _, p := range e.RSA.Primes {
		key.Primes = append(key.Primes, &p.Int)
	}
	if err := key.Validate(); err != nil {
		return nil, errors.New("its RSA key is not consistent")
	}
	return x509.MarshalPKCS8PrivateKey(key)
}
