package hsm

import (
	"encoding/binary"
	"fmt"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Sizes of what Wrap takes and makes, in bytes.
const (
	MaxPlaintext = 64 << 10 // longest secret that Wrap takes
	MaxAAD       = 64 << 10 // longest additional authenticated data
	blobFormat   = 0x01
	headerSize   = 1 + 1 + keyIDSize + 4
	ivSize       = cryptoki.IVSize
	tagSize      = cryptoki.TagSize
)

// Mechanism says how a blob was wrapped.
type Mechanism byte

// MechanismAESGCM is CKM_AES_GCM in the token with a random 96-bit IV made by
// Keywright and a 128-bit tag (NIST SP 800-38D).
const MechanismAESGCM Mechanism = 0x01

// BlobInfo is a wrap blob, taken apart. Its bytes are:
//
//	byte  0        format, 0x01
//	byte  1        mechanism, 0x01 AES-GCM
//	bytes 2..17    CKA_ID of the root key
//	bytes 18..21   version of the root key, big endian
//	byte  22       length of the IV, 12
//	bytes 23..34   IV
//	rest           ciphertext ‖ tag (16 bytes)
//
// The token authenticates bytes 0..21 followed by the caller's AAD, so that no
// part of a blob can be changed unseen.
type BlobInfo struct {
	Mechanism   Mechanism
	Root        KeyID
	RootVersion uint32
	IV          []byte // 12 bytes
	Ciphertext  []byte // with tag, at least 17 bytes
}

// ParseBlob takes a wrap blob apart, without the token. It accepts exactly what
// Wrap makes; the error is ErrBlob. The result shares no memory with blob.
func ParseBlob(blob []byte) (BlobInfo, error) {
	const minimum = headerSize + 1 + ivSize + 1 + tagSize
	const maximum = minimum - 1 + MaxPlaintext
	if len(blob) < minimum || len(blob) > maximum {
		return BlobInfo{}, fmt.Errorf("%w: length %d, want %d to %d", ErrBlob, len(blob), minimum, maximum)
	}
	if blob[0] != blobFormat {
		return BlobInfo{}, fmt.Errorf("%w: unknown format 0x%02x", ErrBlob, blob[0])
	}
	if Mechanism(blob[1]) != MechanismAESGCM {
		return BlobInfo{}, fmt.Errorf("%w: unknown mechanism 0x%02x", ErrBlob, blob[1])
	}
	if blob[headerSize] != ivSize {
		return BlobInfo{}, fmt.Errorf("%w: IV of %d bytes, want %d", ErrBlob, blob[headerSize], ivSize)
	}
	body := append([]byte(nil), blob[headerSize+1:]...)
	return BlobInfo{
		Mechanism:   MechanismAESGCM,
		Root:        KeyID(blob[2 : 2+keyIDSize]),
		RootVersion: binary.BigEndian.Uint32(blob[2+keyIDSize:]),
		IV:          body[:ivSize:ivSize],
		Ciphertext:  body[ivSize:],
	}, nil
}

// bytes is the inverse of ParseBlob.
func (b BlobInfo) bytes() []byte {
	blob := append(b.header(), byte(len(b.IV)))
	blob = append(blob, b.IV...)
	return append(blob, b.Ciphertext...)
}

func (b BlobInfo) header() []byte {
	header := append([]byte{blobFormat, byte(b.Mechanism)}, b.Root[:]...)
	return binary.BigEndian.AppendUint32(header, b.RootVersion)
}

// authenticated is what the token authenticates beside the plaintext. The header
// has a fixed size, so the two parts cannot be shifted into each other.
func (b BlobInfo) authenticated(aad []byte) []byte {
	return append(b.header(), aad...)
}
