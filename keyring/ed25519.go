package keyring

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"io"
)

// ed25519Keys is the family of Ed25519 (RFC 8032), of the message itself.
type ed25519Keys struct{}

func (ed25519Keys) generate(random io.Reader) ([]byte, error) {
	return randomBytes(random, ed25519.SeedSize)
}

func (ed25519Keys) private(seed []byte) (any, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%w: seed of %d bytes instead of %d", ErrInvalidMaterial, len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return ed25519Private{ed25519Public{key.Public().(ed25519.PublicKey)}, key}, nil
}

func (ed25519Keys) public(der []byte) (any, error) {
	key, err := parsePKIX[ed25519.PublicKey](der)
	if err != nil {
		return nil, err
	}
	return ed25519Public{key}, nil
}

type ed25519Public struct{ key ed25519.PublicKey }

func (p ed25519Public) value() crypto.PublicKey { return p.key }
func (p ed25519Public) der() ([]byte, error)    { return x509.MarshalPKIXPublicKey(p.key) }
func (p ed25519Public) jwk() jwk                { return octetJWK("Ed25519", p.key) }

func (p ed25519Public) verify(message, signature []byte) bool {
	return ed25519.Verify(p.key, message, signature)
}

type ed25519Private struct {
	ed25519Public
	private ed25519.PrivateKey
}

func (p ed25519Private) sign(message []byte) ([]byte, error) {
	return ed25519.Sign(p.private, message), nil
}
