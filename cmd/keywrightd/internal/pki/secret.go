package pki

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// secret makes a type that embeds it print as [redacted].
type secret struct{}

// String returns [redacted].
func (secret) String() string { return redacted }

// GoString returns [redacted].
func (secret) GoString() string { return redacted }

// Format prints [redacted] for every verb.
func (secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "[redacted]".
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns [redacted].
func (secret) LogValue() slog.Value { return slog.StringValue(redacted) }
