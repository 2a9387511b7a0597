package keyring

import (
	"fmt"
	"io"
	"log/slog"
)

const redaction = "[redacted]"

// redacted is embedded by types that hold key material: fmt, JSON and slog then
// print a fixed text, whatever the verb.
type redacted struct{}

func (redacted) String() string               { return redaction }
func (redacted) GoString() string             { return redaction }
func (redacted) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, redaction) }
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + redaction + `"`), nil }
func (redacted) MarshalText() ([]byte, error) { return []byte(redaction), nil }
func (redacted) LogValue() slog.Value         { return slog.StringValue(redaction) }

// hidden keeps a secret from fmt where it does not ask for methods, in an
// unexported field of another struct: there it still follows one pointer when
// the verb does not fit, but never two.
type hidden[T any] struct{ value **T }

func hide[T any](v T) hidden[T] {
	p := &v
	return hidden[T]{&p}
}

// get is nil where nothing was hidden.
func (h hidden[T]) get() *T {
	if h.value == nil {
		return nil
	}
	return *h.value
}
