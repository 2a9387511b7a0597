// Package envelope encrypts streams of any length under a data key that a
// Keywright server has wrapped, so that only the data key travels to the server.
//
// A file is
//
//	bytes 0..6    magic, "KWENVEL"
//	byte  7       version, 0x01
//	bytes 8..9    length of the wrapped data key, big endian, 1 to 4096
//	then          the wrapped data key: a native ciphertext of the server over 32 bytes
//	rest          Tink's streaming AEAD AES256_GCM_HKDF_1MB over the data:
//	              0x28 ‖ salt (32 bytes) ‖ nonce prefix (7 bytes) ‖ segments
//
// The stream's key is HKDF-SHA-256(data key, salt, info = bytes 0..7). Segments
// are 1 MiB of ciphertext, each AES-256-GCM with a tag of 16 bytes and the nonce
// prefix ‖ number (32 bits, big endian) ‖ 0x01 in the last segment, else 0x00; the
// first is shorter by the 40 bytes of the stream's header, the last may be
// shorter. So segments cannot be changed, moved, dropped or added, nor can the
// file be cut. The wrapped data key is not part of the associated data, so that
// it can be wrapped anew without touching the data; it needs no other binding,
// since each data key is used for one file and another one opens nothing. An
// AAD or encryption context binds the wrapped data key.
//
// The package holds no state; a stream belongs to one goroutine.
package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
)

const (
	// KeySize is the size of a data key, in bytes.
	KeySize = 32

	magic          = "KWENVEL"
	version        = 1
	prefix         = magic + string(rune(version))
	maxWrappedKey  = 4096
	segmentSize    = 1 << 20
	firstSegmentAt = 0
)

// PrefixSize is how many bytes Detect needs to see.
const PrefixSize = len(prefix)

// Errors of reading a file.
var (
	ErrFormat         = errors.New("not an envelope that this version of keywright can read")
	ErrAuthentication = errors.New("decryption failed: the file was changed or cut, or the data key is another one")
)

// Detect reports whether data begins like an envelope, of whatever version.
func Detect(data []byte) bool { return bytes.HasPrefix(data, []byte(magic)) }

// WriteHeader writes what stands before the stream.
func WriteHeader(w io.Writer, wrappedKey []byte) error {
	if len(wrappedKey) == 0 || len(wrappedKey) > maxWrappedKey {
		return fmt.Errorf("the wrapped data key has %d bytes, want 1 to %d", len(wrappedKey), maxWrappedKey)
	}
	header := binary.BigEndian.AppendUint16([]byte(prefix), uint16(len(wrappedKey)))
	_, err := w.Write(append(header, wrappedKey...))
	return err
}

// ReadHeader reads what WriteHeader wrote and leaves r at the stream. What it
// cannot read is an ErrFormat.
func ReadHeader(r io.Reader) (wrappedKey []byte, err error) {
	var head [PrefixSize + 2]byte
	if err := readFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint16(head[PrefixSize:])
	if string(head[:PrefixSize]) != prefix || size == 0 || size > maxWrappedKey {
		return nil, ErrFormat
	}
	wrappedKey = make([]byte, size)
	return wrappedKey, readFull(r, wrappedKey)
}

func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrFormat
	}
	return err
}

// Seal encrypts all of src to dst under the data key; the header goes before it.
func Seal(dst io.Writer, src io.Reader, key []byte) error {
	stream, err := newStream(key)
	if err != nil {
		return err
	}
	w, err := stream.NewEncryptingWriter(dst, []byte(prefix))
	if err != nil {
		return err
	}
	onlyReader := struct{ io.Reader }{src} // a file would bring a buffer of its own, which is smaller
	if _, err := io.CopyBuffer(w, onlyReader, make([]byte, segmentSize)); err != nil {
		return err
	}
	return w.Close()
}

// Open decrypts to dst the stream that follows the header in src. Each segment
// is verified before its plaintext is written, but that the file was cut shows
// only at its end: on ErrAuthentication, the caller must discard what it got.
func Open(dst io.Writer, src io.Reader, key []byte) error {
	stream, err := newStream(key)
	if err != nil {
		return err
	}
	source := &trackedReader{r: src}
	r, err := stream.NewDecryptingReader(source, []byte(prefix))
	if err != nil {
		return source.explain(err)
	}
	buffer := make([]byte, segmentSize)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if _, err := dst.Write(buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return source.explain(err)
		}
	}
}

func newStream(key []byte) (*subtle.AESGCMHKDF, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("the data key has %d bytes, want %d", len(key), KeySize)
	}
	return subtle.NewAESGCMHKDF(key, "SHA256", KeySize, segmentSize, firstSegmentAt)
}

// trackedReader remembers why reading failed, to tell a broken disk from a
// changed file: the stream itself reports both as it likes.
type trackedReader struct {
	r   io.Reader
	err error
}

func (t *trackedReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		t.err = err
	}
	return n, err
}

func (t *trackedReader) explain(err error) error {
	if t.err != nil {
		return t.err
	}
	return ErrAuthentication
}
