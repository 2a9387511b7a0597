package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"

	"github.com/miekg/pkcs11"
)

// Names of signature algorithms, as in Signer.
const (
	Ed25519    = "ED25519"
	ECDSAP256  = "ECDSA_P256_SHA256"
	rawSigSize = 64 // of both: R ‖ S
)

// Numbers of PKCS#11 v3.0 that miekg/pkcs11 lacks.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// signature is one row of the table of signature algorithms.
type signature struct {
	name     string
	generate uint     // CKM_* that makes a key pair
	sign     uint     // CKM_* that signs
	params   [][]byte // encodings of CKA_EC_PARAMS that modules understand, DER
	input    func(message []byte) []byte
	public   func(point []byte) (crypto.PublicKey, error)
	encode   func(raw []byte) ([]byte, error)
	verify   func(public crypto.PublicKey, message, signature []byte) bool
}

// signatures is the table, the preferred algorithm first.
var signatures = []signature{
	{
		name:     Ed25519,
		generate: ckmECEdwardsKeyPairGen,
		sign:     ckmEdDSA,
		params: [][]byte{
			{0x06, 0x03, 0x2b, 0x65, 0x70},                // OID 1.3.101.112 (RFC 8410)
			append([]byte{0x13, 0x0c}, "edwards25519"...), // PrintableString (PKCS#11 v3.0)
		},
		input:  func(message []byte) []byte { return message },
		public: ed25519Public,
		encode: func(raw []byte) ([]byte, error) { return raw, nil },
		verify: func(public crypto.PublicKey, message, signature []byte) bool {
			key, ok := public.(ed25519.PublicKey)
			return ok && ed25519.Verify(key, message, signature)
		},
	},
	{
		name:     ECDSAP256,
		generate: pkcs11.CKM_EC_KEY_PAIR_GEN,
		sign:     pkcs11.CKM_ECDSA,
		params:   [][]byte{{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}}, // OID prime256v1 (RFC 5480)
		input:    func(message []byte) []byte { sum := sha256.Sum256(message); return sum[:] },
		public: func(point []byte) (crypto.PublicKey, error) {
			return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		},
		encode: ecdsaDER,
		verify: func(public crypto.PublicKey, message, signature []byte) bool {
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

// ecPoint returns the point in CKA_EC_POINT: a DER OCTET STRING, which some modules
// leave out.
func ecPoint(attribute []byte) []byte {
	var point []byte
	if rest, err := asn1.Unmarshal(attribute, &point); err == nil && len(rest) == 0 {
		return point
	}
	return attribute
}
