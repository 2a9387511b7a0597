package keyring

import "errors"

// Errors are told apart by errors.Is. Those about ciphertexts, signatures and
// tags say that the check failed and no more, on purpose.
var (
	// ErrDecrypt says that a ciphertext did not open.
	ErrDecrypt = errors.New("decryption failed")
	// ErrFormat says that bytes do not begin with a ciphertext header.
	ErrFormat = errors.New("not a ciphertext of this service")
	// ErrWrongKey says that a ciphertext's header, which is public, names
	// another key or another version.
	ErrWrongKey = errors.New("ciphertext names another key or key version")
	// ErrVerify says that a signature or a MAC tag does not hold.
	ErrVerify = errors.New("verification failed")
	// ErrPurpose says that the algorithm does not serve the operation.
	ErrPurpose = errors.New("operation does not fit the key's purpose")
	// ErrPublicOnly says that the operation needs the private key of a version
	// built from its public key alone.
	ErrPublicOnly = errors.New("only the public key is here")
	// ErrNotFIPS says that the process enforces FIPS 140-3 and the algorithm is
	// not approved.
	ErrNotFIPS = errors.New("algorithm is not approved by FIPS 140-3, which is enforced here")
	// ErrInvalidMaterial says that key material does not fit its algorithm.
	ErrInvalidMaterial = errors.New("invalid key material")
	// ErrInvalidPublicKey says that a public key is malformed, of another type
	// or curve, or a point that would give away the secret.
	ErrInvalidPublicKey = errors.New("invalid public key")
	// ErrRandom says that the source of randomness failed or is stuck.
	ErrRandom = errors.New("source of randomness failed")
	// ErrInput matches every [InputError].
	ErrInput = errors.New("invalid input")
)

// InputError refuses one field of a request.
type InputError struct {
	Field  string // the field's name, as in the API
	Reason string // the limit, and what to do
}

// Error names the field, the limit and the remedy.
func (e *InputError) Error() string { return e.Field + ": " + e.Reason }

// Is makes every InputError match [ErrInput].
func (e *InputError) Is(target error) bool { return target == ErrInput }
