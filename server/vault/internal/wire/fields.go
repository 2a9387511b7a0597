package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/kms"
)

// Fields are those of a request, by name. They are read as the original reads them: a
// number serves as text, text as a number, a boolean or a duration. Missing and null
// are the same. Errors are a *kms.Error that names the field.
type Fields map[string]any

// parseFields reads a JSON object; nothing and null are an empty one.
func parseFields(body []byte) (Fields, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return Fields{}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var fields Fields
	if err := decoder.Decode(&fields); err != nil || decoder.More() {
		return nil, Invalid("", "failed to parse JSON input: the body must be one JSON object")
	}
	if fields == nil {
		fields = Fields{}
	}
	return fields, nil
}

// Has tells whether a field was given, and is not null.
func (f Fields) Has(name string) bool { return f[name] != nil }

// Text returns a text, or a number or boolean as text; "" if it is missing.
func (f Fields) Text(name string) (string, error) {
	switch v := f[name].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", Invalid(name, "must be a text")
}

// Bytes returns what a base64 text holds, nil if the field is missing.
func (f Fields) Bytes(name string) ([]byte, error) {
	if !f.Has(name) {
		return nil, nil
	}
	text, err := f.Text(name)
	if err != nil {
		return nil, err
	}
	return Base64(name, []byte(text))
}

// Base64 decodes a text of the field of that name. What it returns is never nil.
func Base64(name string, text []byte) ([]byte, error) {
	decoded := make([]byte, 0, base64.StdEncoding.DecodedLen(len(text)))
	decoded, err := base64.StdEncoding.AppendDecode(decoded, text)
	if err != nil {
		return nil, Invalid(name, "failed to base64-decode %s", name)
	}
	return decoded, nil
}

// Bool returns a boolean: true and false, 1 and 0, or a text that says one of those.
func (f Fields) Bool(name string) (bool, error) {
	if v, ok := f[name].(bool); ok {
		return v, nil
	}
	text, err := f.Text(name)
	if err != nil || text == "" {
		return false, err
	}
	v, wrong := strconv.ParseBool(text)
	if wrong != nil {
		return false, Invalid(name, "must be true or false")
	}
	return v, nil
}

// Int returns a whole number of at most 32 bits, 0 if it is missing.
func (f Fields) Int(name string) (int, error) {
	text, err := f.Text(name)
	if err != nil || text == "" {
		return 0, err
	}
	number, wrong := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if wrong != nil || number != math.Trunc(number) || math.Abs(number) > math.MaxUint32 {
		return 0, Invalid(name, "must be a whole number")
	}
	return int(number), nil
}

// Version returns the number of a version, 0 for none. "latest" is none, too.
func (f Fields) Version(name string) (uint32, error) {
	if text, _ := f[name].(string); text == "latest" {
		return 0, nil
	}
	n, err := f.Int(name)
	if err == nil && n < 0 {
		err = Invalid(name, "cannot be negative")
	}
	return uint32(max(n, 0)), err
}

// Duration returns a duration: of seconds where it is a number, else as Go writes it,
// also with days ("30d").
func (f Fields) Duration(name string) (time.Duration, error) {
	text, err := f.Text(name)
	if err != nil || text == "" {
		return 0, err
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds >= 0 && seconds < math.MaxInt64/int64(time.Second) {
		return time.Duration(seconds) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, wrong := time.ParseDuration(text)
	if wrong != nil || d < 0 {
		return 0, Invalid(name, "must be a number of seconds, or a duration such as 24h")
	}
	return d, nil
}

// Texts returns a list of texts; one text is split at its commas.
func (f Fields) Texts(name string) (texts []string, err error) {
	list, ok := f[name].([]any)
	if !ok {
		text, err := f.Text(name)
		if err != nil || text == "" {
			return nil, err
		}
		return strings.Split(text, ","), nil
	}
	for _, v := range list {
		text, ok := v.(string)
		if !ok {
			return nil, Invalid(name, "must be a list of texts")
		}
		texts = append(texts, text)
	}
	return texts, nil
}

// Optional returns a pointer to what read returns of a field that was given, else nil.
func Optional[T any](f Fields, name string, read func(string) (T, error)) (*T, error) {
	if !f.Has(name) {
		return nil, nil
	}
	v, err := read(name)
	return &v, err
}

// Reader reads several fields, and keeps the first error.
type Reader struct {
	Fields
	Err error
}

// Get reads a field with one of the methods of Fields.
func Get[T any](r *Reader, name string, read func(string) (T, error)) T {
	v, err := read(name)
	if r.Err == nil {
		r.Err = err
	}
	return v
}

// GetOptional is Get for a field that may be missing: nil then.
func GetOptional[T any](r *Reader, name string, read func(string) (T, error)) *T {
	v, err := Optional(r.Fields, name, read)
	if r.Err == nil {
		r.Err = err
	}
	return v
}

// Invalid is the error of a field, or of the request where field is empty.
func Invalid(field, format string, args ...any) *kms.Error {
	message := fmt.Sprintf(format, args...)
	if field != "" && !strings.Contains(message, field) {
		message = field + " " + message
	}
	return &kms.Error{Code: kms.InvalidArgument, Reason: "INVALID_FIELD", Field: field, Message: message}
}
