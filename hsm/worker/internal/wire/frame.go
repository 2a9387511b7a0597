package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of a frame, in bytes, without the length in front of it.
const (
	// MaxFrame holds the largest argument and answer there are, a list of some
	// 260,000 keys.
	MaxFrame = 4 << 20

	lengthSize = 4
	headerSize = 1 + 1 + 8
)

// Version is the one version of the format.
const Version = 0x01

// Kind says what a frame is.
type Kind byte

// The kinds, with their bodies as package worker writes them. The server sends the
// first four, the worker the others.
const (
	Hello      Kind = 1 + iota // the configuration
	PIN                        // the user's PIN, once, after Hello
	InitToken                  // in place of Hello and PIN: the token to make
	Request                    // a call: method, arguments
	Ready                      // the token is open: status
	Failed                     // it is not: error; the worker ends
	Answer                     // the call's result
	Refusal                    // the call's error
	kindsBound                 // one more than the last
)

// ErrNonsense means that the peer sent what no peer of this version sends.
var ErrNonsense = errors.New("nonsense on the wire")

// ErrTooLong means that a frame would be longer than MaxFrame.
var ErrTooLong = errors.New("frame is too long")

// Frame is one frame. The body belongs to whoever has the frame.
type Frame struct {
	Kind Kind
	Call uint64
	Body []byte
}

// Append appends a frame whose body the function appends. Nothing is appended when
// the frame would be too long.
func Append(to []byte, kind Kind, call uint64, body func([]byte) []byte) ([]byte, error) {
	start := len(to)
	to = append(to, 0, 0, 0, 0, Version, byte(kind))
	to = binary.BigEndian.AppendUint64(to, call)
	if body != nil {
		to = body(to)
	}
	length := len(to) - start - lengthSize
	if length > MaxFrame {
		clear(to[start:])
		return to[:start], fmt.Errorf("%w: %d bytes, want at most %d", ErrTooLong, length, MaxFrame)
	}
	binary.BigEndian.PutUint32(to[start:], uint32(length))
	return to, nil
}

// bufferSize lets many small frames arrive in one read.
const bufferSize = 64 << 10

// Reader reads frames. It belongs to one goroutine.
type Reader struct{ buffered *bufio.Reader }

// NewReader reads from a stream.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, bufferSize)} }

// Next returns the next frame: io.EOF when the stream ended behind a frame,
// ErrNonsense, or an error of the stream. It takes no more memory than the frame is
// long, MaxFrame at most.
func (r *Reader) Next() (Frame, error) {
	var head [lengthSize + headerSize]byte
	if err := r.read(head[:]); err != nil {
		return Frame{}, err
	}
	length := binary.BigEndian.Uint32(head[:])
	f := Frame{Kind: Kind(head[5]), Call: binary.BigEndian.Uint64(head[6:])}
	switch {
	case length < headerSize || length > MaxFrame:
		return Frame{}, fmt.Errorf("%w: frame of %d bytes, want %d to %d", ErrNonsense, length, headerSize, MaxFrame)
	case head[4] != Version:
		return Frame{}, fmt.Errorf("%w: version %d, want %d", ErrNonsense, head[4], Version)
	case f.Kind == 0 || f.Kind >= kindsBound:
		return Frame{}, fmt.Errorf("%w: unknown kind %d", ErrNonsense, f.Kind)
	}
	f.Body = make([]byte, length-headerSize)
	err := r.read(f.Body)
	if errors.Is(err, io.EOF) && len(f.Body) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return f, err
}

// read fills p, and overwrites what it has taken out of the buffer. It returns
// io.EOF only if nothing at all came.
func (r *Reader) read(p []byte) error {
	for done := 0; done < len(p); {
		if _, err := r.buffered.Peek(1); err != nil {
			if errors.Is(err, io.EOF) && done > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		there, _ := r.buffered.Peek(min(r.buffered.Buffered(), len(p)-done)) // is in the buffer
		done += copy(p[done:], there)
		clear(there)
		_, _ = r.buffered.Discard(len(there))
	}
	return nil
}
