// Package transit makes and opens what the transit engine of HashiCorp Vault and
// OpenBao makes: its ciphertexts, signatures and HMACs, all of the form
// vault:v<N>:<base64>, and its backups and exports of keys.
//
// It turns key material into operations, as package keyring does, and like it stores
// nothing, decides nothing about who may do what, and counts nothing.
//
// # Formats
//
//	AEADs        base64 of nonce ‖ ciphertext ‖ tag, associated data as it is given
//	convergent   the nonce is HMAC-SHA256(nonce key, plaintext), cut to its length
//	derived      key, and nonce key (32 bytes), are HKDF-SHA256(key, no salt, info: context)
//	ed25519      derived from seed ‖ public key; the 32 bytes derived are the seed
//	RSA          OAEP with SHA-256 and no label, or PKCS #1 v1.5
//	signatures   base64 of DER, or with marshaling jws base64url without padding of r ‖ s;
//	             RSA and Ed25519 as they are
//	HMACs        base64, under a key that each version has beside its own
//
// Keys of older transits are served as far as they still open what they made: derived by
// the HMAC-SHA256 counter mode, and convergent with the caller's nonce (scheme 1, which is
// not in the ciphertext) or one keyed by the context (scheme 2).
//
// # Where it is stricter than transit
//
// A context for a key that is not derived is refused, which transit would ignore, and a
// digest of a length that no hash has. A convergent key binds no associated data. Base64
// has one form, but for line breaks. RSA keys have a public exponent over 2^16, as everywhere
// in this service. Ed25519 ignores hash_algorithm and prehashed as OpenBao does; Vault
// refuses sha2-512, which it takes for Ed25519ph.
//
// # Lifetimes and threads
//
// A Material belongs to one goroutine at a time; a Version is built once, holds its
// own copy of the key, and is safe for concurrent use without locks.
package transit
