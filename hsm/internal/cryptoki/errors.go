package cryptoki

import "errors"

// What can go wrong beside PKCS#11's return values, which come as pkcs11.Error.
// Package hsm documents those that it passes on.
var (
	// ErrAbsent means that the token, logged in, has no such object.
	ErrAbsent          = errors.New("no such object on the token")
	ErrModule          = errors.New("PKCS#11 module unusable")
	ErrModuleInUse     = errors.New("PKCS#11 module in use")
	ErrTokenNotFound   = errors.New("token not found")
	ErrAmbiguousToken  = errors.New("token label is ambiguous")
	ErrTokenExists     = errors.New("token exists")
	ErrUnprotected     = errors.New("key is not protected by the token")
	ErrDuplicateObject = errors.New("object id is not unique")
)

// Fault is a failure that leaves the device unusable, whatever the return value in
// it says: the module does not start, or hangs.
type Fault struct{ Err error }

// Error returns the cause's message.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }
