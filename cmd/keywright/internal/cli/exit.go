package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
)

// The exit codes that are no answer of a server.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// exitRow is one exit code: its meaning and the statuses that lead to it.
type exitRow struct {
	code     int
	meaning  string
	statuses []codes.Code
}

// exitCodes is the one table of exit codes; what it does not name is exitFailure.
func exitCodes() []exitRow {
	return []exitRow{
		{exitOK, "done", []codes.Code{codes.OK}},
		{exitFailure, "signature or MAC not valid, decryption failed, or any other failure", nil},
		{exitUsage, "wrong use: arguments, flags, settings, or a value the server refuses", []codes.Code{codes.InvalidArgument, codes.OutOfRange}},
		{3, "not found", []codes.Code{codes.NotFound}},
		{4, "not allowed, or not authenticated", []codes.Code{codes.PermissionDenied, codes.Unauthenticated}},
		{5, "server, HSM or store away, or no answer in time", []codes.Code{codes.Unavailable, codes.DeadlineExceeded}},
		{6, "the state of things forbids it: exists already, disabled, changed meanwhile", []codes.Code{codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted}},
		{7, "a limit or quota is reached", []codes.Code{codes.ResourceExhausted}},
		{exitInterrupted, "interrupted", []codes.Code{codes.Canceled}},
	}
}

// reasonDecryption is the server's reason for a decryption that failed. Its
// status is INVALID_ARGUMENT, but no use of the command line is wrong.
const reasonDecryption = "DECRYPTION_FAILED"

func exitCode(err error) int {
	if _, usage := errors.AsType[*usageError](err); usage || errors.Is(err, client.ErrSettings) {
		return exitUsage
	}
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Reason == reasonDecryption {
		return exitFailure
	}
	for _, row := range exitCodes() {
		if slices.Contains(row.statuses, e.Code) {
			return row.code
		}
	}
	return exitFailure
}

// usageError is an error in how the program was called.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

var errInterrupted = errors.New("interrupted")

func exitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("Exit codes, for scripts:\n\n")
	for _, row := range exitCodes() {
		fmt.Fprintf(&text, "  %3d  %s\n", row.code, row.meaning)
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: text.String()}
}

func connectionTopic() *cobra.Command {
	return &cobra.Command{Use: "connection", Short: "How keywright finds the server and says who calls", Long: `Each setting is taken from its flag, else from the environment, else from the
profile, a YAML file of which each field is optional:

  addr: 127.0.0.1:7700      ` + client.EnvAddr + `
  ca_file: tls/ca.pem       ` + client.EnvCAFile + `
  cert_file: tls/me.pem     ` + client.EnvCertFile + `
  key_file: tls/me.key      ` + client.EnvKeyFile + `
  token_file: token         ` + client.EnvTokenFile + `, or the token itself in ` + client.EnvToken + `

Paths in a profile are seen from the profile's folder. The profile is the file
named by --config or ` + client.EnvConfig + `, else ~/.config/keywright/config.yaml if
there is one. A token is used rather than a certificate, unless the certificate
was given nearer (flag before environment before profile). Tokens are never
arguments, since other users of the machine can see those.
`}
}
