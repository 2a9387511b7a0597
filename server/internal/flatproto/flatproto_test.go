package flatproto

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/keywright/keywright/proto/keywright/v1"
)

// requests are of every kind that is read by hand, with every field set.
func requests() []proto.Message {
	bound := map[string]string{"invoice": "7", "": "ü"}
	encrypt := &pb.EncryptRequest{Namespace: "app", Key: "card", Plaintext: []byte("4111"), Aad: []byte("aad"), EncryptionContext: bound}
	decrypt := &pb.DecryptRequest{Namespace: "app", Key: "card", Ciphertext: make([]byte, 300), Aad: []byte("aad"), EncryptionContext: bound}
	sign := &pb.SignRequest{Namespace: "app", Key: "sign", Message: []byte("m"), Digest: []byte("d"), Format: pb.SignatureFormat_JWS, Version: 1 << 31}
	verify := &pb.VerifyRequest{Namespace: "app", Key: "sign", Message: []byte("m"), Digest: []byte("d"), Signature: []byte("s"), Format: pb.SignatureFormat_RAW, Version: 7}
	generateMAC := &pb.GenerateMacRequest{Namespace: "app", Key: "mac", Message: []byte("m"), Version: 2}
	verifyMAC := &pb.VerifyMacRequest{Namespace: "app", Key: "mac", Message: []byte("m"), Mac: []byte("mac"), Version: 3}
	operations := []*pb.Operation{
		{Request: &pb.Operation_Encrypt{Encrypt: encrypt}}, {Request: &pb.Operation_Encrypt{Encrypt: &pb.EncryptRequest{}}},
		{Request: &pb.Operation_Decrypt{Decrypt: decrypt}}, {Request: &pb.Operation_Sign{Sign: sign}},
		{Request: &pb.Operation_Verify{Verify: verify}}, {Request: &pb.Operation_GenerateMac{GenerateMac: generateMAC}},
		{Request: &pb.Operation_VerifyMac{VerifyMac: verifyMAC}}, {},
		{Request: &pb.Operation_GenerateRandom{GenerateRandom: &pb.GenerateRandomRequest{NumBytes: 7}}},
	}
	all := []proto.Message{encrypt, decrypt, sign, verify, generateMAC, verifyMAC,
		&pb.BatchRequest{Namespace: "app", Key: "card", Operations: operations}, &pb.PipelineRequest{Id: 1 << 63}}
	for i, o := range operations {
		all = append(all, &pb.PipelineRequest{Id: uint64(i), Operation: o})
	}
	return all
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fresh(m proto.Message) proto.Message { return m.ProtoReflect().New().Interface() }

func TestRequestsAreRead(t *testing.T) {
	for i, want := range requests() {
		b, got := encode(t, want), fresh(want)
		if !Unmarshal(b, got) {
			t.Errorf("%d: %T was declined", i, want)
		}
		clear(b) // what was read must not change with it
		if !proto.Equal(got, want) {
			t.Errorf("%d: got %v, want %v", i, got, want)
		}
	}
}

func TestContentsOfABatchAreApart(t *testing.T) {
	q := &pb.BatchRequest{}
	for _, text := range []string{"first", "second"} {
		q.Operations = append(q.Operations, &pb.Operation{Request: &pb.Operation_Encrypt{Encrypt: &pb.EncryptRequest{Plaintext: []byte(text)}}})
	}
	got := &pb.BatchRequest{}
	if !Unmarshal(encode(t, q), got) {
		t.Fatal("declined")
	}
	first := got.Operations[0].GetEncrypt()
	_ = append(first.Plaintext, "overwrites what follows"...)
	if second := string(got.Operations[1].GetEncrypt().Plaintext); second != "second" {
		t.Errorf("the second plaintext is %q", second)
	}
}

// TestUnusualIsDeclined has what proto reads, or refuses, and the shortcut does not.
func TestUnusualIsDeclined(t *testing.T) {
	twice := append(encode(t, &pb.PipelineRequest{Operation: &pb.Operation{}}), encode(t, &pb.PipelineRequest{Operation: &pb.Operation{}})...)
	for name, c := range map[string]struct {
		into proto.Message
		b    []byte
	}{
		"unknown field":           {&pb.EncryptRequest{}, []byte{6 << 3, 1}},
		"high number":             {&pb.EncryptRequest{}, []byte{0x80, 1, 0}},
		"number 0":                {&pb.EncryptRequest{}, []byte{2, 0}},
		"fixed32":                 {&pb.EncryptRequest{}, []byte{1<<3 | 5, 1, 2, 3, 4}},
		"name that is a number":   {&pb.EncryptRequest{}, []byte{1 << 3, 1}},
		"content that is one":     {&pb.EncryptRequest{}, []byte{3 << 3, 1}},
		"version that is bytes":   {&pb.SignRequest{}, []byte{6<<3 | 2, 0}},
		"format that is bytes":    {&pb.SignRequest{}, []byte{5<<3 | 2, 0}},
		"cut short":               {&pb.EncryptRequest{}, []byte{1<<3 | 2, 2, 'a'}},
		"cut in a length":         {&pb.EncryptRequest{}, []byte{1<<3 | 2, 0x80}},
		"not UTF-8":               {&pb.EncryptRequest{}, []byte{1<<3 | 2, 1, 0xff}},
		"context not UTF-8":       {&pb.EncryptRequest{}, []byte{5<<3 | 2, 6, 1<<3 | 2, 1, 0xff, 2<<3 | 2, 1, 'a'}},
		"context without a value": {&pb.EncryptRequest{}, []byte{5<<3 | 2, 3, 1<<3 | 2, 1, 'a'}},
		"context with two keys":   {&pb.EncryptRequest{}, []byte{5<<3 | 2, 6, 1<<3 | 2, 1, 'a', 1<<3 | 2, 1, 'b'}},
		"operation of a batch":    {&pb.BatchRequest{}, []byte{3<<3 | 2, 4, 1<<3 | 2, 2, 1<<3 | 2, 9}},
		"two operations":          {&pb.PipelineRequest{}, twice},
		"not hot":                 {&pb.GenerateRandomRequest{}, nil},
	} {
		if Unmarshal(c.b, c.into) {
			t.Errorf("%s: read", name)
		}
	}
}

// FuzzUnmarshal holds the shortcut to proto: what it reads, proto reads, to the same end.
func FuzzUnmarshal(f *testing.F) {
	kinds := requests()[:8]
	for _, m := range requests() {
		for i, kind := range kinds {
			if fmt.Sprintf("%T", kind) == fmt.Sprintf("%T", m) {
				f.Add(uint8(i), encode(f, m))
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		got := fresh(kinds[int(kind)%len(kinds)])
		if !Unmarshal(bytes.Clone(b), got) {
			return
		}
		want := fresh(got)
		if err := proto.Unmarshal(b, want); err != nil {
			t.Fatalf("read what proto refuses: %v", err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func results() []*pb.OperationResult {
	return []*pb.OperationResult{
		{Result: &pb.OperationResult_Encrypt{Encrypt: &pb.EncryptResponse{Ciphertext: make([]byte, 300), Version: 200}}},
		{Result: &pb.OperationResult_Decrypt{Decrypt: &pb.DecryptResponse{Plaintext: []byte("p"), Version: 1}}},
		{Result: &pb.OperationResult_Sign{Sign: &pb.SignResponse{Signature: []byte("s"), Version: 1<<32 - 1}}},
		{Result: &pb.OperationResult_Verify{Verify: &pb.VerifyResponse{Valid: true, Version: 1}}},
		{Result: &pb.OperationResult_Verify{Verify: &pb.VerifyResponse{}}},
		{Result: &pb.OperationResult_GenerateMac{GenerateMac: &pb.GenerateMacResponse{Mac: []byte("m"), Version: 1}}},
		{Result: &pb.OperationResult_VerifyMac{VerifyMac: &pb.VerifyMacResponse{Valid: true}}},
		{Result: &pb.OperationResult_Error{Error: &pb.OperationError{Code: 3, Status: "INVALID_ARGUMENT", Message: "no"}}},
		{Result: &pb.OperationResult_GenerateRandom{GenerateRandom: &pb.GenerateRandomResponse{Data: []byte("r")}}},
		{},
	}
}

// TestResponsesAreWritten as proto writes them, to the byte.
func TestResponsesAreWritten(t *testing.T) {
	all := []proto.Message{&pb.EncryptResponse{}, &pb.BatchResponse{}, &pb.BatchResponse{Results: results()}}
	for i, r := range results() {
		all = append(all, &pb.PipelineResponse{Id: uint64(i * i * 100), Result: r})
		if response := r.ProtoReflect().WhichOneof(r.ProtoReflect().Descriptor().Oneofs().Get(0)); response != nil && i < 7 {
			all = append(all, r.ProtoReflect().Get(response).Message().Interface())
		}
	}
	for i, m := range all {
		want := encode(t, m)
		size, ok := Size(m)
		if !ok || size != len(want) {
			t.Errorf("%d: %T has %d bytes (%t), want %d", i, m, size, ok, len(want))
		}
		if got, err := Append([]byte("before"), m); err != nil || string(got) != "before"+string(want) {
			t.Errorf("%d: %T is %x, %v, want %x", i, m, got, err, want)
		}
	}
}

func TestOtherMessagesAreNotWritten(t *testing.T) {
	for _, m := range []any{&pb.Key{}, (*pb.EncryptResponse)(nil), (*pb.BatchResponse)(nil), &pb.PipelineResponse{Id: 1}, nil, "text"} {
		if _, ok := Size(m); ok {
			t.Errorf("%T is taken on", m)
		}
	}
	broken := &pb.BatchResponse{Results: []*pb.OperationResult{{Result: &pb.OperationResult_Error{Error: &pb.OperationError{Message: "\xff"}}}}}
	if _, err := Append(nil, broken); err == nil {
		t.Error("text that is not UTF-8 was written")
	}
}

func batch() *pb.BatchRequest {
	q := &pb.BatchRequest{Namespace: "bench", Key: "sealing"}
	for range 100 {
		q.Operations = append(q.Operations, &pb.Operation{Request: &pb.Operation_Encrypt{Encrypt: &pb.EncryptRequest{Plaintext: make([]byte, 32)}}})
	}
	return q
}

// BenchmarkUnmarshal is the shortcut beside proto.
func BenchmarkUnmarshal(b *testing.B) {
	for name, q := range map[string]proto.Message{"alone": requests()[0], "batch": batch(), "pipelined": requests()[8]} {
		text := encode(b, q)
		b.Run(name+"/flat", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !Unmarshal(text, fresh(q)) {
					b.Fatal("declined")
				}
			}
		})
		b.Run(name+"/proto", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal(text, fresh(q)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppend is the shortcut beside proto.
func BenchmarkAppend(b *testing.B) {
	response := &pb.BatchResponse{}
	for range 100 {
		response.Results = append(response.Results, results()[0])
	}
	for name, m := range map[string]proto.Message{"alone": &pb.EncryptResponse{Ciphertext: make([]byte, 85), Version: 1}, "batch": response} {
		room := make([]byte, 0, proto.Size(m))
		b.Run(name+"/flat", func(b *testing.B) {
			for b.Loop() {
				_, _ = Size(m)
				_, _ = Append(room, m)
			}
		})
		b.Run(name+"/proto", func(b *testing.B) {
			for b.Loop() {
				_ = proto.Size(m)
				_, _ = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(room, m)
			}
		})
	}
}

// TestTakeDeclinesLongNumbers shows that a length beyond the end is no slice.
func TestTakeDeclinesLongNumbers(t *testing.T) {
	b := protowire.AppendVarint([]byte{1<<3 | 2}, 1<<63)
	if _, _, ok := take(b); ok {
		t.Error("taken")
	}
}
