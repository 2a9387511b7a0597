package transit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"io"
	"strings"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/keyring/internal/redact"
)

// GenerateHMACKey makes the HMAC key of a version whose own key is held elsewhere. Error:
// keyring.ErrRandom.
func GenerateHMACKey(random io.Reader) (keyring.Material, error) {
	key, err := randomBytes(random, defaultHMACKey)
	return keyring.NewMaterial(key), err
}

// NewExternalVersion builds a version whose key is held elsewhere, such as in an HSM, and
// whose HMAC key is that of GenerateHMACKey, which may be wiped afterwards. What it makes
// is the same as that of NewVersion, within what the holder can do: AES-GCM that is not
// derived, with any AAD; ECDSA with hashes as long as the curve's (sha2-256, sha2-384,
// sha2-512 of P-256, P-384, P-521); Ed25519; RSA with PSS, sha2-256 and a salt of 32
// bytes, which salt_length auto is as well. It verifies whatever NewVersion verifies, and
// its RSA keys neither encrypt nor decrypt. Bind it to a call's context by In.
// publicDER is the SubjectPublicKeyInfo, nil for AES. Errors: *keyring.InputError (type,
// derived, convergent_encryption), keyring.ErrInvalidPublicKey, keyring.ErrPurpose where
// AES is given a public key, keyring.ErrNotFIPS.
func NewExternalVersion(s Settings, number uint32, publicDER []byte, hmacKey keyring.Material, key keyring.External) (*Version, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if s.Derived {
		return nil, input("derived", "is not for keys that are held in an HSM, which derives none; leave it out, or protect the key by software")
	}
	held, err := keyring.ExternalVersion(s.Type.algorithm, 0, number, publicDER, key)
	if err != nil {
		return nil, err
	}
	var bind func(context.Context) any
	switch {
	case strings.HasSuffix(s.Type.name, "-gcm96"):
		bind = func(ctx context.Context) any { return heldAEAD{ctx, s.Type.algorithm, key} }
	case s.Type.Signs():
		public, err := held.PublicKey()
		if err != nil {
			return nil, err
		}
		bind = bindSigner(held, public)
	default:
		return nil, input("type", "keys of type %s cannot be held in an HSM; aes*-gcm96, ed25519, ecdsa-* and rsa-* can", s.Type)
	}
	v := newVersion(s, number, bind(context.Background()), hmacKey.Bytes())
	v.bind = bind
	return v, nil
}

// In returns the version for use in one call. One whose key is held elsewhere ends
// with ctx; any other is returned as it is.
func (v *Version) In(ctx context.Context) *Version {
	if v.bind == nil {
		return v
	}
	bound := *v
	bound.hidden = redact.Hide(keys{v.bind(ctx), v.hidden.Get().hmac})
	return &bound
}

// heldAEAD is AES-GCM in one call.
type heldAEAD struct {
	ctx       context.Context //nolint:containedctx // it lives for one call: the primitives take none
	algorithm *keyring.Algorithm
	key       keyring.External
}

func (c heldAEAD) sealed(n int) int { return n + aesGCM.overhead }

func (c heldAEAD) encrypt(dst, plaintext []byte, p Params) ([]byte, error) {
	if err := checkLength(c.algorithm, plaintext); err != nil {
		return nil, err
	}
	body, err := c.key.Use(c.ctx, keyring.UseEncrypt, plaintext, p.AAD)
	if err == nil && len(body) != c.sealed(len(plaintext)) {
		err = errAnswer
	}
	if err != nil {
		return nil, &keyring.ExternalError{Err: err}
	}
	return append(dst, body...), nil
}

func (c heldAEAD) decrypt(dst, body []byte, p Params) ([]byte, error) {
	if len(body) < aesGCM.overhead {
		return nil, keyring.ErrDecrypt
	}
	plaintext, err := c.key.Use(c.ctx, keyring.UseDecrypt, body, p.AAD)
	defer clear(plaintext)
	switch {
	case errors.Is(err, keyring.ErrDecrypt):
		return nil, keyring.ErrDecrypt
	case err == nil && len(plaintext) != len(body)-aesGCM.overhead:
		err = errAnswer
	}
	if err != nil {
		return nil, &keyring.ExternalError{Err: err}
	}
	return append(dst, plaintext...), nil
}

// errAnswer says that a holder's answer is not what the algorithm makes.
var errAnswer = errors.New("its answer is not what the algorithm makes")

// verifier is the public half of a signer.
type verifier interface {
	publicKey
	verify(message, signature []byte, o signing) (bool, error)
}

// heldSigner is a private key in one call.
type heldSigner struct {
	verifier
	held *keyring.Version // which verifies each signature that it returns
	// fits refuses what the holder's algorithm cannot sign.
	fits func(message []byte, o signing) error
}

func bindSigner(held *keyring.Version, public crypto.PublicKey) func(context.Context) any {
	var s heldSigner
	switch key := public.(type) {
	case ed25519.PublicKey:
		s = heldSigner{verifier: ed25519Public(key)}
	case *ecdsa.PublicKey:
		s = heldSigner{verifier: ecdsaPublic{key}, fits: ecdsaPublic{key}.fits}
	case *rsa.PublicKey:
		s = heldSigner{verifier: rsaPublic{key}, fits: rsaPublic{key}.fits}
	}
	return func(ctx context.Context) any {
		bound := s
		bound.held = held.In(ctx)
		return bound
	}
}

func (k heldSigner) sign(message []byte, o signing) (signature, public []byte, err error) {
	if k.fits == nil { // Ed25519
		signature, err = k.held.Sign(message, keyring.SignOptions{})
		return signature, nil, err
	}
	if err := k.fits(message, o); err != nil {
		return nil, nil, err
	}
	options := keyring.SignOptions{Digest: true}
	if o.jws {
		options.Format = keyring.RAW
	}
	signature, err = k.held.Sign(o.digest(message), options)
	return signature, nil, err
}

func (p ecdsaPublic) fits(message []byte, o signing) error {
	if _, err := ecdsaDigest(message, o); err != nil {
		return err
	}
	hash := map[int]crypto.Hash{256: crypto.SHA256, 384: crypto.SHA384, 521: crypto.SHA512}[p.key.Params().BitSize]
	switch size := hash.Size(); {
	case !o.prehashed && o.hash.Size() != size:
		return input("hash_algorithm", "must be sha2-%d for this key, which is held in an HSM", 8*size)
	case o.prehashed && len(message) != size:
		return input("input", "has %d bytes; this key, which is held in an HSM, signs digests of %d", len(message), size)
	}
	return nil
}

func (p rsaPublic) fits(message []byte, o signing) error {
	switch {
	case o.pkcs1:
		return input("signature_algorithm", "must be pss for this key, which is held in an HSM")
	case o.hash != crypto.SHA256:
		return input("hash_algorithm", "must be sha2-256 for this key, which is held in an HSM")
	case o.salt > 0 && o.salt != o.hash.Size():
		return input("salt_length", "must be hash for this key, which is held in an HSM")
	}
	return p.check(message, o)
}
