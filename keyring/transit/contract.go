package transit

import (
	"errors"
	"io"
	"time"

	"github.com/keywright/keywright/keyring"
)

// CONTRACT STUB: signatures that other packages build on. The implementation replaces
// this file.

var errStub = errors.New("transit: not implemented")

// Type is a type of key as transit names it. Immutable; compared by pointer.
type Type struct{ name string }

// Types returns all types: aes128-gcm96, aes256-gcm96, chacha20-poly1305,
// xchacha20-poly1305, ed25519, ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa-2048, rsa-3072,
// rsa-4096, hmac.
func Types() []*Type { return nil }

// LookupType finds a type by its exact name.
func LookupType(name string) (*Type, bool) { return nil, false }

// Name is the type's name in transit's API, for example "aes256-gcm96".
func (t *Type) Name() string { return t.name }

// Algorithm is the row of keyring's table that is nearest: what the key's record and the
// audit log name (RSA: the signing row RSA_SIGN_PSS_*_SHA256; hmac: HMAC_SHA256).
func (t *Type) Algorithm() *keyring.Algorithm { return nil }

// What a type is able to do, as transit's read of a key reports it.
func (t *Type) Encrypts() bool   { return false } // symmetric types and RSA
func (t *Type) Decrypts() bool   { return false }
func (t *Type) Signs() bool      { return false }
func (t *Type) Derives() bool    { return false } // may be created derived: AEADs and ed25519
func (t *Type) Converges() bool  { return false } // may be created convergent: AEADs
func (t *Type) AcceptsAAD() bool { return false } // AEADs
func (t *Type) Asymmetric() bool { return false }
func (t *Type) Random() bool     { return false } // nonces are random and 96 bits: uses are to be limited (2^32)

// Settings are those of a key that change what its versions do. They never change.
type Settings struct {
	Type       *Type
	Derived    bool // each use names a context, from which its key is derived (HKDF-SHA256)
	Convergent bool // needs Derived
	// KeySize is that of an hmac key in bytes, 32 to 512; 0 is 32.
	KeySize int
}

// Check tells what does not fit together. Errors: *keyring.InputError with the field
// as transit names it (type, derived, convergent_encryption, key_size).
func (s Settings) Check() error { return errStub }

// Generate makes the material of a new version: an opaque encoding of the key, the HMAC
// key that transit gives each version beside it, and, of a convergent key, how nonces
// are made (transit's convergent version 3).
func (s Settings) Generate(random io.Reader) (keyring.Material, error) {
	return keyring.Material{}, errStub
}

// Import makes the material of a version from key material as transit's import takes
// it: a raw symmetric key, or a private key in PKCS#8 (DER). A fresh HMAC key is drawn
// from random, except for type hmac, whose key it is.
func (s Settings) Import(random io.Reader, key []byte) (keyring.Material, error) {
	return keyring.Material{}, errStub
}

// Version is one version of a key, ready for use.
type Version struct{}

// NewVersion builds a version from its material, which may be wiped afterwards.
func NewVersion(s Settings, number uint32, m keyring.Material) (*Version, error) {
	return nil, errStub
}

// MemorySize is about how many bytes the version holds.
func (v *Version) MemorySize() int { return 0 }

// Number is the version's number in its key.
func (v *Version) Number() uint32 { return 0 }

// Params are what a request to encrypt or decrypt brings beside its data.
type Params struct {
	Context []byte // of a derived key; else refused when not empty
	AAD     []byte // associated data, as the AEAD gets it
	Nonce   []byte // only of convergent keys of version 1, to decrypt what they made
	Padding string // RSA: "" or "oaep", or "pkcs1v15"
}

// Encrypt appends "vault:v<N>:<base64>" to dst. Convergent together with AAD is refused.
// Plaintext may be empty, as in transit. Errors: *keyring.InputError
// (context, nonce, associated_data, padding_scheme, plaintext), keyring.ErrPurpose.
func (v *Version) Encrypt(dst, plaintext []byte, p Params) ([]byte, error) { return nil, errStub }

// ParseVersion reads the version number of a ciphertext, a signature or an HMAC:
// exactly three parts, "vault", "v<N>" with N ≥ 1, and the body. Error: *keyring.InputError for field.
func ParseVersion(field string, text []byte) (number uint32, body []byte, err error) {
	return 0, nil, errStub
}

// Decrypt appends the plaintext of a ciphertext's body, as ParseVersion gives it, to
// dst. Errors: *keyring.InputError, keyring.ErrDecrypt, keyring.ErrPurpose.
func (v *Version) Decrypt(dst, body []byte, p Params) ([]byte, error) { return nil, errStub }

// SignOptions belong to one signature, by transit's names and with its defaults:
// HashAlgorithm "" is sha2-256 (none, sha1, sha2-224, sha2-256, sha2-384, sha2-512,
// sha3-224 … sha3-512); Algorithm (of RSA) "" or "pss", "pkcs1v15"; Marshaling "" or
// "asn1", "jws"; SaltLength "" or "auto", "hash" or a number.
type SignOptions struct {
	HashAlgorithm string
	Prehashed     bool
	Algorithm     string
	Marshaling    string
	SaltLength    string
	Context       []byte
}

// Sign appends "vault:v<N>:<signature>" to dst. publicKey is that of a derived key (raw), else nil.
// Errors: *keyring.InputError (input, hash_algorithm, signature_algorithm,
// marshaling_algorithm, salt_length, context), keyring.ErrPurpose.
func (v *Version) Sign(dst, message []byte, o SignOptions) (signature, publicKey []byte, err error) {
	return nil, nil, errStub
}

// Verify checks a signature's body, as ParseVersion gives it. Error: keyring.ErrVerify where it does
// not hold or is malformed; *keyring.InputError, keyring.ErrPurpose.
func (v *Version) Verify(message, body []byte, o SignOptions) error { return errStub }

// HMAC appends "vault:v<N>:<base64>" of the message's HMAC to dst. hash is as in SignOptions.
func (v *Version) HMAC(dst, message []byte, hash string) ([]byte, error) { return nil, errStub }

// VerifyHMAC checks an HMAC's body. Error: keyring.ErrVerify.
func (v *Version) VerifyHMAC(message, body []byte, hash string) error { return errStub }

// Hash is transit's hash of input, by its name; "" is sha2-256.
func Hash(name string, input []byte) ([]byte, error) { return nil, errStub }

// PublicKey is as transit shows it in a read of the key: PEM (SubjectPublicKeyInfo) of ECDSA and RSA,
// raw base64 of ed25519, and "" of symmetric and derived keys.
func (v *Version) PublicKey() string { return "" }

// ExportKind names what Export gives: encryption-key, signing-key, hmac-key, public-key.
type ExportKind string

// The kinds of export.
const (
	EncryptionKey ExportKind = "encryption-key"
	SigningKey    ExportKind = "signing-key"
	HMACKey       ExportKind = "hmac-key"
	PublicKey     ExportKind = "public-key"
)

// Export writes a version's key as transit's export does (base64, or PEM).
// Errors: *keyring.InputError naming "type" where the key has no such key.
func Export(s Settings, kind ExportKind, m keyring.Material) (string, error) { return "", errStub }

// Backup is a key with all its versions, as transit's backup carries it.
type Backup struct {
	Name     string
	Settings Settings
	Versions map[uint32]BackupVersion // from MinAvailableVersion (or 1) to LatestVersion

	LatestVersion                                                         uint32
	MinDecryptionVersion, MinEncryptionVersion, MinAvailableVersion       uint32
	DeletionAllowed, Exportable, PlaintextBackup, Imported, AllowRotation bool
	AutoRotatePeriod                                                      time.Duration
	// HashiCorp says that Vault made it, not OpenBao: types' numbers differ.
	HashiCorp bool
}

// BackupVersion is one version of a Backup. Its material is for NewVersion; it is the
// caller's to wipe.
type BackupVersion struct {
	Material keyring.Material
	Created  time.Time
}

// MaxBackup is the longest backup that is read, in bytes.
const MaxBackup = 32 << 20

// ParseBackup reads the base64 text of a backup. Errors: *keyring.InputError for field "backup".
// What transit could hold but this package cannot serve is refused and named.
func ParseBackup(text string) (*Backup, error) { return nil, errStub }

// Encode writes a backup that OpenBao restores, or Vault where HashiCorp is set.
func (b *Backup) Encode() (string, error) { return "", errStub }

// Wipe wipes the material of all versions.
func (b *Backup) Wipe() {}
