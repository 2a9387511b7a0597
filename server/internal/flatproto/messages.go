package flatproto

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// The fields of the requests by number, as crypto.proto lists them.
var (
	encryptFields = []field[pb.EncryptRequest]{
		text(func(m *pb.EncryptRequest) *string { return &m.Namespace }),
		text(func(m *pb.EncryptRequest) *string { return &m.Key }),
		content(func(m *pb.EncryptRequest) *[]byte { return &m.Plaintext }),
		content(func(m *pb.EncryptRequest) *[]byte { return &m.Aad }),
		texts(func(m *pb.EncryptRequest) *map[string]string { return &m.EncryptionContext }),
	}
	decryptFields = []field[pb.DecryptRequest]{
		text(func(m *pb.DecryptRequest) *string { return &m.Namespace }),
		text(func(m *pb.DecryptRequest) *string { return &m.Key }),
		content(func(m *pb.DecryptRequest) *[]byte { return &m.Ciphertext }),
		content(func(m *pb.DecryptRequest) *[]byte { return &m.Aad }),
		texts(func(m *pb.DecryptRequest) *map[string]string { return &m.EncryptionContext }),
	}
	signFields = []field[pb.SignRequest]{
		text(func(m *pb.SignRequest) *string { return &m.Namespace }),
		text(func(m *pb.SignRequest) *string { return &m.Key }),
		content(func(m *pb.SignRequest) *[]byte { return &m.Message }),
		content(func(m *pb.SignRequest) *[]byte { return &m.Digest }),
		enum(func(m *pb.SignRequest) *pb.SignatureFormat { return &m.Format }),
		number(func(m *pb.SignRequest) *uint32 { return &m.Version }),
	}
	verifyFields = []field[pb.VerifyRequest]{
		text(func(m *pb.VerifyRequest) *string { return &m.Namespace }),
		text(func(m *pb.VerifyRequest) *string { return &m.Key }),
		content(func(m *pb.VerifyRequest) *[]byte { return &m.Message }),
		content(func(m *pb.VerifyRequest) *[]byte { return &m.Digest }),
		content(func(m *pb.VerifyRequest) *[]byte { return &m.Signature }),
		enum(func(m *pb.VerifyRequest) *pb.SignatureFormat { return &m.Format }),
		number(func(m *pb.VerifyRequest) *uint32 { return &m.Version }),
	}
	generateMACFields = []field[pb.GenerateMacRequest]{
		text(func(m *pb.GenerateMacRequest) *string { return &m.Namespace }),
		text(func(m *pb.GenerateMacRequest) *string { return &m.Key }),
		content(func(m *pb.GenerateMacRequest) *[]byte { return &m.Message }),
		number(func(m *pb.GenerateMacRequest) *uint32 { return &m.Version }),
	}
	verifyMACFields = []field[pb.VerifyMacRequest]{
		text(func(m *pb.VerifyMacRequest) *string { return &m.Namespace }),
		text(func(m *pb.VerifyMacRequest) *string { return &m.Key }),
		content(func(m *pb.VerifyMacRequest) *[]byte { return &m.Message }),
		content(func(m *pb.VerifyMacRequest) *[]byte { return &m.Mac }),
		number(func(m *pb.VerifyMacRequest) *uint32 { return &m.Version }),
	}
)

// Unmarshal reads b into message, a pointer to a new message, and reports whether it
// could. When it declines, the message may be filled in part: proto.Unmarshal begins
// anew.
func Unmarshal(b []byte, message any) bool {
	switch m := message.(type) {
	case *pb.EncryptRequest:
		return read(nil, encryptFields, b, m)
	case *pb.DecryptRequest:
		return read(nil, decryptFields, b, m)
	case *pb.SignRequest:
		return read(nil, signFields, b, m)
	case *pb.VerifyRequest:
		return read(nil, verifyFields, b, m)
	case *pb.GenerateMacRequest:
		return read(nil, generateMACFields, b, m)
	case *pb.VerifyMacRequest:
		return read(nil, verifyMACFields, b, m)
	case *pb.BatchRequest:
		return readBatch(b, m)
	case *pb.PipelineRequest:
		return readPipelined(b, m)
	}
	return false
}

// operationNumber is that of BatchRequest.operations.
const operationNumber = 3

func readBatch(b []byte, m *pb.BatchRequest) bool {
	r := &reader{room: make([]byte, 0, len(b))}
	m.Operations = make([]*pb.Operation, 0, operations(b))
	for len(b) > 0 {
		f, rest, ok := take(b)
		switch {
		case !ok:
		case f.number == 1:
			m.Namespace, ok = r.text(f)
		case f.number == 2:
			m.Key, ok = r.text(f)
		case f.number == operationNumber && f.wire == protowire.BytesType:
			var o *pb.Operation
			o, ok = r.operation(f.payload)
			m.Operations = append(m.Operations, o)
		default:
			ok = false
		}
		if !ok {
			return false
		}
		b = rest
	}
	return true
}

func operations(b []byte) (n int) {
	for len(b) > 0 {
		f, rest, ok := take(b)
		if !ok {
			break
		}
		if f.number == operationNumber {
			n++
		}
		b = rest
	}
	return n
}

func readPipelined(b []byte, m *pb.PipelineRequest) bool {
	for len(b) > 0 {
		f, rest, ok := take(b)
		switch {
		case !ok:
		case f.number == 1 && f.wire == protowire.VarintType:
			m.Id = f.varint
		case f.number == 2 && f.wire == protowire.BytesType && m.Operation == nil: // proto merges a second one into the first
			m.Operation, ok = (*reader)(nil).operation(f.payload)
		default:
			ok = false
		}
		if !ok {
			return false
		}
		b = rest
	}
	return true
}

// encryption and decryption are an operation in one piece of memory.
type encryption struct {
	operation pb.Operation
	kind      pb.Operation_Encrypt
	request   pb.EncryptRequest
}

type decryption struct {
	operation pb.Operation
	kind      pb.Operation_Decrypt
	request   pb.DecryptRequest
}

// pieces is how many operations of a batch share an allocation.
const pieces = 32

// place returns room for one more T; pool may be nil.
func place[T any](pool *[]T) *T {
	if pool == nil {
		return new(T)
	}
	if len(*pool) == 0 {
		*pool = make([]T, pieces)
	}
	next := &(*pool)[0]
	*pool = (*pool)[1:]
	return next
}

// operation reads an Operation; kinds that are not hot it leaves to proto.
func (r *reader) operation(b []byte) (*pb.Operation, bool) {
	if len(b) > 0 {
		if f, rest, ok := take(b); ok && len(rest) == 0 && f.wire == protowire.BytesType {
			if o := r.hot(f); o != nil {
				return o, true
			}
		}
	}
	o := new(pb.Operation)
	return o, proto.Unmarshal(b, o) == nil
}

// hot returns nil for what it declines.
func (r *reader) hot(f raw) *pb.Operation {
	switch f.number {
	case 1:
		var pool *[]encryption
		if r != nil {
			pool = &r.encrypts
		}
		e := place(pool)
		e.kind.Encrypt, e.operation.Request = &e.request, &e.kind
		return accepted(&e.operation, read(r, encryptFields, f.payload, &e.request))
	case 2:
		var pool *[]decryption
		if r != nil {
			pool = &r.decrypts
		}
		d := place(pool)
		d.kind.Decrypt, d.operation.Request = &d.request, &d.kind
		return accepted(&d.operation, read(r, decryptFields, f.payload, &d.request))
	case 7:
		q := new(pb.SignRequest)
		return accepted(&pb.Operation{Request: &pb.Operation_Sign{Sign: q}}, read(r, signFields, f.payload, q))
	case 8:
		q := new(pb.VerifyRequest)
		return accepted(&pb.Operation{Request: &pb.Operation_Verify{Verify: q}}, read(r, verifyFields, f.payload, q))
	case 9:
		q := new(pb.GenerateMacRequest)
		return accepted(&pb.Operation{Request: &pb.Operation_GenerateMac{GenerateMac: q}}, read(r, generateMACFields, f.payload, q))
	case 10:
		q := new(pb.VerifyMacRequest)
		return accepted(&pb.Operation{Request: &pb.Operation_VerifyMac{VerifyMac: q}}, read(r, verifyMACFields, f.payload, q))
	}
	return nil
}

func accepted(o *pb.Operation, ok bool) *pb.Operation {
	if ok {
		return o
	}
	return nil
}
