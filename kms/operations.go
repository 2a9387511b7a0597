package kms

import (
	"github.com/keywright/keywright/keyring"
)

// Limits of what one operation carries, in bytes or items.
const (
	MaxAAD         = 64 << 10
	MaxDataKey     = 1024
	MaxRandom      = 64 << 10
	MaxBatch       = 10_000
	DefaultDataKey = 32
)

// Operation is a request of the hot path. The set is closed: *EncryptRequest,
// *DecryptRequest, *ReEncryptRequest, *GenerateDataKeyRequest,
// *GenerateDataKeyPairRequest, *GenerateRandomRequest, *SignRequest,
// *VerifyRequest, *MACRequest, *VerifyMACRequest, *AsymmetricDecryptRequest,
// *SharedSecretRequest and *PublicKeyRequest; of keys of VAULT framing
// *TransitEncryptRequest, *TransitDecryptRequest, *TransitRewrapRequest,
// *TransitDataKeyRequest, *TransitSignRequest, *TransitVerifyRequest,
// *TransitHMACRequest and *TransitVerifyHMACRequest. Slices in a request are only read,
// and only until the call returns; slices in a response belong to the caller.
type Operation interface {
	operation() op
}

// Result is the outcome of one operation of a batch: a pointer to the response
// that belongs to the request's type, or an error.
type Result struct {
	Response any
	Err      error
}

// Binding is what a ciphertext is bound to: AAD (opaque, up to MaxAAD) or an
// encryption context (up to 8 KiB in canonical form), not both.
type Binding struct {
	AAD     []byte
	Context map[string]string
}

// EncryptRequest encrypts Plaintext under the primary version of a key.
type EncryptRequest struct {
	Namespace, Key string
	Plaintext      []byte
	Binding        Binding
}

// EncryptResponse is answered to an EncryptRequest.
type EncryptResponse struct {
	Ciphertext []byte
	Version    uint32
}

// DecryptRequest opens a native ciphertext. Key is optional: when given, a
// ciphertext of another key is refused.
type DecryptRequest struct {
	Namespace, Key string
	Ciphertext     []byte
	Binding        Binding
}

// DecryptResponse is answered to a DecryptRequest.
type DecryptResponse struct {
	Plaintext []byte
	Version   uint32
}

// ReEncryptRequest decrypts with one key and encrypts with another. An empty
// destination namespace or key is the source's.
type ReEncryptRequest struct {
	Namespace, Key string
	Ciphertext     []byte
	Binding        Binding

	DestinationNamespace, DestinationKey string
	DestinationBinding                   Binding
}

// ReEncryptResponse is answered to a ReEncryptRequest.
type ReEncryptResponse struct {
	Ciphertext         []byte
	SourceKey          string
	SourceVersion      uint32
	DestinationVersion uint32
}

// GenerateDataKeyRequest makes a data key of Size bytes (0 means DefaultDataKey,
// at most MaxDataKey).
type GenerateDataKeyRequest struct {
	Namespace, Key string
	Size           int
	Binding        Binding
	OmitPlaintext  bool
}

// GenerateDataKeyResponse is answered to a GenerateDataKeyRequest.
type GenerateDataKeyResponse struct {
	Plaintext  []byte // nil when omitted
	Ciphertext []byte
	Version    uint32
}

// GenerateDataKeyPairRequest makes a key pair of an asymmetric algorithm.
type GenerateDataKeyPairRequest struct {
	Namespace, Key string
	Algorithm      string
	Binding        Binding
	OmitPlaintext  bool
}

// GenerateDataKeyPairResponse is answered to a GenerateDataKeyPairRequest.
type GenerateDataKeyPairResponse struct {
	PublicKey            []byte // SubjectPublicKeyInfo, DER
	PrivateKey           []byte // PKCS#8, DER; nil when omitted
	PrivateKeyCiphertext []byte
	Version              uint32
}

// GenerateRandomRequest asks for 1 to MaxRandom random bytes.
type GenerateRandomRequest struct {
	Namespace string
	Size      int
}

// GenerateRandomResponse is answered to a GenerateRandomRequest.
type GenerateRandomResponse struct {
	Data []byte
}

// SignRequest signs Message, or Digest, which is the message already hashed
// with the algorithm's hash. Version 0 is the primary version.
type SignRequest struct {
	Namespace, Key string
	Version        uint32
	Message        []byte
	Digest         []byte
	Format         keyring.Format
}

// SignResponse is answered to a SignRequest.
type SignResponse struct {
	Signature []byte
	Version   uint32
}

// VerifyRequest verifies a signature over Message or Digest.
type VerifyRequest struct {
	Namespace, Key string
	Version        uint32
	Message        []byte
	Digest         []byte
	Signature      []byte
	Format         keyring.Format
}

// VerifyResponse is answered to a VerifyRequest and a VerifyMACRequest.
type VerifyResponse struct {
	Valid   bool
	Version uint32
}

// MACRequest computes a MAC over Message.
type MACRequest struct {
	Namespace, Key string
	Version        uint32
	Message        []byte
}

// MACResponse is answered to a MACRequest.
type MACResponse struct {
	MAC     []byte
	Version uint32
}

// VerifyMACRequest verifies a MAC over Message; the answer is a VerifyResponse.
type VerifyMACRequest struct {
	Namespace, Key string
	Version        uint32
	Message        []byte
	MAC            []byte
}

// AsymmetricDecryptRequest opens what was encrypted to a public key.
type AsymmetricDecryptRequest struct {
	Namespace, Key string
	Version        uint32
	Ciphertext     []byte
	Label          []byte
}

// SharedSecretRequest computes the ECDH shared secret with a peer's public key
// (SubjectPublicKeyInfo in DER or PEM, or the raw point).
type SharedSecretRequest struct {
	Namespace, Key string
	Version        uint32
	PeerPublicKey  []byte
}

// SharedSecretResponse is answered to a SharedSecretRequest.
type SharedSecretResponse struct {
	SharedSecret []byte
	Version      uint32
}

// PublicKeyRequest asks for a version's public key.
type PublicKeyRequest struct {
	Namespace, Key string
	Version        uint32
}

// PublicKeyResponse is answered to a PublicKeyRequest.
type PublicKeyResponse struct {
	PEM       string
	JWK       string
	Algorithm string
	Version   uint32
}
