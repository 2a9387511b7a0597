package kms

import (
	"errors"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
)

// Code is the kind of an error; there is one table that maps it to statuses, in
// package server. Its text is the name of the gRPC status code.
type Code string

// The codes of errors that kms returns.
const (
	OK                 Code = "OK"
	InvalidArgument    Code = "INVALID_ARGUMENT"
	NotFound           Code = "NOT_FOUND"
	AlreadyExists      Code = "ALREADY_EXISTS"
	FailedPrecondition Code = "FAILED_PRECONDITION"
	PermissionDenied   Code = "PERMISSION_DENIED"
	Unauthenticated    Code = "UNAUTHENTICATED"
	ResourceExhausted  Code = "RESOURCE_EXHAUSTED"
	Aborted            Code = "ABORTED"
	Unavailable        Code = "UNAVAILABLE"
	DeadlineExceeded   Code = "DEADLINE_EXCEEDED"
	Canceled           Code = "CANCELLED"
	DataLoss           Code = "DATA_LOSS"
	Internal           Code = "INTERNAL"
)

// Reasons of a use that is refused because the material is to be removed.
const (
	reasonNamespaceScheduled = "NAMESPACE_DELETE_SCHEDULED"
	reasonKeyScheduled       = "KEY_DELETE_SCHEDULED"
	reasonVersionScheduled   = "VERSION_" + string(DestroyScheduled)
)

// reasonOutcomeUnknown is the reason of a change of which nobody knows yet
// whether it was made.
const reasonOutcomeUnknown = "OUTCOME_UNKNOWN"

// Error is the error type of every operation of kms. Message is meant for the
// caller: it names the field, the limit and what to do, and holds no secret.
// Cause is for the server's log only and is never shown to a caller.
type Error struct {
	Code    Code
	Reason  string // short and stable, for machines, such as "VERSION_DISABLED"
	Field   string // the request's field at fault, "" if none
	Message string
	Cause   error
}

// Error returns code and message, without the cause.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the code of err: OK for nil, Internal for an error that is not of kms.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

func invalid(field, format string, args ...any) *Error {
	return &Error{Code: InvalidArgument, Reason: "INVALID_FIELD", Field: field, Message: field + " " + fmt.Sprintf(format, args...)}
}

func precondition(reason, format string, args ...any) *Error {
	return &Error{Code: FailedPrecondition, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func notFound(reason, format string, args ...any) *Error {
	return &Error{Code: NotFound, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func dataLoss(path string, cause error) *Error {
	if errors.Is(cause, domain.ErrDropped) {
		return errSealed(time.Time{})
	}
	return &Error{Code: DataLoss, Reason: "RECORD_NOT_AUTHENTIC", Cause: cause,
		Message: "the stored record " + path + " fails authentication and is not used; restore the store from a backup"}
}

// sealError is the error of sealing or opening a secret: a domain whose keys were dropped
// in the middle of an operation is one that is sealed.
func sealError(err error) error {
	if errors.Is(err, domain.ErrDropped) {
		return errSealed(time.Time{})
	}
	return err
}

// errDecrypt is all that a failed decryption ever says.
func errDecrypt() *Error {
	return &Error{Code: InvalidArgument, Reason: "DECRYPTION_FAILED", Message: "decryption failed"}
}
