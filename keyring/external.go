package keyring

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
)

// Use is what an External key is asked for in one call.
type Use uint8

// The uses, with what Use takes as data and extra, and what it returns.
const (
	UseEncrypt           Use = 1 + iota // plaintext, what to authenticate: nonce ‖ ciphertext ‖ tag
	UseDecrypt                          // nonce ‖ ciphertext ‖ tag, what to authenticate: plaintext
	UseSign                             // digest, or the message where the algorithm has no hash: native signature
	UseMAC                              // message: full-length tag
	UseDecryptAsymmetric                // RSA-OAEP ciphertext, label: plaintext
	UseAgree                            // peer's public key, an uncompressed point or X25519's 32 bytes: raw shared secret
)

// External is a private or symmetric key that is held outside this process, such
// as in an HSM. Implementations are safe for concurrent use and keep no argument.
type External interface {
	// Use makes one use of the key. An error that is ErrDecrypt says that the
	// ciphertext is at fault; any other is about the holder of the key.
	Use(ctx context.Context, use Use, data, extra []byte) ([]byte, error)
}

// ExternalError is an error of the holder of an External key: not of what was to
// be done, but of doing it.
type ExternalError struct{ Err error }

// Error returns the holder's own words.
func (e *ExternalError) Error() string { return "external key: " + e.Err.Error() }

// Unwrap returns the holder's error.
func (e *ExternalError) Unwrap() error { return e.Err }

// errAnswer says that a holder's answer is not what the algorithm makes. It is
// never passed on: a broken device gives away its key by wrong signatures.
var errAnswer = errors.New("its answer is not what the algorithm makes")

// ExternalVersion builds a version whose key is held elsewhere: private operations
// go there, with the same ciphertexts, AAD, signature formats and digests as those
// of NewVersion; all that needs only publicDER (SubjectPublicKeyInfo, nil for a
// symmetric key) is done here. Each signature is verified before it is returned.
// Bind it to a call's context by In. Errors: ErrInvalidPublicKey, ErrPurpose where
// a symmetric algorithm is given a public key, ErrNotFIPS.
func ExternalVersion(a *Algorithm, keyID uint64, version uint32, publicDER []byte, key External) (*Version, error) {
	if err := a.approved(); err != nil {
		return nil, err
	}
	var public any
	if a.Asymmetric() || len(publicDER) > 0 {
		var err error
		if public, err = a.keys.public(publicDER); err != nil {
			return nil, fmt.Errorf("%s: %w", a.name, err)
		}
	}
	bind := func(ctx context.Context) any { return a.external(remote{ctx, key, a}, public) }
	v := newVersion(a, Header{keyID, version}, bind(context.Background()))
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
	bound.hidden = hide(v.bind(ctx))
	return &bound
}

// external builds the primitive of a row around a remote key.
func (a *Algorithm) external(r remote, public any) any {
	half, _ := public.(publicKey)
	check, _ := public.(verifier)
	switch a.purpose {
	case PurposeEncryptDecrypt:
		return remoteAEAD{r}
	case PurposeSignVerify:
		return remoteSigner{half, check, r}
	case PurposeMAC:
		return remoteMAC{r}
	case PurposeAsymmetricDecrypt:
		return remoteDecrypter{half, r}
	default:
		return remoteAgreer{public.(ecdhPublic), r}
	}
}

// remote is an External key in one call.
type remote struct {
	ctx       context.Context //nolint:containedctx // it lives for one call: the primitives take none
	key       External
	algorithm *Algorithm
}

// use returns ErrDecrypt, where that may be, or an ExternalError.
func (r remote) use(use Use, data, extra []byte) ([]byte, error) {
	out, err := r.key.Use(r.ctx, use, data, extra)
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, ErrDecrypt) && (use == UseDecrypt || use == UseDecryptAsymmetric):
		return nil, ErrDecrypt
	}
	return nil, &ExternalError{err}
}

// useFor is use for an answer of known length.
func (r remote) useFor(n int, use Use, data, extra []byte) ([]byte, error) {
	out, err := r.use(use, data, extra)
	if err == nil && len(out) != n {
		return nil, r.broken()
	}
	return out, err
}

func (r remote) broken() error {
	return &ExternalError{fmt.Errorf("%s: %w", r.algorithm.name, errAnswer)}
}

type remoteAEAD struct{ remote }

func (p remoteAEAD) seal(dst, plaintext, aad []byte) ([]byte, error) {
	body, err := p.useFor(len(plaintext)+p.algorithm.bodyOverhead, UseEncrypt, plaintext, aad)
	return append(dst, body...), err
}

func (p remoteAEAD) open(dst, body, aad []byte) ([]byte, error) {
	n := len(body) - p.algorithm.bodyOverhead
	if n < 0 {
		return nil, ErrDecrypt
	}
	plaintext, err := p.useFor(n, UseDecrypt, body, aad)
	defer clear(plaintext)
	return append(dst, plaintext...), err
}

type remoteSigner struct {
	publicKey
	verifier
	remote
}

func (p remoteSigner) sign(input []byte) ([]byte, error) {
	signature, err := p.use(UseSign, input, nil)
	if err == nil && !p.verify(input, signature) {
		return nil, p.broken()
	}
	return signature, err
}

type remoteMAC struct{ remote }

func (p remoteMAC) mac(message []byte) ([]byte, error) {
	return p.useFor(p.algorithm.hash.Size(), UseMAC, message, nil)
}

type remoteDecrypter struct {
	publicKey
	remote
}

func (p remoteDecrypter) decrypt(ciphertext, label []byte) ([]byte, error) {
	if len(ciphertext) != p.algorithm.keySize/8 {
		return nil, ErrDecrypt
	}
	return p.use(UseDecryptAsymmetric, ciphertext, label)
}

type remoteAgreer struct {
	ecdhPublic
	remote
}

func (p remoteAgreer) agree(peer []byte) ([]byte, error) {
	key, err := p.family.parsePeer(peer)
	if err != nil {
		return nil, err
	}
	n := (p.algorithm.keySize + 7) / 8
	secret, err := p.useFor(n, UseAgree, key.Bytes(), nil)
	if err == nil && subtle.ConstantTimeCompare(secret, make([]byte, n)) == 1 { // a point of low order
		return nil, p.family.invalidPeer()
	}
	return secret, err
}
