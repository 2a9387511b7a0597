package transit

import (
	"fmt"

	"github.com/keywright/keywright/keyring"
)

// Type is a type of key as transit names it. Immutable; compared by pointer.
type Type struct {
	name      string
	algorithm *keyring.Algorithm
	family    family
	derives   bool
	openbao   int // its number in OpenBao's backups
	hashicorp int // its number in Vault's, or none
}

// none is the number of a type that does not exist there.
const none = -1

// table is the one place that knows the types, and does not change.
var table = []*Type{
	{name: "aes128-gcm96", algorithm: row("AES_128_GCM"), family: aesGCM, derives: true, openbao: 8, hashicorp: 8},
	{name: "aes256-gcm96", algorithm: row("AES_256_GCM"), family: aesGCM, derives: true, openbao: 0, hashicorp: 0},
	{name: "chacha20-poly1305", algorithm: row("CHACHA20_POLY1305"), family: chacha, derives: true, openbao: 5, hashicorp: 5},
	{name: "xchacha20-poly1305", algorithm: row("XCHACHA20_POLY1305"), family: xchacha, derives: true, openbao: 11, hashicorp: none},
	{name: "ed25519", algorithm: row("ED25519"), family: ed25519Keys{}, derives: true, openbao: 2, hashicorp: 2},
	{name: "ecdsa-p256", algorithm: row("ECDSA_P256_SHA256"), family: ecdsaP256, openbao: 1, hashicorp: 1},
	{name: "ecdsa-p384", algorithm: row("ECDSA_P384_SHA384"), family: ecdsaP384, openbao: 6, hashicorp: 6},
	{name: "ecdsa-p521", algorithm: row("ECDSA_P521_SHA512"), family: ecdsaP521, openbao: 7, hashicorp: 7},
	{name: "rsa-2048", algorithm: row("RSA_PSS_2048_SHA256"), family: rsaKeys{}, openbao: 3, hashicorp: 3},
	{name: "rsa-3072", algorithm: row("RSA_PSS_3072_SHA256"), family: rsaKeys{}, openbao: 9, hashicorp: 9},
	{name: "rsa-4096", algorithm: row("RSA_PSS_4096_SHA256"), family: rsaKeys{}, openbao: 4, hashicorp: 4},
	{name: "hmac", algorithm: row("HMAC_SHA256"), family: hmacKeys{}, openbao: 10, hashicorp: 11},
}

// row finds a row of keyring's table that must be there.
func row(name string) *keyring.Algorithm {
	a, ok := keyring.Lookup(name)
	if !ok {
		panic("transit: keyring has no " + name)
	}
	return a
}

// Types returns all types: aes128-gcm96, aes256-gcm96, chacha20-poly1305,
// xchacha20-poly1305, ed25519, ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072,
// rsa-4096, hmac. The slice is the caller's.
func Types() []*Type { return append([]*Type(nil), table...) }

// LookupType finds a type by its exact name.
func LookupType(name string) (*Type, bool) {
	for _, t := range table {
		if t.name == name {
			return t, true
		}
	}
	return nil, false
}

// Name is the type's name in transit's API, for example "aes256-gcm96".
func (t *Type) Name() string { return t.name }

// String returns the name.
func (t *Type) String() string { return t.name }

// Algorithm is the row of keyring's table that is nearest: what the key's record and the
// audit log name (RSA: RSA_PSS_<bits>_SHA256; hmac: HMAC_SHA256).
func (t *Type) Algorithm() *keyring.Algorithm { return t.algorithm }

// Encrypts tells whether keys of the type encrypt: symmetric ones and RSA.
func (t *Type) Encrypts() bool { return t.AcceptsAAD() || t.rsa() }

// Decrypts tells whether keys of the type decrypt.
func (t *Type) Decrypts() bool { return t.Encrypts() }

// Signs tells whether keys of the type sign.
func (t *Type) Signs() bool { return t.Asymmetric() }

// Derives tells whether keys of the type may be derived: AEADs and ed25519.
func (t *Type) Derives() bool { return t.derives }

// Converges tells whether keys of the type may be convergent: AEADs.
func (t *Type) Converges() bool { return t.AcceptsAAD() }

// AcceptsAAD tells whether keys of the type authenticate associated data: AEADs.
func (t *Type) AcceptsAAD() bool {
	return t.algorithm.Purpose() == keyring.PurposeEncryptDecrypt
}

// Asymmetric tells whether keys of the type have a public half.
func (t *Type) Asymmetric() bool { return t.algorithm.Asymmetric() }

// Random tells that nonces are random and have 96 bits, so that a version may encrypt
// 2^32 times (NIST SP 800-38D, 8.3). The caller counts.
func (t *Type) Random() bool { return t.algorithm.RandomNonceLimit() > 0 }

func (t *Type) rsa() bool {
	_, ok := t.family.(rsaKeys)
	return ok
}

// refuse says that keys of the type cannot do what is asked for.
func (t *Type) refuse(operation string) error {
	return fmt.Errorf("%w: a key of type %s cannot %s", keyring.ErrPurpose, t.name, operation)
}

// input refuses a field of a request.
func input(field, format string, args ...any) error {
	return &keyring.InputError{Field: field, Reason: fmt.Sprintf(format, args...)}
}
