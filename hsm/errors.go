package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Class tells what an error of the token calls for.
type Class uint8

// The classes, each with the one reaction to it. When that does not help, the
// error goes to the caller.
const (
	ClassUnknown   Class = iota // outcome unknown (reply lost): find by id before trying again
	ClassCaller                 // the request was wrong: no reaction
	ClassSession                // the session is gone: close it, retry once on another
	ClassHandle                 // the object's handle is stale: find it again, retry once
	ClassLogin                  // the login is gone: log in once, retry once
	ClassDevice                 // the device is sick: canary, re-initialise with back-off, retry once
	ClassExhausted              // no session or memory: wait within the deadline
	ClassPIN                    // PIN wrong, expired or locked: stop, never retry
	classes
)

var classNames = [classes]string{"unknown", "caller", "session", "handle", "login", "device", "exhausted", "pin"}

// String returns the name of the class in lower case.
func (c Class) String() string {
	if c >= classes {
		return "invalid"
	}
	return classNames[c]
}

// What can go wrong, told apart with errors.Is.
var (
	// ErrUnavailable means that the token is away or sick; calls work again by
	// themselves once it is back.
	ErrUnavailable = errors.New("HSM unavailable")
	// ErrExhausted means that no session became free in time.
	ErrExhausted = errors.New("HSM sessions exhausted")
	// ErrPIN means that the token refused the PIN, or locked it. It is not tried
	// again until Open is called anew.
	ErrPIN = errors.New("HSM PIN refused")
	// ErrUnknownOutcome means that a reply was lost: what was asked for may or may
	// not have happened.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrModule means that the module's path names no usable PKCS#11 library.
	ErrModule = cryptoki.ErrModule
	// ErrModuleInUse means that InitToken was called while the module is open.
	ErrModuleInUse = cryptoki.ErrModuleInUse
	// ErrConfig means that a field of Config is missing or out of range.
	ErrConfig = errors.New("HSM configuration invalid")
	// ErrTokenNotFound means that the module has no token of that label or serial.
	ErrTokenNotFound = cryptoki.ErrTokenNotFound
	// ErrAmbiguousToken means that several tokens have the label.
	ErrAmbiguousToken = cryptoki.ErrAmbiguousToken
	// ErrTokenExists means that InitToken was asked for a label that is taken.
	ErrTokenExists = cryptoki.ErrTokenExists
	// ErrRootNotFound means that the token has no such root key, or that the root
	// was neither generated nor found through this Device.
	ErrRootNotFound = errors.New("root key not found")
	// ErrWrongRoot means that a root key's check value differs from the one expected:
	// another key stands in its place.
	ErrWrongRoot = errors.New("root key is not the expected one")
	// ErrUnprotected means that a key lacks the attributes of a root key or signer:
	// sensitive, not extractable.
	ErrUnprotected = cryptoki.ErrUnprotected
	// ErrDuplicateObject means that several objects of one class share an id.
	ErrDuplicateObject = cryptoki.ErrDuplicateObject
	// ErrUnwrap means that a blob could not be unwrapped, and says no more.
	ErrUnwrap = errors.New("unwrap failed")
	// ErrBlob means that bytes are not a wrap blob of a known format.
	ErrBlob = errors.New("not a wrap blob")
	// ErrSignerNotFound means that the token has no such signing key pair.
	ErrSignerNotFound = errors.New("signer not found")
	// ErrNoSigningMechanism means that the token can do none of the signature
	// algorithms.
	ErrNoSigningMechanism = errors.New("token has no signing mechanism")
	// ErrNoWrapMechanism means that the token can do none of the mechanisms of root
	// keys, and so hold none.
	ErrNoWrapMechanism = errors.New("token has no AES-GCM, no AES-KW, and no RSA-OAEP with a MAC or signature")
	// ErrAlgorithm means that the token cannot do an algorithm; the message lists
	// those that it can.
	ErrAlgorithm = errors.New("token cannot do the algorithm")
	// ErrKeyNotFound means that the token, which is well, has no such key, or that
	// the key was neither made nor found through this Device.
	ErrKeyNotFound = errors.New("HSM key not found")
	// ErrDecrypt means that a ciphertext could not be decrypted, and says no more.
	ErrDecrypt = errors.New("decryption failed")
	// ErrInvalidArgument means that an argument is out of range; the message names
	// it and its limit.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrClosed means that the Device was closed.
	ErrClosed = errors.New("HSM device closed")
)

// Error is an error of a Device's operation.
type Error struct {
	Op    string // operation, such as "unwrap"
	Class Class
	Code  uint  // PKCS#11 return value (CKR), 0 if the module gave none
	Err   error // cause, never nil
}

// Error names the operation, the class and the cause; never a PIN or key.
func (e *Error) Error() string {
	return fmt.Sprintf("hsm: %s: %s: %v", e.Op, e.Class, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes every Error match the sentinel of its class.
func (e *Error) Is(target error) bool {
	return classSentinels[e.Class] != nil && classSentinels[e.Class] == target
}

var classSentinels = [classes]error{
	ClassUnknown:   ErrUnknownOutcome,
	ClassSession:   ErrUnavailable,
	ClassHandle:    ErrUnavailable,
	ClassLogin:     ErrUnavailable,
	ClassDevice:    ErrUnavailable,
	ClassExhausted: ErrExhausted,
	ClassPIN:       ErrPIN,
}

// classify returns the Error inside err, or makes one from a PKCS#11 return value.
// An error that came from neither is the caller's.
func classify(op string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return &Error{Op: op, Class: e.Class, Code: e.Code, Err: e.Err}
	}
	var unusable *cryptoki.Fault
	if errors.As(err, &unusable) {
		return &Error{Op: op, Class: ClassDevice, Code: uint(codeOf(unusable)), Err: unusable.Err}
	}
	if code := codeOf(err); code != 0 {
		return &Error{Op: op, Class: classOf(code), Code: uint(code), Err: err}
	}
	return &Error{Op: op, Class: ClassCaller, Err: err}
}

// codeOf returns the PKCS#11 return value inside err, or 0 (CKR_OK, never an error).
func codeOf(err error) (code pkcs11.Error) {
	errors.As(err, &code)
	return code
}

// fault makes an Error of a class; call adds the operation.
func fault(class Class, err error) *Error {
	return &Error{Class: class, Err: err}
}

// classOf maps a PKCS#11 return value (v2.40 section 5.1) to its class. Vendor
// codes and codes that no healthy device returns are the device's.
func classOf(code pkcs11.Error) Class {
	if class, ok := codeClasses[code]; ok {
		return class
	}
	return ClassDevice
}

var codeClasses = map[pkcs11.Error]Class{
	pkcs11.CKR_ARGUMENTS_BAD:                  ClassCaller,
	pkcs11.CKR_ACTION_PROHIBITED:              ClassCaller,
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:            ClassCaller,
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:            ClassCaller,
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:         ClassCaller,
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:        ClassCaller,
	pkcs11.CKR_CURVE_NOT_SUPPORTED:            ClassCaller,
	pkcs11.CKR_DATA_INVALID:                   ClassCaller,
	pkcs11.CKR_DATA_LEN_RANGE:                 ClassCaller,
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:          ClassCaller,
	pkcs11.CKR_ENCRYPTED_DATA_INVALID:         ClassCaller,
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE:       ClassCaller,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:         ClassCaller,
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:     ClassCaller,
	pkcs11.CKR_KEY_SIZE_RANGE:                 ClassCaller,
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:          ClassCaller,
	pkcs11.CKR_MECHANISM_INVALID:              ClassCaller,
	pkcs11.CKR_MECHANISM_PARAM_INVALID:        ClassCaller,
	pkcs11.CKR_SESSION_READ_ONLY:              ClassCaller,
	pkcs11.CKR_SIGNATURE_INVALID:              ClassCaller,
	pkcs11.CKR_SIGNATURE_LEN_RANGE:            ClassCaller,
	pkcs11.CKR_TEMPLATE_INCOMPLETE:            ClassCaller,
	pkcs11.CKR_TEMPLATE_INCONSISTENT:          ClassCaller,
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:          ClassCaller,
	pkcs11.CKR_FUNCTION_CANCELED:              ClassSession,
	pkcs11.CKR_OPERATION_ACTIVE:               ClassSession,
	pkcs11.CKR_OPERATION_NOT_INITIALIZED:      ClassSession,
	pkcs11.CKR_SESSION_CLOSED:                 ClassSession,
	pkcs11.CKR_SESSION_HANDLE_INVALID:         ClassSession,
	pkcs11.CKR_KEY_HANDLE_INVALID:             ClassHandle,
	pkcs11.CKR_OBJECT_HANDLE_INVALID:          ClassHandle,
	pkcs11.CKR_USER_NOT_LOGGED_IN:             ClassLogin,
	pkcs11.CKR_DEVICE_MEMORY:                  ClassExhausted,
	pkcs11.CKR_HOST_MEMORY:                    ClassExhausted,
	pkcs11.CKR_SESSION_COUNT:                  ClassExhausted,
	pkcs11.CKR_PIN_EXPIRED:                    ClassPIN,
	pkcs11.CKR_PIN_INCORRECT:                  ClassPIN,
	pkcs11.CKR_PIN_INVALID:                    ClassPIN,
	pkcs11.CKR_PIN_LEN_RANGE:                  ClassPIN,
	pkcs11.CKR_PIN_LOCKED:                     ClassPIN,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED:       ClassPIN,
	pkcs11.CKR_USER_TYPE_INVALID:              ClassPIN,
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: ClassPIN,
}
