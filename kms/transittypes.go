package kms

import (
	"time"

	"github.com/keywright/keywright/keyring/transit"
)

// Framing is how a key's ciphertexts are written; it is fixed at creation, and neither
// framing opens the other's.
type Framing string

// The framings.
const (
	FramingNative Framing = "NATIVE" // docs/format.md
	FramingVault  Framing = "VAULT"  // vault:v<N>:<base64>, as transit writes it
)

// TransitOptions make a key of VAULT framing, in a CreateKeyRequest.
type TransitOptions struct {
	Type                string // as transit names it; empty: aes256-gcm96
	Derived, Convergent bool
	KeySize             int  // of type hmac, in bytes; 0 is 32
	PlaintextBackup     bool // only in a namespace of PlaintextExport, as exportable is
}

// TransitKey is what a Key of VAULT framing has beside the rest.
type TransitKey struct {
	Type                 string `json:"type"`
	Derived              bool   `json:"derived,omitempty"`
	Convergent           bool   `json:"convergent,omitempty"`
	KeySize              int    `json:"key_size,omitempty"`
	MinDecryptionVersion uint32 `json:"min_decryption_version"`           // 1 or more
	MinEncryptionVersion uint32 `json:"min_encryption_version,omitempty"` // 0: none of its own
	MinAvailableVersion  uint32 `json:"min_available_version,omitempty"`  // 0: never trimmed
	DeletionAllowed      bool   `json:"deletion_allowed,omitempty"`
	PlaintextBackup      bool   `json:"plaintext_backup,omitempty"`
	Imported             bool   `json:"imported,omitempty"`
	AllowRotation        bool   `json:"allow_rotation,omitempty"` // of an imported key
	// Restoring is the oldest version that is here while older ones are still to be
	// restored from the key's backup; 0: none are.
	Restoring uint32 `json:"restoring,omitempty"`
}

// ConfigureTransitRequest replaces what is not nil. Exportable and PlaintextBackup can be
// switched on, in a namespace of PlaintextExport, and never off. A version below
// MinDecryptionVersion (0 is 1) decrypts and verifies nothing; one below that or
// MinEncryptionVersion encrypts, signs and HMACs nothing.
type ConfigureTransitRequest struct {
	Namespace, Key                             string
	MinDecryptionVersion, MinEncryptionVersion *uint32
	DeletionAllowed                            *bool
	Exportable, PlaintextBackup                *bool
	AutoRotatePeriod                           *time.Duration
	Idempotency                                string
}

// TrimTransitRequest schedules the destruction of all versions below MinAvailableVersion,
// which are unusable at once. It may be higher than neither min_decryption_version nor
// min_encryption_version, which must be set.
type TrimTransitRequest struct {
	Namespace, Key      string
	MinAvailableVersion uint32
	Idempotency         string
}

// ReadTransitRequest asks for a key as transit's read tells it. Context is that for which
// public keys of a derived key are told; without it they are not.
type ReadTransitRequest struct {
	Namespace, Key string
	Context        []byte
}

// TransitKeyInfo is what transit's read of a key tells.
type TransitKeyInfo struct {
	Key      Key
	Settings transit.Settings
	Versions []TransitVersionInfo // that are available: from MinDecryptionVersion on, oldest first
}

// TransitVersionInfo is a version in a TransitKeyInfo.
type TransitVersionInfo struct {
	Version   uint32
	Created   time.Time
	PublicKey string // as transit.Version.PublicKey writes it; empty if there is none
}

// ImportTransitRequest makes a key of VAULT framing, or with Version a version of one,
// from what transit's import takes: Ciphertext is the RSA-OAEP wrapped AES key (512 bytes
// under the wrapping key of TransitWrappingKey) followed by the key material under it in
// AES key wrap with padding (RFC 5649). Hash is OAEP's: SHA1, SHA224, SHA256 ("" too), SHA384, SHA512.
type ImportTransitRequest struct {
	Namespace, Key string
	Version        bool // a new version of a key that exists; the fields from Options on are not used then
	Ciphertext     []byte
	Hash           string
	Options        TransitOptions
	Exportable     bool
	AllowRotation  bool
	AutoRotate     time.Duration
	Protection     Protection
	Idempotency    string
}

// ExportTransitRequest asks for a key's material in plaintext. Version 0 is all versions from
// MinDecryptionVersion on, LatestVersion as transit's "latest" is given by its number.
type ExportTransitRequest struct {
	Namespace, Key string
	Kind           transit.ExportKind
	Version        uint32
	Latest         bool
}

// TransitExport is answered to an ExportTransitRequest.
type TransitExport struct {
	Key  Key
	Keys map[uint32]string
}

// BackupTransitRequest asks for a key with all its versions in plaintext, as transit's backup has it.
type BackupTransitRequest struct {
	Namespace, Key string
	HashiCorp      bool // for Vault, not OpenBao
}

// RestoreTransitRequest makes a key of a backup. Key "" is the name that it has there.
type RestoreTransitRequest struct {
	Namespace, Key string
	Backup         string // base64, at most transit.MaxBackup bytes
	ValidateOnly   bool   // changes nothing: the answer is the key as it would be
	Idempotency    string
}

// TransitEncryptRequest encrypts with a key of VAULT framing. Version 0 is the latest.
type TransitEncryptRequest struct {
	Namespace, Key string
	Version        uint32
	Plaintext      []byte
	Params         transit.Params
}

// TransitEncryptResponse is answered to a TransitEncryptRequest and a TransitRewrapRequest.
type TransitEncryptResponse struct {
	Ciphertext []byte // vault:v<N>:<base64>
	Version    uint32
}

// TransitDecryptRequest opens vault:v<N>:<base64>; the answer is a DecryptResponse.
type TransitDecryptRequest struct {
	Namespace, Key string
	Ciphertext     []byte
	Params         transit.Params
}

// TransitRewrapRequest decrypts and encrypts under Version (0 is the latest). Policies see
// Decrypt and Encrypt; the log has ReEncrypt.
type TransitRewrapRequest struct {
	Namespace, Key string
	Version        uint32
	Ciphertext     []byte
	Params         transit.Params
	// EncryptParams are for the new ciphertext; nil: Params.
	EncryptParams *transit.Params
}

// TransitDataKeyRequest makes a data key of Size bytes (16, 32 or 64); the answer is a
// GenerateDataKeyResponse, whose ciphertext is vault:v<N>:….
type TransitDataKeyRequest struct {
	Namespace, Key string
	Version        uint32
	Size           int
	Params         transit.Params
	OmitPlaintext  bool
}

// TransitSignRequest signs Message with a key of VAULT framing. Version 0 is the latest.
type TransitSignRequest struct {
	Namespace, Key string
	Version        uint32
	Message        []byte
	Options        transit.SignOptions
}

// TransitSignResponse is answered to a TransitSignRequest.
type TransitSignResponse struct {
	Signature []byte // vault:v<N>:…
	PublicKey []byte // raw, of a derived key; else nil
	Version   uint32
}

// TransitVerifyRequest verifies a signature; the answer is a VerifyResponse. A malformed
// signature is invalid, not an error, except that its prefix must be one.
type TransitVerifyRequest struct {
	Namespace, Key string
	Message        []byte
	Signature      []byte
	Options        transit.SignOptions
}

// TransitHMACRequest computes an HMAC with the HMAC key of a version of any key of VAULT framing.
type TransitHMACRequest struct {
	Namespace, Key string
	Version        uint32
	Message        []byte
	Hash           string
}

// TransitHMACResponse is answered to a TransitHMACRequest.
type TransitHMACResponse struct {
	HMAC    []byte // vault:v<N>:…
	Version uint32
}

// TransitVerifyHMACRequest verifies an HMAC; the answer is a VerifyResponse.
type TransitVerifyHMACRequest struct {
	Namespace, Key string
	Message        []byte
	HMAC           []byte
	Hash           string
}
