package gate

import (
	"bytes"
	"io"
	"net/http"

	"github.com/keywright/keywright/kms"
)

// ReadBody reads a request's body whole into buffer, which it returns, growing with what
// arrives and not with what was announced. Errors: TooLarge, and a body that is not whole.
func ReadBody(req *http.Request, buffer []byte, limit int) ([]byte, error) {
	if req.ContentLength > int64(limit) {
		return buffer, TooLarge(limit)
	}
	if req.ContentLength == 0 {
		return buffer[:0], nil
	}
	into := bytes.NewBuffer(buffer[:0])
	_, err := into.ReadFrom(io.LimitReader(req.Body, int64(limit)+1))
	buffer = into.Bytes()
	if err != nil {
		return buffer, &kms.Error{Code: kms.InvalidArgument, Reason: "INCOMPLETE_BODY", Message: "the body ended early or came too slowly", Cause: err}
	}
	if len(buffer) > limit {
		return buffer, TooLarge(limit)
	}
	return buffer, nil
}
