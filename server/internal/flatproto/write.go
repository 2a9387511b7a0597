package flatproto

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// answer is a response of a hot method: they all have a content or a truth as field 1 and
// a version as field 2.
type answer struct {
	content []byte
	truth   bool
	version uint32
}

// answerOf declines what is no response of a hot method.
func answerOf(message any) (a answer, ok bool) {
	switch m := message.(type) {
	case *pb.EncryptResponse:
		return answer{content: m.GetCiphertext(), version: m.GetVersion()}, m != nil
	case *pb.DecryptResponse:
		return answer{content: m.GetPlaintext(), version: m.GetVersion()}, m != nil
	case *pb.SignResponse:
		return answer{content: m.GetSignature(), version: m.GetVersion()}, m != nil
	case *pb.VerifyResponse:
		return answer{truth: m.GetValid(), version: m.GetVersion()}, m != nil
	case *pb.GenerateMacResponse:
		return answer{content: m.GetMac(), version: m.GetVersion()}, m != nil
	case *pb.VerifyMacResponse:
		return answer{truth: m.GetValid(), version: m.GetVersion()}, m != nil
	}
	return a, false
}

func (a answer) size() (n int) {
	if len(a.content) > 0 {
		n = 1 + protowire.SizeBytes(len(a.content))
	}
	if a.truth {
		n += 2
	}
	if a.version > 0 {
		n += 1 + protowire.SizeVarint(uint64(a.version))
	}
	return n
}

func (a answer) append(dst []byte) []byte {
	if len(a.content) > 0 {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, 1, protowire.BytesType), a.content)
	}
	if a.truth {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, 1, protowire.VarintType), 1)
	}
	if a.version > 0 {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, 2, protowire.VarintType), uint64(a.version))
	}
	return dst
}

// resultOf returns the response in a result and the number of its field there.
func resultOf(r *pb.OperationResult) (number protowire.Number, a answer, ok bool) {
	switch k := r.GetResult().(type) {
	case *pb.OperationResult_Encrypt:
		a, ok = answerOf(k.Encrypt)
		return 2, a, ok
	case *pb.OperationResult_Decrypt:
		a, ok = answerOf(k.Decrypt)
		return 3, a, ok
	case *pb.OperationResult_Sign:
		a, ok = answerOf(k.Sign)
		return 8, a, ok
	case *pb.OperationResult_Verify:
		a, ok = answerOf(k.Verify)
		return 9, a, ok
	case *pb.OperationResult_GenerateMac:
		a, ok = answerOf(k.GenerateMac)
		return 10, a, ok
	case *pb.OperationResult_VerifyMac:
		a, ok = answerOf(k.VerifyMac)
		return 11, a, ok
	}
	return 0, a, false
}

// sizeResult leaves to proto what is not hot.
func sizeResult(r *pb.OperationResult) int {
	if _, a, ok := resultOf(r); ok {
		return 1 + protowire.SizeBytes(a.size())
	}
	return proto.Size(r)
}

// appendResult appends a result as the field of a message.
func appendResult(dst []byte, field protowire.Number, r *pb.OperationResult) ([]byte, error) {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	number, a, ok := resultOf(r)
	if !ok {
		dst = protowire.AppendVarint(dst, uint64(proto.Size(r)))
		return proto.MarshalOptions{}.MarshalAppend(dst, r)
	}
	size := a.size()
	dst = protowire.AppendVarint(dst, uint64(1+protowire.SizeBytes(size)))
	dst = protowire.AppendTag(dst, number, protowire.BytesType)
	return a.append(protowire.AppendVarint(dst, uint64(size))), nil
}

// Size is how many bytes Append appends for a message; it reports false for one that
// Append declines.
func Size(message any) (n int, ok bool) {
	switch m := message.(type) {
	case *pb.BatchResponse:
		for _, r := range m.GetResults() {
			n += 1 + protowire.SizeBytes(sizeResult(r))
		}
		return n, m != nil
	case *pb.PipelineResponse:
		if m.GetResult() == nil {
			return 0, false
		}
		if m.Id > 0 {
			n = 1 + protowire.SizeVarint(m.Id)
		}
		return n + 1 + protowire.SizeBytes(sizeResult(m.Result)), true
	}
	a, ok := answerOf(message)
	return a.size(), ok
}

// Append appends a message of the server's own making, which has no unknown fields, and
// for which Size reported true.
func Append(dst []byte, message any) (_ []byte, err error) {
	switch m := message.(type) {
	case *pb.BatchResponse:
		for _, r := range m.Results {
			if dst, err = appendResult(dst, 1, r); err != nil {
				return nil, err
			}
		}
		return dst, nil
	case *pb.PipelineResponse:
		if m.Id > 0 {
			dst = protowire.AppendVarint(protowire.AppendTag(dst, 1, protowire.VarintType), m.Id)
		}
		return appendResult(dst, 2, m.Result)
	}
	a, _ := answerOf(message)
	return a.append(dst), nil
}
