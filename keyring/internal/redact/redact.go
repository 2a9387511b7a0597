// Package redact keeps secrets out of what programs print.
package redact

import (
	"fmt"
	"io"
	"log/slog"
)

const text = "[redacted]"

// Redacted is embedded by types that hold key material: fmt, JSON and slog then
// print a fixed text, whatever the verb.
type Redacted struct{}

// String returns the fixed text.
func (Redacted) String() string { return text }

// GoString returns the fixed text.
func (Redacted) GoString() string { return text }

// Format writes the fixed text.
func (Redacted) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, text) }

// MarshalJSON returns the fixed text.
func (Redacted) MarshalJSON() ([]byte, error) { return []byte(`"` + text + `"`), nil }

// MarshalText returns the fixed text.
func (Redacted) MarshalText() ([]byte, error) { return []byte(text), nil }

// LogValue returns the fixed text.
func (Redacted) LogValue() slog.Value { return slog.StringValue(text) }

// Hidden keeps a secret from fmt where it does not ask for methods, in an
// unexported field of another struct: there it still follows one pointer when
// the verb does not fit, but never two.
type Hidden[T any] struct{ value **T }

// Hide wraps v.
func Hide[T any](v T) Hidden[T] {
	p := &v
	return Hidden[T]{&p}
}

// Get is nil where nothing was hidden.
func (h Hidden[T]) Get() *T {
	if h.value == nil {
		return nil
	}
	return *h.value
}
