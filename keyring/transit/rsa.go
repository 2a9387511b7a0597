package transit

import (
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"

	"github.com/keywright/keywright/keyring"
)

// rsaKeys is the family of RSA keys (RFC 8017), which both sign and decrypt in transit.
type rsaKeys struct{}

func (rsaKeys) build(s Settings, o secret) (any, error) {
	if err := s.Type.algorithm.Validate(keyring.NewMaterial(o.key)); err != nil {
		return nil, err
	}
	key, err := parseRSA(o.key)
	if err != nil {
		return nil, err
	}
	return rsaKey{rsaPublic{&key.PublicKey}, key}, nil
}

func parseRSA(pkcs8 []byte) (*rsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%w: not an RSA key in PKCS#8", keyring.ErrInvalidMaterial)
	}
	return key, nil
}

type rsaPublic struct{ key *rsa.PublicKey }

func (p rsaPublic) der() ([]byte, error) { return x509.MarshalPKIXPublicKey(p.key) }

type rsaKey struct {
	rsaPublic
	private *rsa.PrivateKey
}

func (k rsaKey) memory() int { return 2200 + 9*k.private.Size() }

func (k rsaKey) sealed(int) int { return k.private.Size() }

// encrypt pads by OAEP with SHA-256 and no label, or by PKCS #1 v1.5.
func (k rsaKey) encrypt(dst, plaintext []byte, p Params) ([]byte, error) {
	padding, overhead := "oaep", 2*sha256.Size+2
	if p.Padding == "pkcs1v15" {
		padding, overhead = p.Padding, 11
	}
	if limit := k.private.Size() - overhead; len(plaintext) > limit {
		return nil, input("plaintext", "has %d bytes, this RSA key with %s takes at most %d; encrypt it under a data key", len(plaintext), padding, limit)
	}
	var body []byte
	var err error
	if padding == "oaep" {
		body, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, k.key, plaintext, nil)
	} else {
		//lint:ignore SA1019 deprecated, and transit's clients may ask for it
		body, err = rsa.EncryptPKCS1v15(rand.Reader, k.key, plaintext) //nolint:staticcheck // as above
	}
	return append(dst, body...), rsaError(err)
}

func (k rsaKey) decrypt(dst, body []byte, p Params) ([]byte, error) {
	var plaintext []byte
	var err error
	if p.Padding != "pkcs1v15" {
		plaintext, err = rsa.DecryptOAEP(sha256.New(), nil, k.private, body, nil)
	} else if fips140.Enforced() {
		return nil, fmt.Errorf("pkcs1v15: %w", keyring.ErrNotFIPS)
	} else {
		//lint:ignore SA1019 deprecated, and transit's clients may ask for it
		plaintext, err = rsa.DecryptPKCS1v15(nil, k.private, body) //nolint:staticcheck // as above
	}
	defer clear(plaintext)
	return append(dst, plaintext...), err
}

func (k rsaKey) sign(message []byte, o signing) (signature, public []byte, err error) {
	if err := k.check(message, o); err != nil {
		return nil, nil, err
	}
	if o.pkcs1 {
		signature, err = rsa.SignPKCS1v15(nil, k.private, o.hash, o.digest(message))
	} else {
		signature, err = rsa.SignPSS(rand.Reader, k.private, o.hash, o.digest(message), &rsa.PSSOptions{SaltLength: o.salt})
	}
	return signature, nil, rsaError(err)
}

func (p rsaPublic) verify(message, signature []byte, o signing) (bool, error) {
	if err := p.check(message, o); err != nil {
		return false, err
	}
	if o.pkcs1 {
		return rsa.VerifyPKCS1v15(p.key, o.hash, o.digest(message), signature) == nil, nil
	}
	return rsa.VerifyPSS(p.key, o.hash, o.digest(message), signature, &rsa.PSSOptions{SaltLength: o.salt}) == nil, nil
}

// check refuses a digest, or a salt, of a length that the key cannot sign.
func (p rsaPublic) check(message []byte, o signing) error {
	size := p.key.Size()
	if o.hash == 0 { // the message is what is signed
		if fips140.Enforced() {
			return fmt.Errorf("hash_algorithm none: %w", keyring.ErrNotFIPS)
		}
		if limit := size - 11; len(message) > limit {
			return input("input", "has %d bytes, this key signs at most %d without a hash", len(message), limit)
		}
		return nil
	}
	if o.prehashed && len(message) != o.hash.Size() {
		return input("input", "has %d bytes, a digest of %s has %d; send the digest itself, not its hex form, and name its hash", len(message), o.hash, o.hash.Size())
	}
	if limit := (p.key.N.BitLen()+6)/8 - 2 - o.hash.Size(); !o.pkcs1 && o.salt > limit {
		return input("salt_length", "is %d, this key with %s takes at most %d bytes", o.salt, o.hash, limit)
	}
	return nil
}

// rsaError tells where FIPS 140-3 forbids what transit allows, which is all that can fail
// after the checks.
func rsaError(err error) error {
	if err != nil && fips140.Enforced() {
		return fmt.Errorf("%w: %w", keyring.ErrNotFIPS, err)
	}
	return err
}
