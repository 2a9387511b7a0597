package algorithm

import (
	"crypto"
	"crypto/ecdh"
	"crypto/elliptic"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// Numbers of PKCS#11 v3.0 that miekg/pkcs11 lacks.
const (
	ckmECEdwardsKeyPairGen    = 0x1055
	ckmECMontgomeryKeyPairGen = 0x1056
	ckmEdDSA                  = 0x1057
	ckkSHA256HMAC             = 0x2b
	ckkSHA384HMAC             = 0x2c
	ckkSHA512HMAC             = 0x2d
	ckkECEdwards              = 0x40
	ckkECMontgomery           = 0x41
)

// Names of rows that are spoken of elsewhere.
const (
	AES256GCM = "AES_256_GCM"
	Ed25519   = "ED25519"
	ECDSAP256 = "ECDSA_P256_SHA256"
)

// table is the one place that knows the algorithms.
var table = slices.Concat(secrets(), curves(), rsaSignatures(), oaeps(), agreements())

func secrets() []*Algorithm {
	aes := []Recipe{{Generate: pkcs11.CKM_AES_KEY_GEN, KeyType: pkcs11.CKK_AES}}
	hmac := func(own uint) []Recipe {
		return []Recipe{
			{Generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN, KeyType: pkcs11.CKK_GENERIC_SECRET},
			{Generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN, KeyType: own},
		}
	}
	return []*Algorithm{
		{Name: AES256GCM, Purpose: Encrypt, Bits: 256, Use: pkcs11.CKM_AES_GCM, Recipes: aes, family: secret{}},
		{Name: "AES_128_GCM", Purpose: Encrypt, Bits: 128, Use: pkcs11.CKM_AES_GCM, Recipes: aes, family: secret{}},
		{Name: "HMAC_SHA256", Purpose: MAC, Bits: 256, Hash: crypto.SHA256, Use: pkcs11.CKM_SHA256_HMAC, Recipes: hmac(ckkSHA256HMAC), family: secret{}},
		{Name: "HMAC_SHA384", Purpose: MAC, Bits: 384, Hash: crypto.SHA384, Use: pkcs11.CKM_SHA384_HMAC, Recipes: hmac(ckkSHA384HMAC), family: secret{}},
		{Name: "HMAC_SHA512", Purpose: MAC, Bits: 512, Hash: crypto.SHA512, Use: pkcs11.CKM_SHA512_HMAC, Recipes: hmac(ckkSHA512HMAC), family: secret{}},
	}
}

// Encodings of CKA_EC_PARAMS: object identifiers (RFC 5480, RFC 8410), and the
// curve's name as a PrintableString (PKCS#11 v3.0).
var (
	p256Params        = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	p384Params        = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}
	p521Params        = []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23}
	ed25519Params     = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}
	ed25519NameParams = append([]byte{0x13, 0x0c}, "edwards25519"...)
	x25519Params      = []byte{0x06, 0x03, 0x2b, 0x65, 0x6e}
	x25519NameParams  = append([]byte{0x13, 0x0a}, "curve25519"...)
)

func curves() []*Algorithm {
	ecdsa := func(name string, curve elliptic.Curve, h crypto.Hash, params []byte) *Algorithm {
		return &Algorithm{
			Name: name, Purpose: Sign, Bits: curve.Params().BitSize, Hash: h, Use: pkcs11.CKM_ECDSA,
			Recipes: weierstrass(params), Signing: ecdsaSigning{curve}, family: ecdsaPair{curve: curve},
		}
	}
	return []*Algorithm{
		ecdsa(ECDSAP256, elliptic.P256(), crypto.SHA256, p256Params),
		ecdsa("ECDSA_P384_SHA384", elliptic.P384(), crypto.SHA384, p384Params),
		ecdsa("ECDSA_P521_SHA512", elliptic.P521(), crypto.SHA512, p521Params),
		{
			Name: Ed25519, Purpose: Sign, Bits: 256, Use: ckmEdDSA, Signing: eddsaSigning{}, family: edwardsPair{},
			Recipes: []Recipe{
				{Generate: ckmECEdwardsKeyPairGen, KeyType: ckkECEdwards, Params: ed25519Params},
				{Generate: ckmECEdwardsKeyPairGen, KeyType: ckkECEdwards, Params: ed25519NameParams},
			},
		},
	}
}

func weierstrass(params []byte) []Recipe {
	return []Recipe{{Generate: pkcs11.CKM_EC_KEY_PAIR_GEN, KeyType: pkcs11.CKK_EC, Params: params}}
}

func agreements() []*Algorithm {
	agree := func(name string, curve ecdh.Curve, bits int, recipes []Recipe) *Algorithm {
		return &Algorithm{Name: name, Purpose: Agree, Bits: bits, Use: pkcs11.CKM_ECDH1_DERIVE, Recipes: recipes, family: ecdhPair{curve: curve}}
	}
	return []*Algorithm{
		agree("ECDH_P256", ecdh.P256(), 256, weierstrass(p256Params)),
		agree("ECDH_P384", ecdh.P384(), 384, weierstrass(p384Params)),
		agree("X25519", ecdh.X25519(), 256, []Recipe{
			{Generate: ckmECMontgomeryKeyPairGen, KeyType: ckkECMontgomery, Params: x25519Params},
			{Generate: ckmECMontgomeryKeyPairGen, KeyType: ckkECMontgomery, Params: x25519NameParams},
			{Generate: ckmECEdwardsKeyPairGen, KeyType: ckkECEdwards, Params: x25519Params}, // SoftHSM2
		}),
	}
}

var rsaSizes = []int{2048, 3072, 4096}

func rsaRow(name string, p Purpose, bits int, h crypto.Hash, use uint) *Algorithm {
	return &Algorithm{
		Name: fmt.Sprintf("%s_%d_SHA%d", name, bits, 8*h.Size()), Purpose: p, Bits: bits, Hash: h, Use: use,
		Recipes: []Recipe{{Generate: pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, KeyType: pkcs11.CKK_RSA}}, family: rsaPair{},
	}
}

func rsaSignatures() []*Algorithm {
	var rows []*Algorithm
	for _, scheme := range []struct {
		name string
		use  uint
		make func(bits int, h crypto.Hash) Signing
	}{
		{"RSA_PSS", pkcs11.CKM_RSA_PKCS_PSS, func(bits int, h crypto.Hash) Signing { return pssSigning{bits, h} }},
		{"RSA_PKCS1", pkcs11.CKM_RSA_PKCS, func(bits int, h crypto.Hash) Signing { return pkcs1Signing{bits, h} }},
	} {
		for _, bits := range rsaSizes {
			for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
				row := rsaRow(scheme.name, Sign, bits, h, scheme.use)
				row.Signing = scheme.make(bits, h)
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// oaeps are keyring's rows, and one for wrapping keys on tokens that do OAEP with
// SHA-1 alone.
func oaeps() []*Algorithm {
	var rows []*Algorithm
	for _, bits := range rsaSizes {
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			rows = append(rows, rsaRow("RSA_OAEP", Decrypt, bits, h, pkcs11.CKM_RSA_PKCS_OAEP))
		}
	}
	sha1 := rsaRow("RSA_OAEP", Decrypt, 3072, crypto.SHA1, pkcs11.CKM_RSA_PKCS_OAEP)
	sha1.Name = "RSA_OAEP_3072_SHA1"
	return append(rows, sha1)
}
