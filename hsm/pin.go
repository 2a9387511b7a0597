package hsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
)

// maxPIN is the longest PIN accepted, in bytes; PKCS#11 tokens stop at 255.
const maxPIN = 255

// PIN is the user's PIN of a token. It prints as [redacted].
type PIN struct{ value []byte }

const redacted = "[redacted]"

// NewPIN takes a copy of value.
func NewPIN(value []byte) PIN { return PIN{bytes.Clone(value)} }

// Reveal returns the PIN's own bytes, for whoever hands it to a worker and
// overwrites it then.
func (p PIN) Reveal() []byte { return p.value }

// String returns [redacted].
func (PIN) String() string { return redacted }

// GoString returns [redacted].
func (PIN) GoString() string { return redacted }

// Format prints [redacted] for every verb.
func (PIN) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON returns "[redacted]".
func (PIN) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns [redacted].
func (PIN) LogValue() slog.Value { return slog.StringValue(redacted) }

// PINSource returns the PIN; it is called at each login, from one goroutine at a
// time. The PIN is overwritten once it was used.
type PINSource func() (PIN, error)

// bytes returns the PIN's own bytes, which the login overwrites. A PIN that cannot
// be read now can be later, perhaps.
func (source PINSource) bytes() ([]byte, error) {
	pin, err := source()
	if err != nil {
		return nil, fault(ClassDevice, err)
	}
	return pin.value, nil
}

// PINFromFile reads the PIN from a file's first line, at each login.
func PINFromFile(path string) PINSource {
	return func() (PIN, error) {
		f, err := os.Open(path)
		if err != nil {
			return PIN{}, fmt.Errorf("PIN file: %w", err)
		}
		defer f.Close()
		return readPIN(f, "PIN file "+path)
	}
}

// PINFromEnv reads the PIN from an environment variable, at each login.
func PINFromEnv(name string) PINSource {
	return func() (PIN, error) {
		return parsePIN([]byte(os.Getenv(name)), "PIN variable "+name)
	}
}

// PINFromFD reads the PIN from an open file descriptor, such as a pipe, closes it,
// and keeps the PIN in memory for later logins.
func PINFromFD(fd uintptr) PINSource {
	read := sync.OnceValues(func() (PIN, error) {
		what := fmt.Sprintf("PIN descriptor %d", fd)
		f := os.NewFile(fd, what)
		if f == nil {
			return PIN{}, errors.New(what + " is not open")
		}
		defer f.Close()
		return readPIN(f, what)
	})
	return func() (PIN, error) {
		pin, err := read()
		return NewPIN(pin.value), err
	}
}

func readPIN(r io.Reader, what string) (PIN, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxPIN+3)) // a PIN, "\r\n", and a byte too many
	if err != nil {
		return PIN{}, fmt.Errorf("%s: %w", what, err)
	}
	return parsePIN(content, what)
}

// parsePIN strips one line end. Anything else, blanks too, may be part of a PIN.
func parsePIN(content []byte, what string) (PIN, error) {
	value := bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(value) == 0 || len(value) > maxPIN || bytes.ContainsAny(value, "\x00\r\n") {
		return PIN{}, fmt.Errorf("%s: want one line of 1 to %d bytes", what, maxPIN)
	}
	return PIN{value}, nil
}
