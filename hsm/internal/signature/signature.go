// Package signature is the table of signature algorithms whose keys live in a token:
// what to ask the token for, and how to read and verify what it returns. It calls
// no token, keeps no state and is safe for concurrent use.
package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"
)

// Names of signature algorithms, and the size of their raw signatures.
const (
	Ed25519   = "ED25519"
	ECDSAP256 = "ECDSA_P256_SHA256"
	RawSize   = 64 // of both: R ‖ S, in bytes
)

// Numbers of PKCS#11 v3.0 that miekg/pkcs11 lacks.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// Algorithm is one row of the table. It is not to be changed.
type Algorithm struct {
	Name     string
	Generate uint     // CKM_* that makes a key pair
	Sign     uint     // CKM_* that signs
	Params   [][]byte // encodings of CKA_EC_PARAMS that modules understand, DER

	// Input is what the token signs for a message.
	Input func(message []byte) []byte
	// Public makes the public key of a point (see Point).
	Public func(point []byte) (crypto.PublicKey, error)
	// Encode turns RawSize bytes from the token into the signature.
	Encode func(raw []byte) ([]byte, error)
	// Verify checks a signature, as Encode returns it.
	Verify func(public crypto.PublicKey, message, signature []byte) bool
}

// Algorithms returns the table, the preferred algorithm first.
func Algorithms() []*Algorithm { return table }

// OfCurve returns the algorithm on the curve that CKA_EC_PARAMS names.
func OfCurve(params []byte) (*Algorithm, bool) {
	for _, row := range table {
		if slices.ContainsFunc(row.Params, func(p []byte) bool { return bytes.Equal(p, params) }) {
			return row, true
		}
	}
	return nil, false
}

var table = []*Algorithm{
	{
		Name:     Ed25519,
		Generate: ckmECEdwardsKeyPairGen,
		Sign:     ckmEdDSA,
		Params: [][]byte{
			{0x06, 0x03, 0x2b, 0x65, 0x70},                // OID 1.3.101.112 (RFC 8410)
			append([]byte{0x13, 0x0c}, "edwards25519"...), // PrintableString (PKCS#11 v3.0)
		},
		Input:  func(message []byte) []byte { return message },
		Public: ed25519Public,
		Encode: func(raw []byte) ([]byte, error) { return raw, nil },
		Verify: func(public crypto.PublicKey, message, signature []byte) bool {
			key, ok := public.(ed25519.PublicKey)
			return ok && ed25519.Verify(key, message, signature)
		},
	},
	{
		Name:     ECDSAP256,
		Generate: pkcs11.CKM_EC_KEY_PAIR_GEN,
		Sign:     pkcs11.CKM_ECDSA,
		Params:   [][]byte{{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}}, // OID prime256v1 (RFC 5480)
		Input:    func(message []byte) []byte { sum := sha256.Sum256(message); return sum[:] },
		Public: func(point []byte) (crypto.PublicKey, error) {
			return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		},
		Encode: ecdsaDER,
		Verify: func(public crypto.PublicKey, message, signature []byte) bool {
			key, ok := public.(*ecdsa.PublicKey)
			sum := sha256.Sum256(message)
			return ok && ecdsa.VerifyASN1(key, sum[:], signature)
		},
	},
}

func ed25519Public(point []byte) (crypto.PublicKey, error) {
	if len(point) != ed25519.PublicKeySize {
		return nil, errors.New("public key of wrong size")
	}
	return ed25519.PublicKey(point), nil
}

// ecdsaDER turns R ‖ S (PKCS#11 v2.40 section 2.3.1) into ASN.1 DER (RFC 3279).
func ecdsaDER(raw []byte) ([]byte, error) {
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(raw[:half]),
		new(big.Int).SetBytes(raw[half:]),
	})
}

// Point returns the point in CKA_EC_POINT: a DER OCTET STRING, which some modules
// leave out.
func Point(attribute []byte) []byte {
	var point []byte
	if rest, err := asn1.Unmarshal(attribute, &point); err == nil && len(rest) == 0 {
		return point
	}
	return attribute
}
