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
