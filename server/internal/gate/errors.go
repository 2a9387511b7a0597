package gate

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/keywright/keywright/kms"
	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// errorDomain is the domain of every google.rpc.ErrorInfo.
const errorDomain = "keywright"

// Reasons of requests that HTTP has a status of its own for.
const (
	ReasonTooLarge = "MESSAGE_TOO_LARGE"
	ReasonMethod   = "METHOD_NOT_ALLOWED"
)

// statusOf is the one table that maps the core's codes to gRPC and HTTP.
var statusOf = map[kms.Code]struct {
	grpc codes.Code
	http int
}{
	kms.OK:                 {codes.OK, http.StatusOK},
	kms.InvalidArgument:    {codes.InvalidArgument, http.StatusBadRequest},
	kms.NotFound:           {codes.NotFound, http.StatusNotFound},
	kms.AlreadyExists:      {codes.AlreadyExists, http.StatusConflict},
	kms.FailedPrecondition: {codes.FailedPrecondition, http.StatusBadRequest},
	kms.PermissionDenied:   {codes.PermissionDenied, http.StatusForbidden},
	kms.Unauthenticated:    {codes.Unauthenticated, http.StatusUnauthorized},
	kms.ResourceExhausted:  {codes.ResourceExhausted, http.StatusTooManyRequests},
	kms.Aborted:            {codes.Aborted, http.StatusConflict},
	kms.Unavailable:        {codes.Unavailable, http.StatusServiceUnavailable},
	kms.DeadlineExceeded:   {codes.DeadlineExceeded, http.StatusGatewayTimeout},
	kms.Canceled:           {codes.Canceled, 499},
	kms.DataLoss:           {codes.DataLoss, http.StatusInternalServerError},
	kms.Internal:           {codes.Internal, http.StatusInternalServerError},
}

// AsError makes any error one of the core's; what it does not know is Internal,
// and its text goes to the log only.
func AsError(err error) *kms.Error {
	var own *kms.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.DeadlineExceeded):
		return &kms.Error{Code: kms.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Message: "the call did not finish before its deadline", Cause: err}
	case errors.Is(err, context.Canceled):
		return &kms.Error{Code: kms.Canceled, Reason: "CANCELLED", Message: "the call was cancelled", Cause: err}
	}
	if s, ok := status.FromError(err); ok {
		return fromStatus(s)
	}
	return InternalError(err)
}

// fromStatus takes over what grpc-go and grpc-gateway say about a request.
func fromStatus(s *status.Status) *kms.Error {
	for code, row := range statusOf {
		if row.grpc == s.Code() {
			return &kms.Error{Code: code, Reason: string(code), Message: s.Message()}
		}
	}
	return InternalError(s.Err())
}

// InternalError hides a cause from the caller; the log shows it.
func InternalError(cause error) *kms.Error {
	return &kms.Error{Code: kms.Internal, Reason: "INTERNAL", Cause: cause,
		Message: "internal error; the server's log says more under this request's id"}
}

// grpcError is the status that a gRPC caller gets: the message, a
// google.rpc.ErrorInfo, and a BadRequest where a field is at fault.
func grpcError(e *kms.Error, requestID string) error {
	s := status.New(statusOf[e.Code].grpc, e.Message)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain,
		Metadata: map[string]string{"request_id": requestID}}}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: e.Field, Description: e.Message}}})
	}
	if detailed, err := s.WithDetails(details...); err == nil {
		s = detailed
	}
	return s.Err()
}

// OperationError is what one item of a batch or pipeline gets.
func OperationError(err error) *pb.OperationError {
	e := AsError(err)
	return &pb.OperationError{Code: int32(statusOf[e.Code].grpc), Status: string(e.Code), Message: e.Message, Reason: e.Reason, Field: e.Field}
}

// GRPCCode is the table's.
func GRPCCode(e *kms.Error) codes.Code { return statusOf[e.Code].grpc }

// HTTPStatus is the table's, but for the two that only HTTP has.
func HTTPStatus(e *kms.Error) int {
	switch e.Reason {
	case ReasonTooLarge:
		return http.StatusRequestEntityTooLarge
	case ReasonMethod:
		return http.StatusMethodNotAllowed
	}
	return statusOf[e.Code].http
}
