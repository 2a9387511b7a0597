package keyring

import "sync"

// AAD is what a ciphertext is bound to beside its header: nothing, raw bytes, or
// an encryption context. It is a value; the bytes given to it must not change
// while it is in use.
type AAD struct {
	kind byte
	data []byte
}

const (
	kindNone    byte = 0
	kindRaw     byte = 1
	kindContext byte = 2
)

// NoAAD binds to the header alone. It is the zero AAD.
func NoAAD() AAD { return AAD{} }

// RawAAD binds to opaque bytes. Empty bytes are no AAD, because the APIs cannot
// tell an empty field from a missing one.
func RawAAD(b []byte) AAD { return newAAD(kindRaw, b) }

// ContextAAD binds to an encryption context in the form that
// [CanonicalContext] gives. An empty one is no AAD.
func ContextAAD(canonical []byte) AAD { return newAAD(kindContext, canonical) }

func newAAD(kind byte, b []byte) AAD {
	if len(b) == 0 {
		return AAD{}
	}
	return AAD{kind, b}
}

// AppendTo appends to dst what the AEAD authenticates for a ciphertext with the
// header h: the header ‖ kind ‖ bytes.
func (a AAD) AppendTo(dst []byte, h Header) []byte {
	dst = append(h.AppendTo(dst), a.kind)
	return append(dst, a.data...)
}

// aadBuffer is reused between calls: what goes through an interface would
// otherwise be allocated each time.
type aadBuffer struct{ bytes []byte }

// keptAAD bounds what an idle buffer holds on to; only raw AAD is longer than
// an encryption context.
const keptAAD = 2 * MaxContext

var aadBuffers = sync.Pool{New: func() any { return &aadBuffer{make([]byte, 0, 256)} }}

func (b *aadBuffer) release() {
	if cap(b.bytes) <= keptAAD {
		aadBuffers.Put(b)
	}
}
