package hsm

import "context"

// Key is an HSM-resident key, of protection level HSM: sensitive, not extractable,
// and used inside the token only, one call for each use.
type Key struct {
	ID        KeyID
	Algorithm string // a name of keyring's table, such as "ECDSA_P256_SHA256"
	PublicKey []byte // SubjectPublicKeyInfo, DER; nil for a symmetric key
	Origin    Origin
}

// Origin is what the token itself says about where a key comes from (PKCS#11
// v2.40, sections 4.7 and 4.9).
type Origin struct {
	Local            bool // CKA_LOCAL: made in the token, or a copy of such a key
	NeverExtractable bool // CKA_NEVER_EXTRACTABLE
	AlwaysSensitive  bool // CKA_ALWAYS_SENSITIVE
}

// Use is what a Key is used for in one call.
type Use uint8

// The uses, with what UseKey takes as data and extra, and what it returns.
const (
	UseEncrypt           Use = 1 + iota // plaintext, AAD: IV (12 bytes) ‖ ciphertext ‖ tag (16 bytes)
	UseDecrypt                          // IV ‖ ciphertext ‖ tag, AAD: plaintext
	UseSign                             // digest of the algorithm's hash, or for Ed25519 the message: signature, of ECDSA in ASN.1 DER
	UseMAC                              // message: full-length tag
	UseDecryptAsymmetric                // RSA-OAEP ciphertext, label: plaintext
	UseAgree                            // peer's public key, an uncompressed point or 32 bytes of X25519: raw shared secret
)

// Keys is what Keywright asks of a token for HSM-resident keys. It follows the
// rules of Service.
type Keys interface {
	// GenerateKey makes a key under an id that the caller has written down before,
	// so that a lost reply or a crash leaves nothing that nobody knows of. The error
	// is ErrUnknownOutcome when the key may or may not be there now; ErrAlgorithm,
	// with the list of those that it can do, when the token cannot make it.
	GenerateKey(ctx context.Context, id KeyID, algorithm string) (Key, error)

	// ImportKey puts material into the token, as keyring keeps it: raw bytes for
	// symmetric keys, PKCS#8 in DER for others. Errors as for GenerateKey, and
	// ErrInvalidArgument for material that is no key of the algorithm.
	ImportKey(ctx context.Context, id KeyID, algorithm string, material []byte) (Key, error)

	// FindKey finds a key: ErrKeyNotFound, ErrDuplicateObject, ErrUnprotected. It
	// never makes one.
	FindKey(ctx context.Context, id KeyID, algorithm string) (Key, error)

	// UseKey uses a key that was generated, imported or found through this Service.
	// ErrDecrypt means that the token is well and the ciphertext is not.
	UseKey(ctx context.Context, id KeyID, algorithm string, use Use, data, extra []byte) ([]byte, error)

	// ListKeys returns the ids of all keys on the token that GenerateKey and
	// ImportKey made, whoever called them.
	ListKeys(ctx context.Context) ([]KeyID, error)
}
