package transit

import (
	"crypto"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/keywright/keywright/keyring"
)

// SignOptions belong to one signature, by transit's names and with its defaults:
// HashAlgorithm "" is sha2-256 (none, sha1, sha2-224, sha2-256, sha2-384, sha2-512,
// sha3-224 … sha3-512), and none is for Prehashed and pkcs1v15 only; Algorithm (of RSA) "" or
// "pss", "pkcs1v15"; Marshaling "" or "asn1", "jws"; SaltLength "" or "auto", "hash" or a
// number of bytes. Ed25519 signs messages whatever HashAlgorithm and Prehashed say, as in
// transit.
type SignOptions struct {
	HashAlgorithm string
	Prehashed     bool
	Algorithm     string
	Marshaling    string
	SaltLength    string
	Context       []byte
}

// signer makes and checks signatures before base64. Implementations are safe for
// concurrent use.
type signer interface {
	// sign returns the public key too where it is derived.
	sign(message []byte, o signing) (signature, public []byte, err error)
	verify(message, signature []byte, o signing) (bool, error)
}

// signing are SignOptions, understood.
type signing struct {
	hash      crypto.Hash // 0: none
	prehashed bool
	pkcs1     bool // of RSA, else PSS
	jws       bool // r ‖ s, and base64url without padding, else DER and base64
	salt      int  // as crypto/rsa counts
	context   []byte
}

// parse understands the options. Errors: *keyring.InputError, keyring.ErrNotFIPS.
func (o SignOptions) parse(s Settings) (signing, error) {
	p := signing{prehashed: o.Prehashed, pkcs1: o.Algorithm == "pkcs1v15", jws: o.Marshaling == "jws", context: o.Context}
	switch {
	case o.Algorithm != "" && o.Algorithm != "pss" && !p.pkcs1:
		return p, input("signature_algorithm", "must be pss or pkcs1v15")
	case o.Marshaling != "" && o.Marshaling != "asn1" && !p.jws:
		return p, input("marshaling_algorithm", "must be asn1 or jws")
	case o.HashAlgorithm == "none" && !(p.prehashed && p.pkcs1):
		return p, input("hash_algorithm", "none needs prehashed, and the signature_algorithm pkcs1v15")
	}
	var err error
	if o.HashAlgorithm != "none" {
		if p.hash, err = lookupHash("hash_algorithm", o.HashAlgorithm); err != nil {
			return p, err
		}
	}
	if p.salt, err = parseSalt(o.SaltLength); err != nil {
		return p, err
	}
	return p, s.checkContext(o.Context)
}

// parseSalt reads the length of a PSS salt: crypto/rsa has the same two special values.
func parseSalt(s string) (int, error) {
	switch strings.ToLower(s) {
	case "", "auto":
		return 0, nil
	case "hash":
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < -1 {
		return 0, input("salt_length", "must be auto, hash, or a number of bytes")
	}
	return n, nil
}

// digest is what ECDSA and RSA sign for a message.
func (o signing) digest(message []byte) []byte {
	if o.prehashed {
		return message
	}
	return digest(o.hash, message)
}

var rawURL = base64.RawURLEncoding.Strict()

func (o signing) base64() *base64.Encoding {
	if o.jws {
		return rawURL
	}
	return std
}

// Sign appends "vault:v<N>:<signature>" to dst, in base64, or with marshaling jws
// base64url without padding. publicKey is that of a derived key (raw), else nil.
// Errors: *keyring.InputError (input, hash_algorithm, signature_algorithm,
// marshaling_algorithm, salt_length, context), keyring.ErrPurpose, *keyring.ExternalError,
// keyring.ErrNotFIPS.
func (v *Version) Sign(dst, message []byte, o SignOptions) (signature, publicKey []byte, err error) {
	p, options, err := v.signer(o, "sign")
	if err != nil {
		return nil, nil, err
	}
	native, publicKey, err := p.sign(message, options)
	if err != nil {
		return nil, nil, err
	}
	return options.base64().AppendEncode(append(dst, v.prefix...), native), publicKey, nil
}

// Verify checks a signature's body, as ParseVersion gives it. Error: keyring.ErrVerify where it does
// not hold or is malformed; *keyring.InputError, keyring.ErrPurpose, keyring.ErrNotFIPS as Sign.
func (v *Version) Verify(message, body []byte, o SignOptions) error {
	p, options, err := v.signer(o, "verify")
	if err != nil {
		return err
	}
	native, err := options.base64().AppendDecode(nil, body)
	if err != nil {
		return keyring.ErrVerify
	}
	holds, err := p.verify(message, native, options)
	if err == nil && !holds {
		return keyring.ErrVerify
	}
	return err
}

func (v *Version) signer(o SignOptions, operation string) (signer, signing, error) {
	p, ok := v.hidden.Get().primitive.(signer)
	if !ok {
		return nil, signing{}, v.settings.Type.refuse(operation)
	}
	options, err := o.parse(v.settings)
	return p, options, err
}
