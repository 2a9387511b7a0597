package keyring

import "github.com/keywright/keywright/keyring/internal/redact"

// redacted and hidden keep key material out of what programs print.
type (
	redacted      = redact.Redacted
	hidden[T any] = redact.Hidden[T]
)

func hide[T any](v T) hidden[T] { return redact.Hide(v) }
