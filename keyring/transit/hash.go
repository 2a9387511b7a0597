package transit

import (
	"crypto"
	"crypto/fips140"
	"crypto/hmac"
	_ "crypto/sha1"   //nolint:gosec // linked in for crypto.SHA1: HMACs and old signatures of transit may have it
	_ "crypto/sha256" // linked in for crypto.SHA224 and crypto.SHA256
	_ "crypto/sha3"   // linked in for crypto.SHA3_*
	_ "crypto/sha512" // linked in for crypto.SHA384 and crypto.SHA512
	"encoding/base64"
	"fmt"

	"github.com/keywright/keywright/keyring"
)

// hashes by their names in transit, but for "none".
var hashes = map[string]crypto.Hash{
	"":         crypto.SHA256,
	"sha1":     crypto.SHA1,
	"sha2-224": crypto.SHA224, "sha2-256": crypto.SHA256, "sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512,
	"sha3-224": crypto.SHA3_224, "sha3-256": crypto.SHA3_256, "sha3-384": crypto.SHA3_384, "sha3-512": crypto.SHA3_512,
}

// lookupHash finds a hash by its name. Errors: *keyring.InputError for field,
// keyring.ErrNotFIPS.
func lookupHash(field, name string) (crypto.Hash, error) {
	h, ok := hashes[name]
	if !ok {
		return 0, input(field, "must be sha1, sha2-224, sha2-256, sha2-384, sha2-512, sha3-224, sha3-256, sha3-384 or sha3-512")
	}
	if h == crypto.SHA1 && fips140.Enforced() {
		return 0, fmt.Errorf("sha1: %w", keyring.ErrNotFIPS)
	}
	return h, nil
}

// Hash is transit's hash of input, by its name: sha2-224, sha2-256, sha2-384, sha2-512,
// sha3-224, sha3-256, sha3-384, sha3-512; "" is sha2-256. Error: *keyring.InputError
// (algorithm).
func Hash(name string, input []byte) ([]byte, error) {
	h, err := lookupHash("algorithm", name)
	if err != nil || h == crypto.SHA1 {
		return nil, &keyring.InputError{Field: "algorithm", Reason: "must be sha2-224, sha2-256, sha2-384, sha2-512, sha3-224, sha3-256, sha3-384 or sha3-512"}
	}
	return digest(h, input), nil
}

func digest(h crypto.Hash, message []byte) []byte {
	state := h.New()
	state.Write(message)
	return state.Sum(nil)
}

// HMAC appends "vault:v<N>:<base64>" of the message's HMAC to dst, under the HMAC key
// that every version has. hash is named as in SignOptions, without none. Errors:
// *keyring.InputError (algorithm; key_version of a version from an old transit, which
// has no such key), keyring.ErrNotFIPS of sha1.
func (v *Version) HMAC(dst, message []byte, hash string) ([]byte, error) {
	tag, err := v.tag(message, hash)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.AppendEncode(append(dst, v.prefix...), tag), nil
}

// VerifyHMAC checks an HMAC's body, as ParseVersion gives it, in constant time. Errors:
// keyring.ErrVerify where it does not hold or is malformed, and those of HMAC.
func (v *Version) VerifyHMAC(message, body []byte, hash string) error {
	own, err := v.tag(message, hash)
	if err != nil {
		return err
	}
	given, err := std.AppendDecode(nil, body)
	if err != nil || !hmac.Equal(own, given) {
		return keyring.ErrVerify
	}
	return nil
}

func (v *Version) tag(message []byte, hash string) ([]byte, error) {
	h, err := lookupHash("algorithm", hash)
	if err != nil {
		return nil, err
	}
	key := v.hidden.Get().hmac
	if len(key) == 0 {
		return nil, input("key_version", "version %d has no HMAC key; rotate the key, and use a later version", v.number)
	}
	state := hmac.New(h.New, key)
	state.Write(message)
	return state.Sum(nil), nil
}

// hmacKeys is the family of keys of type hmac, which is the HMAC key of the version.
type hmacKeys struct{}

func (hmacKeys) build(Settings, secret) (any, error) { return nil, nil }
