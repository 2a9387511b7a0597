package keyring

import (
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
)

// signer signs a digest of the row's hash, or the message itself where the row
// has none. Signatures are native: DER for ECDSA, plain bytes for the others.
// Implementations are safe for concurrent use.
type signer interface {
	sign(input []byte) ([]byte, error)
}

// verifier checks native signatures.
type verifier interface {
	verify(input, signature []byte) bool
}

// Format is how a signature is written.
type Format uint8

const (
	// DER is an ASN.1 SEQUENCE of r and s for ECDSA (RFC 3279, 2.2.3), and the
	// plain signature for RSA and Ed25519.
	DER Format = iota
	// RAW is r ‖ s for ECDSA, each as wide as the curve's order (IEEE P1363),
	// and the plain signature for RSA and Ed25519.
	RAW
	// JWS is RAW in base64url without padding (RFC 7515).
	JWS
)

// SignOptions belong to one signature. The zero value signs a message and
// writes DER.
type SignOptions struct {
	// Digest says that the message is already the digest of the algorithm's
	// hash. Its length is checked; ED25519 refuses it.
	Digest bool
	Format Format
}

// signInput is what the primitive signs for a message.
func (a *Algorithm) signInput(message []byte, o SignOptions) ([]byte, error) {
	switch {
	case o.Format > JWS:
		return nil, &InputError{"format", "must be DER, RAW or JWS"}
	case o.Digest && a.hash == 0:
		return nil, &InputError{"digest", a.name + " signs messages, not digests; send the message"}
	case o.Digest && len(message) != a.hash.Size():
		return nil, &InputError{"digest", fmt.Sprintf("has %d bytes, %s needs the %d of %s; send the digest itself, not its hex form",
			len(message), a.name, a.hash.Size(), a.hash)}
	case o.Digest || a.hash == 0:
		return message, nil
	}
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil), nil
}

// encodeSignature writes a native signature in format f.
func (a *Algorithm) encodeSignature(native []byte, f Format) ([]byte, error) {
	if f == DER {
		return native, nil
	}
	raw := native
	if a.scalar > 0 {
		var err error
		if raw, err = rawFromDER(native, a.scalar); err != nil {
			return nil, err
		}
	}
	if f == RAW {
		return raw, nil
	}
	return base64.RawURLEncoding.AppendEncode(nil, raw), nil
}

// decodeSignature reads a signature in format f into its native form. Each
// native signature has exactly one text, so that nobody can vary it.
func (a *Algorithm) decodeSignature(s []byte, f Format) (native []byte, ok bool) {
	if f == DER {
		return s, true
	}
	raw := s
	if f == JWS {
		var err error
		raw, err = base64.RawURLEncoding.Strict().AppendDecode(nil, s)
		// The decoder skips line breaks, which the length gives away.
		if err != nil || base64.RawURLEncoding.EncodedLen(len(raw)) != len(s) {
			return nil, false
		}
	}
	if a.scalar == 0 {
		return raw, true
	}
	return derFromRaw(raw, a.scalar)
}

type ecdsaSignature struct{ R, S *big.Int }

// rawFromDER converts a signature that was made here.
func rawFromDER(der []byte, scalar int) ([]byte, error) {
	var s ecdsaSignature
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return nil, err
	}
	raw := make([]byte, 2*scalar)
	s.R.FillBytes(raw[:scalar])
	s.S.FillBytes(raw[scalar:])
	return raw, nil
}

func derFromRaw(raw []byte, scalar int) ([]byte, bool) {
	if len(raw) != 2*scalar {
		return nil, false
	}
	r, s := new(big.Int).SetBytes(raw[:scalar]), new(big.Int).SetBytes(raw[scalar:])
	der, err := asn1.Marshal(ecdsaSignature{r, s})
	return der, err == nil
}
