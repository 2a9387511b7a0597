package hsm

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

const keyIDSize = 16

// KeyID is an object's CKA_ID: 16 random bytes, printed in hexadecimal.
type KeyID [keyIDSize]byte

// String returns 32 hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns 32 hexadecimal digits.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (id *KeyID) UnmarshalText(text []byte) error {
	parsed, err := ParseKeyID(string(text))
	if err == nil {
		*id = parsed
	}
	return err
}

// ParseKeyID reads 32 hexadecimal digits.
func ParseKeyID(text string) (KeyID, error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != keyIDSize {
		return KeyID{}, fmt.Errorf("%w: key id %q: want %d hexadecimal digits", ErrInvalidArgument, text, 2*keyIDSize)
	}
	return KeyID(raw), nil
}

func newKeyID() KeyID {
	var id KeyID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// Root is a root key in the token, sensitive and not extractable: an AES-256 key that
// can encrypt and decrypt only, or else an RSA-3072 pair with a companion key that
// authenticates.
type Root struct {
	ID KeyID
	// CheckValue identifies the key without revealing anything of it. With AES-GCM it
	// is 16 bytes, the tag over a fixed label under an IV reserved for that purpose;
	// otherwise it begins with the mechanism's code, and ends with 16 bytes of a hash.
	CheckValue []byte
}

// Signer is a signing key pair in the token; the private key never leaves it.
type Signer struct {
	ID        KeyID
	Algorithm string           // "ED25519" or "ECDSA_P256_SHA256"
	PublicKey crypto.PublicKey // ed25519.PublicKey or *ecdsa.PublicKey
}

// Status is what a Device knows without asking the token.
type Status struct {
	Module       string // path of the PKCS#11 library
	TokenLabel   string
	TokenSerial  string
	Manufacturer string
	Model        string

	Healthy        bool      // whether the last call that reached the token worked
	LastErrorClass Class     // meaningful if LastErrorAt is set
	LastErrorAt    time.Time // zero if no call failed at the token yet

	SessionsInUse int    // calls that hold a place in the pool, stuck ones too
	SessionsMax   int    // bound of the pool
	Generation    uint64 // counts initialisations of the module in this process, or workers begun
	Capabilities  Capabilities

	Workers        int    // worker processes that serve; 0 for a device in this process
	WorkerRestarts uint64 // worker processes that took the place of one that was lost
}

// Capabilities says what the token's mechanisms let Keywright do.
type Capabilities struct {
	RootWrap bool     // whether it can hold a root key, by any mechanism
	Signing  []string // algorithms of Signer that the token lists, the preferred first
	Keys     []string // algorithms of HSM-resident keys
}

// Service is what Keywright asks of a token. *Device implements it in this
// process; a worker process can serve it as well. Methods may be called from any
// goroutine, end when the context does, and return an *Error.
type Service interface {
	Keys

	// GenerateRoot makes a root key, or fails with ErrNoWrapMechanism. If the error
	// is ErrUnknownOutcome the Root still carries the id under which the key may
	// appear, so that it can be destroyed.
	GenerateRoot(ctx context.Context) (Root, error)

	// GenerateRootAs is GenerateRoot under an id that the caller has written down
	// before, so that a crash leaves no key that nobody knows of. An object of that id
	// that is there already is ErrDuplicateObject, and is left alone.
	GenerateRootAs(ctx context.Context, id KeyID) (Root, error)

	// FindRoot finds a root key and compares its check value: ErrRootNotFound,
	// ErrWrongRoot, ErrDuplicateObject, ErrUnprotected. A root must have been
	// generated or found through this Service before it wraps or unwraps. It never
	// makes one.
	FindRoot(ctx context.Context, id KeyID, checkValue []byte) (Root, error)

	// Wrap encrypts 1 to MaxPlaintext bytes under a root key, bound to aad of at
	// most MaxAAD bytes, and returns a blob (see BlobInfo). The version is recorded
	// in it. Each call uses one of the 2^32 random IVs that the root may spend.
	Wrap(ctx context.Context, root KeyID, version uint32, plaintext, aad []byte) (blob []byte, err error)

	// Unwrap opens a blob made by Wrap under the same aad: ErrBlob, ErrRootNotFound,
	// ErrUnwrap. ErrUnwrap means that the token is well and the blob is not.
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)

	// Random returns 1 to MaxRandom bytes of the token's random number generator.
	Random(ctx context.Context, n int) ([]byte, error)

	// GenerateSigner makes an Ed25519 key pair, or else an ECDSA P-256 one, or else
	// fails with ErrNoSigningMechanism. ErrUnknownOutcome is as for GenerateRoot.
	GenerateSigner(ctx context.Context) (Signer, error)

	// FindSigner finds a key pair: ErrSignerNotFound, ErrDuplicateObject,
	// ErrUnprotected.
	FindSigner(ctx context.Context, id KeyID) (Signer, error)

	// Sign signs at most MaxMessage bytes: Ed25519 (RFC 8032) as 64 raw bytes, ECDSA
	// over SHA-256 in ASN.1 DER. The signature was verified with the public key.
	Sign(ctx context.Context, signer KeyID, message []byte) ([]byte, error)

	// Status reports without asking the token.
	Status() Status

	// Probe asks the token: a canary encryption and decryption under a root key, once
	// one is known, and its information. It also brings a sick device back when it
	// can; call it every few seconds.
	Probe(ctx context.Context) error

	// Destroy removes every object of that id from the token; none is no error.
	Destroy(ctx context.Context, id KeyID) error

	// Close ends the use of the token. Calls in flight are waited for, up to the
	// configured timeout; later ones get ErrClosed.
	Close() error
}

// Limits of Service's arguments, in bytes.
const (
	MaxRandom  = 64 << 10
	MaxMessage = 64 << 10
)

var _ Service = (*Device)(nil)
