package client

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Error is a call that failed.
type Error struct {
	Code      codes.Code
	Reason    string // the server's, such as VERSION_DISABLED; empty when no server answered
	Message   string
	RequestID string // empty when no server answered
}

// Error returns the message in one line, with the request id if there is one.
func (e *Error) Error() string {
	if e.RequestID == "" {
		return e.Message
	}
	return e.Message + " (request id " + e.RequestID + ")"
}

// newError turns what gRPC returned into an *Error; nil stays nil.
func newError(err error, addr, requestID string) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	e := &Error{Code: s.Code(), Reason: reason(s), Message: s.Message(), RequestID: requestID}
	switch {
	case e.Code == codes.Unavailable && e.Reason == "":
		e.Message = "cannot reach the server at " + addr + ": " + transportMessage(e.Message) + "; `keywright help connection` tells how to choose another"
	case e.Code == codes.DeadlineExceeded && e.Reason == "":
		e.Message = "no answer from " + addr + " in time; --timeout sets how long to wait"
	case e.Code == codes.Canceled:
		e.Message = "interrupted"
	case e.Reason == "LOCKOUT": // the request's field is a flag here
		e.Message = strings.Replace(e.Message, "confirm_lockout: ", "--confirm-lockout ", 1)
	case e.Message == "":
		e.Message = "the server answered " + e.Code.String()
	}
	return e
}

func reason(s *status.Status) string {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// transportMessage takes gRPC's own words off a failed connection's message.
func transportMessage(message string) string {
	for _, words := range []string{"connection error: desc = ", "transport: Error while dialing: ", "transport: authentication handshake failed: "} {
		message = strings.ReplaceAll(message, words, "")
	}
	return strings.Trim(message, `"`)
}
