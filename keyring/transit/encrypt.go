package transit

import (
	"encoding/base64"
	"errors"
	"slices"

	"github.com/keywright/keywright/keyring"
)

// Params are what a request to encrypt or decrypt brings beside its data.
type Params struct {
	Context []byte // of a derived key; else refused when not empty
	AAD     []byte // associated data, as the AEAD gets it
	Nonce   []byte // of convergent keys of version 1, to decrypt what they made; else ignored, as by transit
	// Padding of RSA is "" or "oaep", or "pkcs1v15", by which whoever may send many
	// ciphertexts and learn which of them open can open others (Bleichenbacher).
	Padding string
}

// std refuses bits that no encoder sets, so that a text cannot be varied but by line
// breaks, which transit ignores too.
var std = base64.StdEncoding.Strict()

// encrypter makes and opens ciphertexts' bodies before base64. dst must not overlap the
// other arguments. Params were checked to fit the key's settings. Implementations are
// safe for concurrent use.
type encrypter interface {
	// sealed is the length of a body, for a plaintext of n bytes.
	sealed(n int) int
	encrypt(dst, plaintext []byte, p Params) ([]byte, error)
	decrypt(dst, body []byte, p Params) ([]byte, error)
}

// Encrypt appends "vault:v<N>:<base64>" to dst, which must not overlap plaintext.
// Convergent together with AAD is refused, because two messages would share a nonce; so
// are convergent versions of transit's old schemes 1 and 2, whose key is to be rotated
// first. Plaintext may be empty, as in transit. Nothing is allocated where dst has room,
// but for RSA, derived keys and keys held elsewhere. Errors: *keyring.InputError
// (context, associated_data, padding_scheme, plaintext, key_version),
// keyring.ErrPurpose, *keyring.ExternalError, keyring.ErrNotFIPS for pkcs1v15.
func (v *Version) Encrypt(dst, plaintext []byte, p Params) ([]byte, error) {
	c, ok := v.hidden.Get().primitive.(encrypter)
	if !ok {
		return nil, v.settings.Type.refuse("encrypt")
	}
	if err := v.checkParams(p); err != nil {
		return nil, err
	}
	if v.settings.Convergent && len(p.AAD) > 0 {
		return nil, input("associated_data", "cannot be bound by a convergent key: equal plaintexts would share a nonce; use a key that is not convergent")
	}
	// The body is made behind the place of its text, so that both share one buffer.
	n := c.sealed(len(plaintext))
	start := len(dst) + len(v.prefix)
	end := start + base64.StdEncoding.EncodedLen(n)
	dst = append(slices.Grow(dst, end+n-len(dst)), v.prefix...)[:end]
	out, err := c.encrypt(dst, plaintext, p)
	if err != nil {
		return nil, err
	}
	base64.StdEncoding.Encode(out[start:end], out[end:])
	return out[:end], nil
}

// Decrypt appends the plaintext of a ciphertext's body, as ParseVersion gives it, to
// dst, which must not overlap body. Errors: *keyring.InputError (context, nonce,
// associated_data, padding_scheme), keyring.ErrDecrypt, keyring.ErrPurpose,
// *keyring.ExternalError.
func (v *Version) Decrypt(dst, body []byte, p Params) ([]byte, error) {
	c, ok := v.hidden.Get().primitive.(encrypter)
	if !ok {
		return nil, v.settings.Type.refuse("decrypt")
	}
	if err := v.checkParams(p); err != nil {
		return nil, err
	}
	// What is decoded lies behind the place of the plaintext, which is shorter.
	start := len(dst)
	n := base64.StdEncoding.DecodedLen(len(body))
	dst = slices.Grow(dst, 2*n)
	sealed := dst[start+n : start+2*n]
	n, err := std.Decode(sealed, body)
	if err != nil {
		return nil, keyring.ErrDecrypt
	}
	plaintext, err := c.decrypt(dst, sealed[:n], p)
	if err != nil {
		return nil, decryptError(err)
	}
	return plaintext, nil
}

// decryptError hides why a decryption failed, unless nobody tried it.
func decryptError(err error) error {
	var external *keyring.ExternalError
	if errors.As(err, &external) || errors.Is(err, keyring.ErrInput) || errors.Is(err, keyring.ErrNotFIPS) {
		return err
	}
	return keyring.ErrDecrypt
}

// checkParams refuses what does not belong to a key of the version's settings: it would
// be ignored, and the caller believe in it.
func (v *Version) checkParams(p Params) error {
	t := v.settings.Type
	switch {
	case len(p.AAD) > 0 && !t.AcceptsAAD():
		return input("associated_data", "keys of type %s take none", t)
	case p.Padding != "" && !t.rsa():
		return input("padding_scheme", "is for RSA keys, not %s; leave it out", t)
	case p.Padding != "" && p.Padding != "oaep" && p.Padding != "pkcs1v15":
		return input("padding_scheme", "must be oaep or pkcs1v15")
	}
	return v.settings.checkContext(p.Context)
}

func (s Settings) checkContext(context []byte) error {
	switch {
	case s.Derived && len(context) == 0:
		return input("context", "is missing: the key is derived, so each request names the context that its key is derived from")
	case !s.Derived && len(context) > 0:
		return input("context", "is for derived keys, which this is not; leave it out, or use associated_data")
	}
	return nil
}
