package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server/internal/gate"
)

// errorBody is the JSON of an error. Code is the number of the gRPC status code
// and Status its name, as in google.rpc.
type errorBody struct {
	Code      int    `json:"code"`
	Status    string `json:"status"`
	Message   string `json:"message"`
	Reason    string `json:"reason,omitempty"`
	Field     string `json:"field,omitempty"`
	RequestID string `json:"requestId"`
}

func errorJSON(e *kms.Error, requestID string) []byte {
	text, err := json.Marshal(errorBody{int(gate.GRPCCode(e)), string(e.Code), e.Message, e.Reason, e.Field, requestID})
	if err != nil { // cannot be: invalid UTF-8 is replaced
		return []byte(`{"code":13,"status":"INTERNAL"}`)
	}
	return text
}

// strictJSON is the gateway's marshaler: protojson that refuses what it does not
// know, and writes default values too, so that "valid": false is not left out.
type strictJSON struct{}

func (strictJSON) ContentType(any) string { return jsonType }

func (strictJSON) Marshal(v any) ([]byte, error) {
	if m, ok := v.(proto.Message); ok {
		return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	}
	return json.Marshal(v)
}

func (strictJSON) Unmarshal(data []byte, v any) error {
	if err := readJSON(data, v.(proto.Message)); err != nil {
		return err
	}
	return nil
}

func (strictJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error { return decodeBody(r.(*body), v.(proto.Message)) })
}

func (s strictJSON) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		text, err := s.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
}

// body is a request's body on its way through the gateway, which turns errors
// into text: fault keeps the error itself.
type body struct {
	*bytes.Reader
	fault *kms.Error
}

// Close implements io.Closer.
func (*body) Close() error { return nil }

// decodeBody reads the whole body; an empty one is an empty message.
func decodeBody(b *body, m proto.Message) error {
	data, err := io.ReadAll(b)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return err
	}
	if b.fault = readJSON(data, m); b.fault != nil {
		return b.fault
	}
	return nil
}

func readJSON(data []byte, m proto.Message) *kms.Error {
	if protojson.Unmarshal(data, m) == nil {
		return nil
	}
	if !json.Valid(data) {
		return &kms.Error{Code: kms.InvalidArgument, Reason: "INVALID_JSON", Message: "the body is not valid JSON"}
	}
	field, problem := locate(data, m.ProtoReflect(), "")
	field = clip(strings.TrimSuffix(field, "."))
	return &kms.Error{Code: kms.InvalidArgument, Reason: "INVALID_JSON", Field: field, Message: problem}
}

// locate finds the field that protojson stumbled over, because its error is
// text that also repeats the value. It tries the fields one by one.
func locate(data []byte, m protoreflect.Message, path string) (field, problem string) {
	var values map[string]json.RawMessage
	if json.Unmarshal(data, &values) != nil {
		return path, label(path) + " must be a JSON object"
	}
	for name, value := range values {
		field := path + name
		descriptor := fieldOf(m.Descriptor(), name)
		if descriptor == nil {
			return field, fmt.Sprintf("%q is not a field of this request", clip(field))
		}
		alone, err := json.Marshal(map[string]json.RawMessage{name: value})
		if err != nil || protojson.Unmarshal(alone, m.New().Interface()) == nil {
			continue
		}
		if isNested(descriptor) {
			return locate(value, m.New().NewField(descriptor).Message(), field+".")
		}
		return field, field + " must be " + expected(descriptor)
	}
	return path, label(path) + " has a field twice, or several fields that exclude each other"
}

// label names what a path of fields, which ends in a dot, leads to.
func label(path string) string {
	if path == "" {
		return "the body"
	}
	return strings.TrimSuffix(path, ".")
}

// isNested tells a message of the API from lists, maps and well-known types,
// whose JSON is not that of their fields.
func isNested(f protoreflect.FieldDescriptor) bool {
	m := f.Message()
	return m != nil && !f.IsMap() && !f.IsList() && m.ParentFile().Package() == f.ParentFile().Package()
}

func fieldOf(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := d.Fields().ByJSONName(name); f != nil {
		return f
	}
	return d.Fields().ByName(protoreflect.Name(name))
}

// expected says what a field's JSON looks like.
func expected(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "an object of strings"
	case f.IsList():
		return "a list"
	}
	switch f.Kind() {
	case protoreflect.BytesKind:
		return "a string in base64"
	case protoreflect.StringKind:
		return "a string of valid UTF-8"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.EnumKind:
		return "the name of a value of " + string(f.Enum().Name())
	case protoreflect.MessageKind:
		return wellKnown(f.Message().FullName())
	}
	return "a whole number in range"
}

func wellKnown(name protoreflect.FullName) string {
	switch name {
	case "google.protobuf.Duration":
		return `a duration in seconds, such as "3600s"`
	case "google.protobuf.Timestamp":
		return `a time, such as "2026-01-31T12:00:00Z"`
	}
	return "an object"
}
