package keyring

import "encoding/binary"

const (
	// HeaderSize is the length in bytes of a native ciphertext's header.
	HeaderSize = 13

	formatNative byte = 0x01
)

// Header is what every native ciphertext says in the clear. It is not
// authentic until [Version.Open] has returned.
type Header struct {
	KeyID   uint64
	Version uint32
}

// ParseHeader reads the header of a native ciphertext, without looking at the
// body. Error: ErrFormat.
func ParseHeader(ciphertext []byte) (Header, error) {
	if len(ciphertext) < HeaderSize || ciphertext[0] != formatNative {
		return Header{}, ErrFormat
	}
	return Header{
		KeyID:   binary.BigEndian.Uint64(ciphertext[1:]),
		Version: binary.BigEndian.Uint32(ciphertext[9:]),
	}, nil
}

// AppendTo appends the header's 13 bytes to dst.
func (h Header) AppendTo(dst []byte) []byte {
	dst = append(dst, formatNative)
	dst = binary.BigEndian.AppendUint64(dst, h.KeyID)
	return binary.BigEndian.AppendUint32(dst, h.Version)
}
