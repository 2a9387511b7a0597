package kms

import (
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/keyring"
)

// HSMKey is a key of protection level HSM: it is made on the token and used there.
type HSMKey struct {
	ID        ObjectID
	Algorithm string // a name of keyring's table
	PublicKey []byte // SubjectPublicKeyInfo, DER; nil for a symmetric key
	Origin    Origin
}

// Origin is what the token itself says about where a key comes from (PKCS#11
// v2.40, sections 4.7 and 4.9).
type Origin struct {
	Local            bool `json:"local"`             // CKA_LOCAL: made on the token
	NeverExtractable bool `json:"never_extractable"` // CKA_NEVER_EXTRACTABLE
	AlwaysSensitive  bool `json:"always_sensitive"`  // CKA_ALWAYS_SENSITIVE
}

// Errors of HSMKeys that call for more than "the HSM is not available".
var (
	// ErrNoKey says that the token has no such key.
	ErrNoKey = errors.New("the token has no such key")
	// ErrKeyAlgorithm says that the token can make no keys of the algorithm.
	ErrKeyAlgorithm = errors.New("the token cannot make keys of this algorithm")
	// ErrUnknownOutcome says that a key may or may not be on the token now.
	ErrUnknownOutcome = errors.New("nobody knows whether the token made the key")
	// ErrTokenFull says that the token has no room, or no session free in time.
	ErrTokenFull = errors.New("the token has no room or no free session")
	// ErrTokenReadOnly says that the token takes no new objects.
	ErrTokenReadOnly = errors.New("the token is write-protected")
	// ErrNotTheKey says that what the token has under the id is not, or not only, the
	// key that was made, or not protected as that was.
	ErrNotTheKey = errors.New("the token has something else in the key's place")
)

// TokenInputError says that a key on the token does not take what it was given.
type TokenInputError struct {
	Reason string // what it does not take, and the limit
	Err    error
}

// Error names the reason.
func (e *TokenInputError) Error() string { return "the token does not take this: " + e.Reason }

// Unwrap returns the cause.
func (e *TokenInputError) Unwrap() error { return e.Err }

// HSMKeys is what the core needs of the device for keys of protection level HSM. It
// follows the rules of HSM.
type HSMKeys interface {
	// GenerateKey makes a key under an id that is written down already. The error is
	// ErrUnknownOutcome unless the key is certainly not there; ErrKeyAlgorithm,
	// ErrTokenFull, ErrTokenReadOnly.
	GenerateKey(ctx context.Context, id ObjectID, algorithm string) (HSMKey, error)
	// ImportKey puts material into the token, in the form that keyring's EncodePortable
	// writes: raw bytes of symmetric keys, PKCS#8 of others. Errors as above.
	ImportKey(ctx context.Context, id ObjectID, algorithm string, material []byte) (HSMKey, error)
	// FindKey finds a key, or fails with ErrNoKey or ErrNotTheKey. It never makes one.
	FindKey(ctx context.Context, id ObjectID, algorithm string) (HSMKey, error)
	// UseKey uses a key that was made or found before. keyring.ErrDecrypt says that
	// the ciphertext is at fault, ErrNoKey that the key is to be found (again), a
	// TokenInputError what the token does not take.
	UseKey(ctx context.Context, id ObjectID, algorithm string, use keyring.Use, data, extra []byte) ([]byte, error)
	// ListKeys returns the ids of all keys that GenerateKey and ImportKey made on the
	// token, for this installation or another.
	ListKeys(ctx context.Context) ([]ObjectID, error)
}

// GenerateKey implements HSM.
func (o observed) GenerateKey(ctx context.Context, id ObjectID, algorithm string) (k HSMKey, err error) {
	defer o.done("GenerateKey", time.Now(), &err)
	return o.HSM.GenerateKey(ctx, id, algorithm)
}

// ImportKey implements HSM.
func (o observed) ImportKey(ctx context.Context, id ObjectID, algorithm string, material []byte) (k HSMKey, err error) {
	defer o.done("ImportKey", time.Now(), &err)
	return o.HSM.ImportKey(ctx, id, algorithm, material)
}

// FindKey implements HSM.
func (o observed) FindKey(ctx context.Context, id ObjectID, algorithm string) (k HSMKey, err error) {
	defer o.done("FindKey", time.Now(), &err)
	return o.HSM.FindKey(ctx, id, algorithm)
}

// UseKey implements HSM. That a ciphertext does not open is no failure of the device.
func (o observed) UseKey(ctx context.Context, id ObjectID, algorithm string, use keyring.Use, data, extra []byte) ([]byte, error) {
	began := time.Now()
	out, err := o.HSM.UseKey(ctx, id, algorithm, use, data, extra)
	failed := err
	if errors.Is(err, keyring.ErrDecrypt) {
		failed = nil
	}
	o.done("UseKey", began, &failed)
	return out, err
}

// ListKeys implements HSM.
func (o observed) ListKeys(ctx context.Context) (ids []ObjectID, err error) {
	defer o.done("ListKeys", time.Now(), &err)
	return o.HSM.ListKeys(ctx)
}

// keyError gives an error of HSMKeys the code that callers see.
func keyError(algorithm string, err error) error {
	var input *TokenInputError
	switch {
	case errors.As(err, &input):
		return &Error{Code: InvalidArgument, Reason: "NOT_ON_TOKEN", Cause: err, Message: "a key of protection level HSM does not take this: " + input.Reason}
	case errors.Is(err, ErrTokenReadOnly):
		return &Error{Code: FailedPrecondition, Reason: "TOKEN_READ_ONLY", Cause: err,
			Message: "the token is write-protected, so it takes no new key; make it writable, or use protection_level SOFTWARE"}
	case errors.Is(err, ErrKeyAlgorithm):
		return &Error{Code: InvalidArgument, Reason: "ALGORITHM_NOT_ON_TOKEN", Field: "algorithm", Cause: err,
			Message: fmt.Sprintf("algorithm %s is none that the token makes keys of; ListAlgorithms says which are", algorithm)}
	case errors.Is(err, ErrTokenFull):
		return &Error{Code: ResourceExhausted, Reason: "HSM_EXHAUSTED", Cause: err,
			Message: "the token has no room for another key, or no session was free in time; try again, and if it goes on, destroy keys or get a larger token"}
	}
	return hsmError("", err)
}

// HSMAlgorithms names the algorithms that the default token can make keys of, and
// that may be used here, in the order of keyring's table.
func (s *Service) HSMAlgorithms() []string { return algorithmsOf(s.hsm) }

func algorithmsOf(hsm HSM) []string {
	able := hsm.Status().KeyAlgorithms
	var names []string
	for _, a := range keyring.Algorithms() {
		if slices.Contains(able, a.Name()) && (a.FIPS() || !fips140.Enforced()) {
			names = append(names, a.Name())
		}
	}
	return names
}

// resolveFor is resolveAlgorithm for a key of that protection level. The default
// of a purpose is, where the namespace's token cannot do the usual one, the first
// that it can.
func (s *Service) resolveFor(namespace string, p Protection, purpose keyring.Purpose, name string) (*keyring.Algorithm, error) {
	a, err := resolveAlgorithm(purpose, name)
	if err != nil || p != HSMLevel {
		return a, err
	}
	hsm, err := s.tokenHSM(s.tokenOf(namespace))
	if err != nil {
		return a, err
	}
	able := algorithmsOf(hsm)
	if slices.Contains(able, a.Name()) {
		return a, nil
	}
	served := slices.DeleteFunc(slices.Clone(able), func(name string) bool {
		other, _ := keyring.Lookup(name)
		return other.Purpose() != a.Purpose()
	})
	if name == "" && len(served) > 0 {
		a, _ = keyring.Lookup(served[0])
		return a, nil
	}
	return a, notOnToken(hsm, a, able, served)
}

func notOnToken(hsm HSM, a *keyring.Algorithm, able, served []string) error {
	status := hsm.Status()
	if len(able) == 0 && !status.Healthy {
		return hsmError("", errors.New("what the token can do is not known yet: "+status.Problem))
	}
	can := "none; use protection_level SOFTWARE, which is sealed under the root key in the HSM"
	if len(served) > 0 {
		can = strings.Join(served, ", ")
	}
	e := invalid("algorithm", "%s is none that the token makes keys of; for %s it can do: %s", a.Name(), a.Purpose(), can)
	e.Reason = "ALGORITHM_NOT_ON_TOKEN"
	return e
}
