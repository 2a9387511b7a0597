package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/internal/wait"
	"github.com/keywright/keywright/hsm/worker/internal/wire"
)

// What can go wrong beside hsm's errors.
var (
	// ErrByHand means that Run was not started by a Supervisor.
	ErrByHand = errors.New("hsm-worker is no command to be run by hand: keywrightd serve and the other commands start it themselves")

	// errPINUsed is what a worker gets in place of a second PIN.
	errPINUsed = errors.New("the login on the token is lost; a new worker has to make the next one")
)

// sentinels are the errors that keep their identity on the way from the worker, by
// name.
var sentinels = map[string]error{
	"ErrUnavailable":        hsm.ErrUnavailable,
	"ErrExhausted":          hsm.ErrExhausted,
	"ErrPIN":                hsm.ErrPIN,
	"ErrUnknownOutcome":     hsm.ErrUnknownOutcome,
	"ErrModule":             hsm.ErrModule,
	"ErrModuleInUse":        hsm.ErrModuleInUse,
	"ErrConfig":             hsm.ErrConfig,
	"ErrTokenNotFound":      hsm.ErrTokenNotFound,
	"ErrAmbiguousToken":     hsm.ErrAmbiguousToken,
	"ErrTokenExists":        hsm.ErrTokenExists,
	"ErrRootNotFound":       hsm.ErrRootNotFound,
	"ErrWrongRoot":          hsm.ErrWrongRoot,
	"ErrUnprotected":        hsm.ErrUnprotected,
	"ErrDuplicateObject":    hsm.ErrDuplicateObject,
	"ErrUnwrap":             hsm.ErrUnwrap,
	"ErrBlob":               hsm.ErrBlob,
	"ErrSignerNotFound":     hsm.ErrSignerNotFound,
	"ErrNoSigningMechanism": hsm.ErrNoSigningMechanism,
	"ErrNoWrapMechanism":    hsm.ErrNoWrapMechanism,
	"ErrAlgorithm":          hsm.ErrAlgorithm,
	"ErrKeyNotFound":        hsm.ErrKeyNotFound,
	"ErrDecrypt":            hsm.ErrDecrypt,
	"ErrInvalidArgument":    hsm.ErrInvalidArgument,
	"ErrClosed":             hsm.ErrClosed,

	"context.Canceled":         context.Canceled,
	"context.DeadlineExceeded": context.DeadlineExceeded,
	"stuck":                    wait.ErrStuck,
	"PIN used":                 errPINUsed,
}

// maxMessage bounds an error's message on the wire, in bytes.
const maxMessage = 4 << 10

// remote is the cause of an error in the worker.
type remote struct {
	message string
	is      []error
}

// Error returns the cause's own message.
func (r *remote) Error() string { return r.message }

// Unwrap returns the sentinels that the cause matched in the worker.
func (r *remote) Unwrap() []error { return r.is }

// appendError appends an error of the device: operation, class, code, message, and
// the names of the sentinels in it.
func appendError(to []byte, err error) []byte {
	e := &hsm.Error{Class: hsm.ClassCaller, Err: err}
	_ = errors.As(err, &e) // otherwise as it stands
	to = wire.AppendBytes(to, e.Op)
	to = append(to, byte(e.Class))
	to = wire.AppendUint64(to, uint64(e.Code))
	message := e.Err.Error()
	to = wire.AppendBytes(to, message[:min(len(message), maxMessage)])
	var names []string
	for name, sentinel := range sentinels {
		if errors.Is(e.Err, sentinel) {
			names = append(names, name)
		}
	}
	to = append(to, byte(len(names)))
	for _, name := range names {
		to = wire.AppendBytes(to, name)
	}
	return to
}

// readError is the inverse of appendError. The second result tells of nonsense.
func readError(body *wire.Body) (*hsm.Error, error) {
	e := &hsm.Error{Op: body.String(), Class: hsm.Class(body.Byte()), Code: uint(body.Uint64())}
	cause := &remote{message: body.String()}
	for range body.Byte() {
		name := body.String()
		sentinel, ok := sentinels[name]
		if !ok {
			body.Fail("unknown error %.40q", name)
			break
		}
		cause.is = append(cause.is, sentinel)
	}
	if e.Class > hsm.ClassPIN {
		body.Fail("error of class %d", e.Class)
	}
	if err := body.Done(); err != nil {
		return nil, fmt.Errorf("error: %w", err)
	}
	e.Err = cause
	return e, nil
}

// unavailable makes the error of a device that is away.
func unavailable(op string, cause error) *hsm.Error {
	return &hsm.Error{Op: op, Class: hsm.ClassDevice, Err: cause}
}

// own makes the error of a wrong request, or of a caller who left.
func own(op string, cause error) *hsm.Error {
	return &hsm.Error{Op: op, Class: hsm.ClassCaller, Err: cause}
}
