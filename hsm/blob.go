package hsm

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
)

// Sizes of what Wrap takes and makes, in bytes.
const (
	MaxPlaintext = 64 << 10    // longest secret that Wrap takes
	MaxAAD       = 64<<10 + 64 // longest additional authenticated data: a caller's, and what is put before it
	blobFormat   = 0x01
	headerSize   = 1 + 1 + keyIDSize + 4
	ivSize       = cryptoki.IVSize
	tagSize      = cryptoki.TagSize
)

// Mechanism says how a blob was wrapped.
type Mechanism byte

// The mechanisms of the root key, by their codes in blobs.
const (
	// MechanismAESGCM is CKM_AES_GCM in the token with a random 96-bit IV made by
	// Keywright and a 128-bit tag (NIST SP 800-38D).
	MechanismAESGCM Mechanism = 0x01
	// MechanismAESGCMHSMIV is the same with an IV that the HSM makes and writes into
	// the parameters.
	MechanismAESGCMHSMIV Mechanism = 0x02
	// MechanismAESKW is CKM_AES_KEY_WRAP (0x2109; RFC 3394, NIST SP 800-38F).
	MechanismAESKW Mechanism = 0x03
	// MechanismRSAOAEP is CKM_RSA_PKCS_OAEP (RFC 8017), with a MAC or signature made
	// in the token.
	MechanismRSAOAEP Mechanism = 0x04
)

var mechanismNames = map[Mechanism]string{
	MechanismAESGCM:      "aes-gcm",
	MechanismAESGCMHSMIV: "aes-gcm-hsm-iv",
	MechanismAESKW:       "aes-kw",
	MechanismRSAOAEP:     "rsa-oaep",
}

// String returns the name that profiles.yaml uses, or a number.
func (m Mechanism) String() string {
	if name, ok := mechanismNames[m]; ok {
		return name
	}
	return fmt.Sprintf("0x%02x", byte(m))
}

// MarshalText returns the name.
func (m Mechanism) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads a name.
func (m *Mechanism) UnmarshalText(text []byte) error {
	for mechanism, name := range mechanismNames {
		if name == string(text) {
			*m = mechanism
			return nil
		}
	}
	return fmt.Errorf("%w: root wrap mechanism %q is unknown", ErrInvalidArgument, text)
}

// BlobInfo is a wrap blob, taken apart. Its bytes begin with
//
//	byte  0        format, 0x01
//	byte  1        mechanism
//	bytes 2..17    CKA_ID of the root key
//	bytes 18..21   version of the root key, big endian
//
// With AES-GCM in the token (mechanism 0x01, or 0x02 where the HSM makes the IV) follow
//
//	byte  22       length of the IV, 12
//	bytes 23..34   IV
//	rest           ciphertext ‖ tag (16 bytes)
//
// and the token authenticates bytes 0..21 followed by the caller's AAD. With AES-KW
// (0x03) and RSA-OAEP (0x04), which protect a data key that the rest is encrypted
// under, follow
//
//	2 bytes        length of the wrapped data key, big endian: 40, or 384 for RSA-3072
//	               wrapped data key
//	1 byte         length of the proof: 0 for AES-KW, 32 of HMAC or 64 of ECDSA
//	               proof, a MAC or signature made in the token
//	rest           ciphertext ‖ tag: AES-256-GCM under the data key, with an IV of zeros
//
// The data key authenticates all before the proof, followed by the caller's AAD, and
// the proof is over a hash of that and of the ciphertext. So no part of a blob can be
// changed unseen.
type BlobInfo struct {
	Mechanism   Mechanism
	Root        KeyID
	RootVersion uint32
	IV          []byte // 12 bytes; nil but for AES-GCM in the token
	WrappedKey  []byte // nil for AES-GCM in the token
	Proof       []byte // empty but for RSA-OAEP
	Ciphertext  []byte // with tag, at least 17 bytes
}

const (
	minBlob = headerSize + 1 + tagSize
	maxBlob = headerSize + 1 + ivSize + MaxPlaintext + tagSize + 1024 // wrapped key and proof
)

// ParseBlob takes a wrap blob apart, without the token. It accepts exactly what
// Wrap makes; the error is ErrBlob. The result shares no memory with blob.
func ParseBlob(blob []byte) (BlobInfo, error) {
	if len(blob) < minBlob || len(blob) > maxBlob {
		return BlobInfo{}, fmt.Errorf("%w: length %d, want %d to %d", ErrBlob, len(blob), minBlob, maxBlob)
	}
	if blob[0] != blobFormat {
		return BlobInfo{}, fmt.Errorf("%w: unknown format 0x%02x", ErrBlob, blob[0])
	}
	info := BlobInfo{
		Mechanism:   Mechanism(blob[1]),
		Root:        KeyID(blob[2 : 2+keyIDSize]),
		RootVersion: binary.BigEndian.Uint32(blob[2+keyIDSize:]),
	}
	parse := map[Mechanism]func(*BlobInfo, []byte) error{
		MechanismAESGCM: (*BlobInfo).parseGCM, MechanismAESGCMHSMIV: (*BlobInfo).parseGCM,
		MechanismAESKW: (*BlobInfo).parseWrapped, MechanismRSAOAEP: (*BlobInfo).parseWrapped,
	}[info.Mechanism]
	if parse == nil {
		return BlobInfo{}, fmt.Errorf("%w: unknown mechanism 0x%02x", ErrBlob, blob[1])
	}
	if err := parse(&info, append([]byte(nil), blob[headerSize:]...)); err != nil {
		return BlobInfo{}, err
	}
	if n := len(info.Ciphertext) - tagSize; n < 1 || n > MaxPlaintext {
		return BlobInfo{}, fmt.Errorf("%w: %d bytes of plaintext, want 1 to %d", ErrBlob, n, MaxPlaintext)
	}
	return info, nil
}

func (b *BlobInfo) parseGCM(body []byte) error {
	if body[0] != ivSize {
		return fmt.Errorf("%w: IV of %d bytes, want %d", ErrBlob, body[0], ivSize)
	}
	if len(body) < 1+ivSize {
		return fmt.Errorf("%w: no ciphertext", ErrBlob)
	}
	b.IV, b.Ciphertext = body[1:1+ivSize:1+ivSize], body[1+ivSize:]
	return nil
}

// wrappedKeySizes and proofSizes are the lengths of wrapped keys and of proofs.
var (
	wrappedKeySizes = map[Mechanism][]int{MechanismAESKW: {wrappedKeySize}, MechanismRSAOAEP: {3072 / 8}}
	proofSizes      = map[Mechanism][]int{MechanismAESKW: {0}, MechanismRSAOAEP: {32, 64}}
)

func (b *BlobInfo) parseWrapped(body []byte) error {
	size, body := int(binary.BigEndian.Uint16(body)), body[2:]
	if !slices.Contains(wrappedKeySizes[b.Mechanism], size) || len(body) < size+1 {
		return fmt.Errorf("%w: wrapped key of %d bytes", ErrBlob, size)
	}
	b.WrappedKey, body = body[:size:size], body[size:]
	size, body = int(body[0]), body[1:]
	if !slices.Contains(proofSizes[b.Mechanism], size) || len(body) < size {
		return fmt.Errorf("%w: proof of %d bytes", ErrBlob, size)
	}
	b.Proof, b.Ciphertext = body[:size:size], body[size:]
	return nil
}

// bytes is the inverse of ParseBlob.
func (b BlobInfo) bytes() []byte {
	blob := b.header()
	if b.Mechanism == MechanismAESGCM || b.Mechanism == MechanismAESGCMHSMIV {
		return slices.Concat(blob, []byte{byte(len(b.IV))}, b.IV, b.Ciphertext)
	}
	blob = binary.BigEndian.AppendUint16(blob, uint16(len(b.WrappedKey)))
	return slices.Concat(blob, b.WrappedKey, []byte{byte(len(b.Proof))}, b.Proof, b.Ciphertext)
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

// rootMechanisms are those that a root key can be made and used with.
var rootMechanisms = []Mechanism{MechanismAESGCM, MechanismAESGCMHSMIV, MechanismAESKW, MechanismRSAOAEP}
