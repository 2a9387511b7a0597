package keyring

import (
	"crypto"
	"crypto/ecdh"
	"crypto/elliptic"
	_ "crypto/sha256" // linked in for crypto.SHA256
	_ "crypto/sha512" // linked in for crypto.SHA384 and crypto.SHA512
	"fmt"
	"slices"
)

const (
	// limit96 is how often a key may draw a random 96-bit nonce.
	limit96 = 1 << 32

	gcmPlaintext    = 1<<36 - 32 // NIST SP 800-38D
	chachaPlaintext = 1<<38 - 64 // RFC 8439
	sivPlaintext    = 1 << 36    // RFC 5297 allows more, nobody needs it
)

// table is the one place that knows the algorithms, and does not change.
var table = slices.Concat(aeadRows(), signRows(), macRows(), decryptRows(), agreementRows())

var byName = indexByName(table)

var defaults = map[Purpose]string{
	PurposeEncryptDecrypt:    "XAES_256_GCM",
	PurposeSignVerify:        "ECDSA_P256_SHA256",
	PurposeMAC:               "HMAC_SHA256",
	PurposeAsymmetricDecrypt: "RSA_OAEP_3072_SHA256",
	PurposeKeyAgreement:      "ECDH_P256",
}

func indexByName(rows []*Algorithm) map[string]*Algorithm {
	index := make(map[string]*Algorithm, len(rows))
	for _, a := range rows {
		index[a.name] = a
	}
	return index
}

func aeadRows() []*Algorithm {
	rows := []*Algorithm{
		{name: "XAES_256_GCM", keySize: 256, fips: true, bodyOverhead: 40, maxPlaintext: gcmPlaintext, memory: 534, keys: symmetric{32, newXAES}},
		{name: "AES_256_GCM", keySize: 256, fips: true, bodyOverhead: 28, nonceLimit: limit96, maxPlaintext: gcmPlaintext, memory: 760, keys: symmetric{32, newGCM}},
		{name: "AES_128_GCM", keySize: 128, fips: true, bodyOverhead: 28, nonceLimit: limit96, maxPlaintext: gcmPlaintext, memory: 760, keys: symmetric{16, newGCM}},
		{name: "CHACHA20_POLY1305", keySize: 256, bodyOverhead: 28, nonceLimit: limit96, maxPlaintext: chachaPlaintext, memory: 24, keys: symmetric{32, newChaCha}},
		{name: "XCHACHA20_POLY1305", keySize: 256, bodyOverhead: 40, maxPlaintext: chachaPlaintext, memory: 24, keys: symmetric{32, newXChaCha}},
		{name: "AES_256_SIV", keySize: 512, deterministic: true, bodyOverhead: 16, maxPlaintext: sivPlaintext, memory: 660, keys: symmetric{64, newSIV}},
	}
	return withPurpose(PurposeEncryptDecrypt, rows)
}

func signRows() []*Algorithm {
	rows := []*Algorithm{
		{name: "ECDSA_P256_SHA256", keySize: 256, fips: true, hash: crypto.SHA256, scalar: 32, jwa: "ES256", memory: 330, keys: ecdsaKeys{elliptic.P256()}},
		{name: "ECDSA_P384_SHA384", keySize: 384, fips: true, hash: crypto.SHA384, scalar: 48, jwa: "ES384", memory: 380, keys: ecdsaKeys{elliptic.P384()}},
		{name: "ECDSA_P521_SHA512", keySize: 521, fips: true, hash: crypto.SHA512, scalar: 66, jwa: "ES512", memory: 475, keys: ecdsaKeys{elliptic.P521()}},
		{name: "ECDSA_SECP256K1_SHA256", keySize: 256, hash: crypto.SHA256, scalar: 32, jwa: "ES256K", memory: 100, keys: secp256k1Keys{}},
		{name: "ED25519", keySize: 256, fips: true, jwa: "EdDSA", memory: 120, keys: ed25519Keys{}},
	}
	rows = append(rows, rsaRows("RSA_PSS", "PS", rsaSigning{pss{}})...)
	rows = append(rows, rsaRows("RSA_PKCS1", "RS", rsaSigning{pkcs1{}})...)
	return withPurpose(PurposeSignVerify, rows)
}

func macRows() []*Algorithm {
	rows := []*Algorithm{
		{name: "HMAC_SHA256", keySize: 256, fips: true, hash: crypto.SHA256, memory: 940, keys: symmetric{32, newHMAC(crypto.SHA256)}},
		{name: "HMAC_SHA384", keySize: 384, fips: true, hash: crypto.SHA384, memory: 1340, keys: symmetric{48, newHMAC(crypto.SHA384)}},
		{name: "HMAC_SHA512", keySize: 512, fips: true, hash: crypto.SHA512, memory: 1340, keys: symmetric{64, newHMAC(crypto.SHA512)}},
	}
	return withPurpose(PurposeMAC, rows)
}

func decryptRows() []*Algorithm {
	rows := rsaRows("RSA_OAEP", "RSA-OAEP-", rsaDecryption{})
	for _, a := range rows {
		a.maxPlaintext = uint64(a.keySize/8 - 2*a.hash.Size() - 2) // RFC 8017, 7.1.1
	}
	return withPurpose(PurposeAsymmetricDecrypt, rows)
}

func agreementRows() []*Algorithm {
	rows := []*Algorithm{
		{name: "ECDH_P256", keySize: 256, fips: true, memory: 376, keys: ecdhKeys{ecdh.P256(), "P-256", 256, ellipticJWK}},
		{name: "ECDH_P384", keySize: 384, fips: true, memory: 440, keys: ecdhKeys{ecdh.P384(), "P-384", 384, ellipticJWK}},
		{name: "X25519", keySize: 256, memory: 232, keys: ecdhKeys{ecdh.X25519(), "X25519", 256, octetJWK}},
	}
	return withPurpose(PurposeKeyAgreement, rows)
}

// rsaRows makes the nine rows of a scheme: each modulus with each hash.
func rsaRows(name, jwa string, scheme rsaScheme) []*Algorithm {
	var rows []*Algorithm
	for _, bits := range []int{2048, 3072, 4096} {
		for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			rows = append(rows, &Algorithm{
				name:    fmt.Sprintf("%s_%d_SHA%d", name, bits, 8*h.Size()),
				keySize: bits,
				fips:    true,
				hash:    h,
				jwa:     fmt.Sprintf("%s%d", jwa, 8*h.Size()),
				memory:  2200 + bits*9/8,
				keys:    rsaKeys{bits, h, scheme},
			})
		}
	}
	return rows
}

func withPurpose(p Purpose, rows []*Algorithm) []*Algorithm {
	for _, a := range rows {
		a.purpose = p
	}
	return rows
}
