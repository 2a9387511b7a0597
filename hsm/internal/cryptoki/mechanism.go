package cryptoki

import (
	"crypto"

	"github.com/miekg/pkcs11"
)

// Sizes of AES-GCM as Keywright uses it (NIST SP 800-38D), in bytes.
const (
	IVSize  = 12
	TagSize = 16
)

// Mechanism is a CKM_* number with its parameters.
type Mechanism struct {
	number     uint
	parameters parameters
	numbers    [3]uint // x, y and z of oneshot.h
	a, b       []byte
}

// Plain is a mechanism without parameters.
func Plain(number uint) Mechanism { return Mechanism{number: number} }

// GCM is AES-GCM (CKM_AES_GCM, PKCS#11 v2.40 section 2.11). The IV is ours: some
// modules take a missing one for a constant.
func GCM(iv, aad []byte) Mechanism {
	if len(iv) != IVSize {
		panic("hsm: IV of wrong size") // a bug here, never input
	}
	return Mechanism{number: pkcs11.CKM_AES_GCM, parameters: gcmParameters, numbers: [3]uint{8 * TagSize}, a: iv, b: aad}
}

// PSS is RSASSA-PSS of a digest (CKM_RSA_PKCS_PSS, section 2.1.10), with MGF1 of the
// same hash and a salt as long as the hash.
func PSS(h crypto.Hash) Mechanism {
	n := hashes[h]
	return Mechanism{number: pkcs11.CKM_RSA_PKCS_PSS, parameters: pssParameters, numbers: [3]uint{n.hash, n.mgf, uint(h.Size())}}
}

// OAEP is RSAES-OAEP (CKM_RSA_PKCS_OAEP, section 2.1.8), with MGF1 of the same hash.
func OAEP(h crypto.Hash, label []byte) Mechanism {
	n := hashes[h]
	return Mechanism{number: pkcs11.CKM_RSA_PKCS_OAEP, parameters: oaepParameters, numbers: [3]uint{n.hash, n.mgf}, a: label}
}

var hashes = map[crypto.Hash]struct{ hash, mgf uint }{
	crypto.SHA1:   {pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}
