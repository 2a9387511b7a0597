package transit

import (
	"crypto/ed25519"
	"crypto/x509"
)

const ed25519Size = ed25519.PublicKeySize

// ed25519Keys is the family of Ed25519 (RFC 8032), of the message itself.
type ed25519Keys struct{}

func (ed25519Keys) build(s Settings, o secret) (any, error) {
	if len(o.key) != ed25519.SeedSize {
		return nil, s.invalid("a seed of %d bytes instead of %d", len(o.key), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(o.key)
	if !s.Derived {
		return ed25519Key(key), nil
	}
	// Transit derives from both halves, of which it never shows the public one.
	defer clear(key)
	r, err := newRoot(o.kdf, key)
	return ed25519Deriver{r}, err
}

type ed25519Public ed25519.PublicKey

func (p ed25519Public) der() ([]byte, error) { return x509.MarshalPKIXPublicKey(ed25519.PublicKey(p)) }

func (p ed25519Public) verify(message, signature []byte, _ signing) (bool, error) {
	return ed25519.Verify(ed25519.PublicKey(p), message, signature), nil
}

type ed25519Key ed25519.PrivateKey

func (k ed25519Key) public() ed25519Public { return ed25519Public(k[ed25519.SeedSize:]) }

func (k ed25519Key) der() ([]byte, error) { return k.public().der() }

func (k ed25519Key) memory() int { return 90 }

func (k ed25519Key) sign(message []byte, _ signing) (signature, public []byte, err error) {
	return ed25519.Sign(ed25519.PrivateKey(k), message), nil, nil
}

func (k ed25519Key) verify(message, signature []byte, o signing) (bool, error) {
	return k.public().verify(message, signature, o)
}

// ed25519Deriver has a key for each context.
type ed25519Deriver struct{ root }

func (d ed25519Deriver) memory() int { return 70 }

// forContext makes the key of a context, which is the caller's to wipe.
func (d ed25519Deriver) forContext(context []byte) (ed25519Key, error) {
	seed, err := d.derive(context, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return ed25519Key(ed25519.NewKeyFromSeed(seed)), nil
}

func (d ed25519Deriver) publicFor(context []byte) (ed25519Public, error) {
	key, err := d.forContext(context)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return append(ed25519Public(nil), key.public()...), nil
}

func (d ed25519Deriver) sign(message []byte, o signing) (signature, public []byte, err error) {
	key, err := d.forContext(o.context)
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	signature, _, err = key.sign(message, o)
	return signature, append([]byte(nil), key.public()...), err
}

func (d ed25519Deriver) verify(message, signature []byte, o signing) (bool, error) {
	key, err := d.forContext(o.context)
	if err != nil {
		return false, err
	}
	defer clear(key)
	return key.verify(message, signature, o)
}
