package keyring

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// MaxContext is the longest encryption context in bytes of its canonical form.
const MaxContext = 8 << 10

const lengthSize = 4 // a count or a length, big endian

// CanonicalContext gives the one byte form of an encryption context: the number
// of pairs, then the pairs sorted bytewise by key, each key and value preceded
// by its length; numbers are 4 bytes, big endian; strings are UTF-8 as given,
// without normalisation. Different contexts have different forms. An empty map
// is none, nil. Error: InputError for invalid UTF-8 or more than [MaxContext].
func CanonicalContext(pairs map[string]string) ([]byte, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	size := lengthSize
	for k, v := range pairs {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, contextError("keys and values must be valid UTF-8; encode binary data, for example as base64")
		}
		size += 2*lengthSize + len(k) + len(v)
	}
	if size > MaxContext {
		return nil, contextError(fmt.Sprintf("takes %d bytes of at most %d; shorten it, or send a hash of it", size, MaxContext))
	}
	return appendContext(make([]byte, 0, size), pairs), nil
}

func appendContext(dst []byte, pairs map[string]string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(pairs)))
	for _, k := range slices.Sorted(maps.Keys(pairs)) {
		dst = appendString(appendString(dst, k), pairs[k])
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}

// ParseContext is the strict inverse of [CanonicalContext]: it accepts exactly
// the bytes that CanonicalContext gives. Empty bytes are no pairs, nil. Error:
// InputError.
func ParseContext(canonical []byte) (map[string]string, error) {
	if len(canonical) == 0 {
		return nil, nil
	}
	if len(canonical) > MaxContext {
		return nil, contextError(fmt.Sprintf("takes %d bytes of at most %d", len(canonical), MaxContext))
	}
	pairs, ok := parsePairs(canonical)
	if !ok {
		return nil, contextError("not in canonical form")
	}
	return pairs, nil
}

func parsePairs(b []byte) (map[string]string, bool) {
	count, b, ok := cutUint32(b)
	// Each pair has two lengths: a larger count is a lie, and must not size a map.
	if !ok || count == 0 || int64(count) > int64(len(b)/(2*lengthSize)) {
		return nil, false
	}
	pairs := make(map[string]string, count)
	previous := ""
	for i := range count {
		var key, value string
		if key, b, ok = cutString(b); !ok || i > 0 && key <= previous {
			return nil, false
		}
		if value, b, ok = cutString(b); !ok {
			return nil, false
		}
		pairs[key], previous = value, key
	}
	return pairs, len(b) == 0
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	n, b, ok := cutUint32(b)
	if !ok || int64(n) > int64(len(b)) || !utf8.Valid(b[:n]) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

func cutUint32(b []byte) (n uint32, rest []byte, ok bool) {
	if len(b) < lengthSize {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(b), b[lengthSize:], true
}

func contextError(reason string) error {
	return &InputError{Field: "encryption_context", Reason: reason}
}
