package kms

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"time"
)

// ObjectID is the CKA_ID of an object on the token.
type ObjectID [16]byte

// String returns 32 hexadecimal digits.
func (id ObjectID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes the id as String does.
func (id ObjectID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (id *ObjectID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return errors.New("object id is not 32 hexadecimal digits")
	}
	_, err := hex.Decode(id[:], text)
	return err
}

// ErrNoSigningMechanism is what HSM.GenerateSigner returns when the token can
// make neither Ed25519 nor ECDSA P-256 keys.
var ErrNoSigningMechanism = errors.New("the token has no signing mechanism that Keywright uses")

// ErrUnwrap is what HSM.Unwrap returns when a blob fails authentication: the
// blob is at fault, not the device.
var ErrUnwrap = errors.New("wrapped secret fails authentication under the root key")

// ErrWrongToken is what HSM.FindRoot returns when the device answers, but does not
// have that root key, or has another in its place: it is not the token remembered.
var ErrWrongToken = errors.New("the token does not hold the root key that the store remembers; it is another token, or the key is gone from it")

// Signer is an audit signing key on the token.
type Signer struct {
	ID        ObjectID
	Algorithm string // "ED25519" or "ECDSA_P256_SHA256"
	Public    crypto.PublicKey
}

// HSM is what the core needs of the device. All methods are safe for concurrent
// use and end with their context.
type HSM interface {
	// GenerateRoot makes a root key under that id and returns its check value. After
	// an error the key may be there nevertheless.
	GenerateRoot(ctx context.Context, id ObjectID) (checkValue []byte, err error)
	// FindRoot fails unless the token has the root key with that check value, with
	// ErrWrongToken if the token answers that it has not.
	FindRoot(ctx context.Context, id ObjectID, checkValue []byte) error
	Wrap(ctx context.Context, root ObjectID, version uint32, secret, aad []byte) ([]byte, error)
	Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error)
	Random(ctx context.Context, n int) ([]byte, error)
	// GenerateSigner makes a signing key, or returns ErrNoSigningMechanism; its id
	// comes with an error as GenerateRoot's does.
	GenerateSigner(ctx context.Context) (Signer, error)
	FindSigner(ctx context.Context, id ObjectID) (Signer, error)
	// Sign signs with a key that was generated or found before.
	Sign(ctx context.Context, signer ObjectID, message []byte) ([]byte, error)
	// Destroy removes the objects with that id.
	Destroy(ctx context.Context, id ObjectID) error
	HSMKeys
	// Probe makes a canary call; Status makes no call.
	Probe(ctx context.Context) error
	Status() HSMStatus
}

// observed tells the observer of each call of the device.
type observed struct {
	HSM
	observer Observer
}

func (o observed) done(call string, began time.Time, err *error) {
	o.observer.Device(call, *err != nil, time.Since(began))
}

// Wrap implements HSM.
func (o observed) Wrap(ctx context.Context, root ObjectID, version uint32, secret, aad []byte) (blob []byte, err error) {
	defer o.done("Wrap", time.Now(), &err)
	return o.HSM.Wrap(ctx, root, version, secret, aad)
}

// Unwrap implements HSM.
func (o observed) Unwrap(ctx context.Context, blob, aad []byte) (secret []byte, err error) {
	defer o.done("Unwrap", time.Now(), &err)
	return o.HSM.Unwrap(ctx, blob, aad)
}

// Random implements HSM.
func (o observed) Random(ctx context.Context, n int) (b []byte, err error) {
	defer o.done("Random", time.Now(), &err)
	return o.HSM.Random(ctx, n)
}

// Sign implements HSM.
func (o observed) Sign(ctx context.Context, signer ObjectID, message []byte) (signature []byte, err error) {
	defer o.done("Sign", time.Now(), &err)
	return o.HSM.Sign(ctx, signer, message)
}

// Probe implements HSM.
func (o observed) Probe(ctx context.Context) (err error) {
	defer o.done("Probe", time.Now(), &err)
	return o.HSM.Probe(ctx)
}
