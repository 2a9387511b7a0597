package load

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// MaxBatch is the most operations that the API takes in one call.
const MaxBatch = 10_000

// Work is the call to make.
type Work struct {
	Operation string // one of Operations
	Namespace string
	Key       string // its purpose must fit the operation
	Payload   int    // bytes of random plaintext or message
	Batch     int    // operations per call; 0 sends them alone
}

// operation is one kind of call: how its request is made of a payload and, for
// some, of the answer to another operation with the same payload.
type operation struct {
	method  string // the RPC's name
	after   string // the operation whose answer the request needs
	request func(w Work, payload []byte, answer proto.Message) proto.Message
	answer  func() proto.Message
}

func operations() map[string]operation {
	return map[string]operation{
		"encrypt": {"Encrypt", "", func(w Work, payload []byte, _ proto.Message) proto.Message {
			return &pb.EncryptRequest{Namespace: w.Namespace, Key: w.Key, Plaintext: payload}
		}, func() proto.Message { return new(pb.EncryptResponse) }},
		"decrypt": {"Decrypt", "encrypt", func(w Work, _ []byte, answer proto.Message) proto.Message {
			return &pb.DecryptRequest{Namespace: w.Namespace, Key: w.Key, Ciphertext: answer.(*pb.EncryptResponse).Ciphertext}
		}, func() proto.Message { return new(pb.DecryptResponse) }},
		"datakey": {"GenerateDataKey", "", func(w Work, payload []byte, _ proto.Message) proto.Message {
			return &pb.GenerateDataKeyRequest{Namespace: w.Namespace, Key: w.Key, NumBytes: uint32(len(payload))}
		}, func() proto.Message { return new(pb.GenerateDataKeyResponse) }},
		"sign": {"Sign", "", func(w Work, payload []byte, _ proto.Message) proto.Message {
			return &pb.SignRequest{Namespace: w.Namespace, Key: w.Key, Message: payload}
		}, func() proto.Message { return new(pb.SignResponse) }},
		"verify": {"Verify", "sign", func(w Work, payload []byte, answer proto.Message) proto.Message {
			return &pb.VerifyRequest{Namespace: w.Namespace, Key: w.Key, Message: payload, Signature: answer.(*pb.SignResponse).Signature}
		}, func() proto.Message { return new(pb.VerifyResponse) }},
		"mac": {"GenerateMac", "", func(w Work, payload []byte, _ proto.Message) proto.Message {
			return &pb.GenerateMacRequest{Namespace: w.Namespace, Key: w.Key, Message: payload}
		}, func() proto.Message { return new(pb.GenerateMacResponse) }},
		"verify-mac": {"VerifyMac", "mac", func(w Work, payload []byte, answer proto.Message) proto.Message {
			return &pb.VerifyMacRequest{Namespace: w.Namespace, Key: w.Key, Message: payload, Mac: answer.(*pb.GenerateMacResponse).Mac}
		}, func() proto.Message { return new(pb.VerifyMacResponse) }},
	}
}

// Operations names what a Work may do.
func Operations() []string { return slices.Sorted(maps.Keys(operations())) }

// call is a Work made ready to be sent.
type call struct {
	method  string
	request proto.Message
	answer  func() proto.Message
}

// exchange sends one call.
type exchange func(ctx context.Context, c call, answer proto.Message) error

// payload is random.
func (w Work) payload() []byte {
	payload := make([]byte, w.Payload)
	_, _ = rand.Read(payload) // never fails: crypto/rand ends the process instead
	return payload
}

// prepare makes the call of w, with a random payload, and sends it once to see
// that it is answered.
func (w Work) prepare(ctx context.Context, send exchange) (call, error) {
	c, err := w.alone(ctx, w.Operation, w.payload(), send)
	if err != nil || w.Batch == 0 {
		return c, err
	}
	if w.Batch < 0 || w.Batch > MaxBatch {
		return call{}, fmt.Errorf("a batch of %d operations: give 1 to %d", w.Batch, MaxBatch)
	}
	c = batchOf(c, w.Batch)
	return c, tryOut(ctx, c, c.answer(), send)
}

func (w Work) alone(ctx context.Context, name string, payload []byte, send exchange) (call, error) {
	o, ok := operations()[name]
	if !ok {
		return call{}, fmt.Errorf("there is no operation %q: give one of %s", name, strings.Join(Operations(), ", "))
	}
	var earlier proto.Message
	if o.after != "" {
		first, err := w.alone(ctx, o.after, payload, send)
		if err != nil {
			return call{}, err
		}
		earlier = first.answer()
		if err := send(ctx, first, earlier); err != nil {
			return call{}, err
		}
	}
	c := call{o.method, o.request(w, payload, earlier), o.answer}
	return c, tryOut(ctx, c, c.answer(), send)
}

func tryOut(ctx context.Context, c call, answer proto.Message, send exchange) error {
	if err := send(ctx, c, answer); err != nil {
		return err
	}
	return refusal(answer)
}

// batchOf puts n times the same operation into one call. The key is named once.
func batchOf(c call, n int) call {
	item := proto.Clone(c.request)
	batch := &pb.BatchRequest{
		Namespace:  takeString(item, "namespace"),
		Key:        takeString(item, "key"),
		Operations: make([]*pb.Operation, n),
	}
	for i := range batch.Operations {
		batch.Operations[i] = operationOf(item)
	}
	return call{"Batch", batch, func() proto.Message { return new(pb.BatchResponse) }}
}

// operationOf wraps a request in the field of Operation that has its type.
func operationOf(request proto.Message) *pb.Operation {
	o := new(pb.Operation)
	fields := o.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); field.Message().FullName() == request.ProtoReflect().Descriptor().FullName() {
			o.ProtoReflect().Set(field, protoreflect.ValueOfMessage(request.ProtoReflect()))
		}
	}
	return o
}

// takeString clears a field and returns what it held.
func takeString(m proto.Message, name protoreflect.Name) string {
	field := m.ProtoReflect().Descriptor().Fields().ByName(name)
	value := m.ProtoReflect().Get(field).String()
	m.ProtoReflect().Clear(field)
	return value
}

// refusal is the error of the first item of a batch that failed, or of the first that
// was not refused for want of room: that one cannot be helped by waiting.
func refusal(answer proto.Message) error {
	batch, ok := answer.(*pb.BatchResponse)
	if !ok {
		return nil
	}
	var first error
	for i, result := range batch.Results {
		e := result.GetError()
		if e == nil {
			continue
		}
		err := itemError(fmt.Sprintf("operation %d of the batch", i), e)
		if !errors.Is(err, ErrOverload) {
			return err
		}
		first = cmp.Or(first, err)
	}
	return first
}

// itemError is the error of one operation of many.
func itemError(which string, e *pb.OperationError) error {
	if codes.Code(e.Code) == codes.ResourceExhausted {
		return fmt.Errorf("%w: %s: %s", ErrOverload, which, oneLine(e.Message))
	}
	return fmt.Errorf("%s: %s: %s", which, e.Status, oneLine(e.Message))
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
