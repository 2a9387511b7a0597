package wire

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/keywright/keywright/kms"
)

// Answer is what a request is answered with.
type Answer struct {
	Status   int // 0: 200, or 204 without Data and Auth
	Data     any // a JSON object; nil is none
	Auth     any
	Warnings []string
	// Raw is Data as JSON, written by hand; it is used where it is not nil.
	Raw []byte
	// Bare is the whole body, without the envelope, where it is not nil.
	Bare any
}

// StatusOf is the answer's status.
func (a *Answer) StatusOf() int {
	switch {
	case a.Status != 0:
		return a.Status
	case a.Data == nil && a.Raw == nil && a.Auth == nil && a.Bare == nil && len(a.Warnings) == 0:
		return http.StatusNoContent
	}
	return http.StatusOK
}

// AppendTo appends the answer's body to dst, in the envelope of the API.
func (a *Answer) AppendTo(dst []byte, requestID string) ([]byte, error) {
	if a.Bare != nil {
		return appendJSON(dst, a.Bare)
	}
	dst = append(dst, `{"request_id":"`...)
	dst = append(dst, requestID...)
	dst = append(dst, `","lease_id":"","renewable":false,"lease_duration":0,"data":`...)
	var err error
	if a.Raw != nil {
		dst = append(dst, a.Raw...)
	} else if dst, err = appendJSON(dst, a.Data); err != nil {
		return dst, err
	}
	if a.Warnings == nil && a.Auth == nil {
		return append(dst, ",\"wrap_info\":null,\"warnings\":null,\"auth\":null}\n"...), nil
	}
	dst = append(dst, `,"wrap_info":null,"warnings":`...)
	if dst, err = appendJSON(dst, a.Warnings); err != nil {
		return dst, err
	}
	dst = append(dst, `,"auth":`...)
	dst, err = appendJSON(dst, a.Auth)
	return append(dst, "}\n"...), err
}

func appendJSON(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

// AppendText appends a JSON string to dst.
func AppendText(dst, text []byte) []byte {
	for _, c := range text {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(string(text)) // a string always can be
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), text...), '"')
}

// AppendBase64 appends a JSON string of bytes in base64 to dst.
func AppendBase64(dst, data []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), data), '"')
}

// AppendUint appends a number to dst.
func AppendUint(dst []byte, n uint32) []byte { return strconv.AppendUint(dst, uint64(n), 10) }

// Denied is what the original tells of everything that is not permitted.
const Denied = "permission denied"

// StatusAndText is how the original tells an error: which status, and the text in
// {"errors": […]}, which is empty of what does not exist.
func StatusAndText(e *kms.Error) (status int, text string) {
	switch e.Code {
	case kms.InvalidArgument, kms.FailedPrecondition, kms.AlreadyExists:
		if e.Reason == "MESSAGE_TOO_LARGE" {
			return http.StatusRequestEntityTooLarge, e.Message
		}
		if e.Reason == "METHOD_NOT_ALLOWED" {
			return http.StatusMethodNotAllowed, e.Message
		}
		return http.StatusBadRequest, e.Message
	case kms.NotFound:
		return http.StatusNotFound, e.Message
	case kms.PermissionDenied, kms.Unauthenticated:
		return http.StatusForbidden, Denied
	case kms.ResourceExhausted:
		if e.Reason == "MESSAGE_TOO_LARGE" {
			return http.StatusRequestEntityTooLarge, e.Message
		}
		return http.StatusTooManyRequests, e.Message
	case kms.Aborted: // clients send it again
		return http.StatusPreconditionFailed, e.Message
	case kms.Unavailable, kms.DeadlineExceeded, kms.Canceled:
		return http.StatusServiceUnavailable, e.Message
	}
	return http.StatusInternalServerError, "internal error; the server's log has it under the request id"
}

// AppendErrors appends {"errors": […]} to dst; an empty text is none.
func AppendErrors(dst []byte, text string) []byte {
	dst = append(dst, `{"errors":[`...)
	if text != "" {
		dst = AppendText(dst, []byte(text))
	}
	return append(dst, "]}\n"...)
}
