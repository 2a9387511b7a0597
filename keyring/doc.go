// Package keyring is the hot path: the table of algorithms, immutable key
// versions built on it, and the self-describing ciphertext format.
//
// # Responsibility
//
// The package turns key material into operations and nothing else. It stores
// nothing, decides nothing about who may do what, counts nothing, and keeps no
// state between calls. Primitives come from the standard library (its FIPS
// 140-3 module), golang.org/x/crypto, tink-go (AES-SIV) and decred's secp256k1;
// only the key derivation of XAES-256-GCM is written here.
//
// # Ciphertext
//
//	byte  0       format, 0x01
//	bytes 1..8    key id, big endian
//	bytes 9..12   key version, big endian
//	rest          body: nonce ‖ ciphertext ‖ tag (AES_256_SIV: SIV ‖ ciphertext)
//	AEAD AAD      the 13 header bytes ‖ kind ‖ bytes
//
// The kind is 0 for nothing, 1 for raw AAD and 2 for an encryption context in
// its canonical form (see [CanonicalContext]), so that neither opens the
// other's ciphertext. The header is authenticated with the rest.
//
// # Encoding of key material
//
//	AEADs and HMAC    the raw key; AES_256_SIV has 64 bytes, the CMAC key first (RFC 5297)
//	ECDSA, ECDH P-*   the private scalar, big endian, as wide as the curve's order
//	ED25519           the 32-byte seed (RFC 8032)
//	X25519            the 32-byte private key, unclamped (RFC 7748 clamps at use)
//	RSA               PKCS#8 DER (RFC 5958), two primes, public exponent over 2^16
//
// # Keys held elsewhere
//
// An [External] key never comes here: [ExternalVersion] sends its private uses to
// the holder, such as an HSM, and does the rest with the public key. Ciphertexts,
// signatures and tags are the same as those of a key of the same algorithm in
// memory, so either opens and verifies what the other has made.
//
// # FIPS 140-3
//
// Where the process enforces FIPS 140-3 (GODEBUG=fips140=only), rows that are
// not approved fail with [ErrNotFIPS] when a key is generated or built, and all
// the others work.
//
// # Lifetimes and threads
//
// An [Algorithm] lives as long as the process. A [Version] is built once, holds
// its own copy of the key, and is safe for concurrent use without locks. A
// [Material] belongs to one goroutine at a time; it can be wiped as soon as the
// Version is built.
package keyring
