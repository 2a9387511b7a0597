package gate

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/keywright/keywright/kms"
)

// codec is gRPC's own, except that what cannot be read into a message is handed
// to the method instead of being answered by grpc-go, which calls a client's
// broken message an internal error.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(protocodec.Name)} }

// received is where a message is read to.
type received struct {
	message any
	fault   error
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ours := v.(*received)
	if !ours {
		return c.CodecV2.Unmarshal(data, v)
	}
	r.fault = c.CodecV2.Unmarshal(data, r.message)
	return nil
}

// Receive reads the next message by read into message. A message over the size
// limit never gets here: grpc-go refuses it with RESOURCE_EXHAUSTED.
func Receive(read func(any) error, message any) error {
	r := received{message: message}
	if err := read(&r); err != nil {
		return err
	}
	if r.fault != nil {
		return &kms.Error{Code: kms.InvalidArgument, Reason: "INVALID_MESSAGE",
			Message: "the request is not a valid message of this method; strings must be UTF-8"}
	}
	return nil
}

// CodecOption makes a gRPC server use it.
func CodecOption() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }
