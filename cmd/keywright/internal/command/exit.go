package command

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
)

// The exit codes that are no answer of a server.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitUsage       = 2
	ExitInterrupted = 130
)

// ExitRow is one exit code: its meaning and the statuses that lead to it.
type ExitRow struct {
	Code     int
	Meaning  string
	statuses []codes.Code
}

// ExitCodes is the one table of exit codes; what it does not name is ExitFailure.
func ExitCodes() []ExitRow {
	return []ExitRow{
		{ExitOK, "done", []codes.Code{codes.OK}},
		{ExitFailure, "signature or MAC not valid, decryption failed, or any other failure", nil},
		{ExitUsage, "wrong use: arguments, flags, settings, or a value the server refuses", []codes.Code{codes.InvalidArgument, codes.OutOfRange}},
		{3, "not found", []codes.Code{codes.NotFound}},
		{4, "not allowed, or not authenticated", []codes.Code{codes.PermissionDenied, codes.Unauthenticated}},
		{5, "server, HSM or store away, or no answer in time", []codes.Code{codes.Unavailable, codes.DeadlineExceeded}},
		{6, "the state of things forbids it: exists already, disabled, changed meanwhile", []codes.Code{codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted}},
		{7, "a limit or quota is reached", []codes.Code{codes.ResourceExhausted}},
		{ExitInterrupted, "interrupted", []codes.Code{codes.Canceled}},
	}
}

// reasonDecryption is the server's reason for a decryption that failed. Its
// status is INVALID_ARGUMENT, but no use of the command line is wrong.
const reasonDecryption = "DECRYPTION_FAILED"

// ExitCode returns the exit code that err leads to.
func ExitCode(err error) int {
	if _, usage := errors.AsType[*UsageError](err); usage || errors.Is(err, client.ErrSettings) {
		return ExitUsage
	}
	if errors.Is(err, ErrInterrupted) {
		return ExitInterrupted
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Reason == reasonDecryption {
		return ExitFailure
	}
	for _, row := range ExitCodes() {
		if slices.Contains(row.statuses, e.Code) {
			return row.Code
		}
	}
	return ExitFailure
}

// UsageError is an error in how the program was called.
type UsageError struct{ message string }

// Error returns the message.
func (e *UsageError) Error() string { return e.message }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// ErrInterrupted is the error of a command that a signal ended.
var ErrInterrupted = errors.New("interrupted")
