package gate

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/flatproto"
)

// codec is gRPC's own, except that hot messages are read and written by hand, and that
// what cannot be read into a message is handed to the method instead of being answered
// by grpc-go, which calls a client's broken message an internal error.
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
	whole := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer whole.Free()
	if !flatproto.Unmarshal(whole.ReadOnlyData(), r.message) {
		r.fault = proto.Unmarshal(whole.ReadOnlyData(), r.message.(proto.Message))
	}
	return nil
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	size, ok := flatproto.Size(v)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	if mem.IsBelowBufferPoolingThreshold(size) {
		text, err := flatproto.Append(make([]byte, 0, size), v)
		return mem.BufferSlice{mem.SliceBuffer(text)}, err
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	text, err := flatproto.Append((*buffer)[:0], v)
	if err != nil {
		pool.Put(buffer)
		return nil, err
	}
	*buffer = text
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
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
