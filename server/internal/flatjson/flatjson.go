// Package flatjson reads and writes the JSON of small flat messages: one object
// of base64 texts, whole numbers, booleans and enum names, or a list of such. It is a
// shortcut for hot methods over HTTP, not a JSON parser: whatever is unusual it
// declines, for protojson or encoding/json to read or to refuse. What it does read, it
// reads as they do (https://protobuf.dev/programming-guides/json/).
//
// Functions are pure and safe for concurrent use; values point into buffers
// that the caller owns.
package flatjson

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strconv"
)

// Field reads one field of a message M, known by its JSON name.
type Field[M any] struct {
	name string
	read func(*Scanner, *M) bool
}

// Bytes reads a base64 text.
func Bytes[M any](name string, at func(*M) *[]byte) Field[M] {
	return Field[M]{name, func(s *Scanner, m *M) (ok bool) {
		*at(m), ok = s.base64()
		return ok
	}}
}

// Text reads a text of printable ASCII without escapes, as it stands. What m gets points
// into the body.
func Text[M any](name string, at func(*M) *[]byte) Field[M] {
	return Field[M]{name, func(s *Scanner, m *M) bool {
		text, ok := s.text()
		for _, c := range text {
			ok = ok && c >= ' ' && c <= '~' && c != '\\'
		}
		*at(m) = text[:len(text):len(text)]
		return ok
	}}
}

// Uint32 reads a whole number.
func Uint32[M any](name string, at func(*M) *uint32) Field[M] {
	return Field[M]{name, func(s *Scanner, m *M) (ok bool) {
		*at(m), ok = s.uint32()
		return ok
	}}
}

// Bool reads true or false.
func Bool[M any](name string, at func(*M) *bool) Field[M] {
	return Field[M]{name, func(s *Scanner, m *M) (ok bool) {
		*at(m), ok = s.bool()
		return ok
	}}
}

// Enum reads the name of a value, such as those of a generated <Enum>_value.
func Enum[M any, E ~int32](name string, values map[string]int32, at func(*M) *E) Field[M] {
	return Field[M]{name, func(s *Scanner, m *M) bool {
		text, ok := s.text()
		if !ok {
			return false
		}
		value, known := values[string(text)]
		*at(m) = E(value)
		return known
	}}
}

// maxFields bounds the fields of a message: one bit each.
const maxFields = 64

// Scan reads body into m, which must be new, by at most 64 fields, and reports
// whether it could. When it declines, m may be filled in part and must be
// dropped. The bytes that m gets are good until s is used or wiped.
func Scan[M any](s *Scanner, fields []Field[M], body []byte, m *M) bool {
	s.begin(body)
	return object(s, fields, m) && s.end()
}

// ScanList is Scan for a body that is an object of nothing but one list of messages, which
// it appends to list.
func ScanList[M any](s *Scanner, name string, fields []Field[M], body []byte, list []M) ([]M, bool) {
	s.begin(body)
	if !s.next('{') {
		return list, false
	}
	if text, ok := s.text(); !ok || string(text) != name || !s.next(':') || !s.next('[') {
		return list, false
	}
	for {
		var m M
		list = append(list, m)
		if !object(s, fields, &list[len(list)-1]) {
			return list, false
		}
		if s.next(']') {
			return list, s.next('}') && s.end()
		}
		if !s.next(',') {
			return list, false
		}
	}
}

func object[M any](s *Scanner, fields []Field[M], m *M) bool {
	if len(fields) > maxFields || !s.next('{') {
		return false
	}
	if s.next('}') {
		return true
	}
	var seen uint64
	for {
		name, ok := s.text()
		i := find(fields, name)
		if !ok || i < 0 || seen&(1<<i) != 0 || !s.next(':') || !fields[i].read(s, m) {
			return false
		}
		seen |= 1 << i
		if s.next('}') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

func find[M any](fields []Field[M], name []byte) int {
	for i := range fields {
		if fields[i].name == string(name) {
			return i
		}
	}
	return -1
}

// Scanner holds the memory of one Scan at a time, for the next to use again.
// The zero value is ready for use.
type Scanner struct {
	rest  []byte // what is still to be read
	arena []byte // what was decoded
}

func (s *Scanner) begin(body []byte) { s.rest, s.arena = body, slices.Grow(s.arena[:0], len(body)) }

// Wipe overwrites what was decoded and lets go of the body.
func (s *Scanner) Wipe() {
	clear(s.arena)
	s.rest = nil
}

func (s *Scanner) space() {
	for len(s.rest) > 0 {
		switch s.rest[0] {
		case ' ', '\t', '\n', '\r':
			s.rest = s.rest[1:]
		default:
			return
		}
	}
}

// next skips the delimiter c, if it is next.
func (s *Scanner) next(c byte) bool {
	s.space()
	if len(s.rest) == 0 || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

func (s *Scanner) end() bool {
	s.space()
	return len(s.rest) == 0
}

// text reads a string as it stands. What it holds must be compared or decoded
// strictly: escapes and invalid characters are not looked for here.
func (s *Scanner) text() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		return nil, false
	}
	text := s.rest[:end]
	s.rest = s.rest[end+1:]
	return text, true
}

// base64 takes the standard alphabet with padding only. The decoder would skip
// line breaks, which no JSON string can have.
func (s *Scanner) base64() ([]byte, bool) {
	text, ok := s.text()
	if !ok || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, false
	}
	start := len(s.arena)
	decoded, err := base64.StdEncoding.AppendDecode(s.arena, text)
	if err != nil {
		return nil, false
	}
	s.arena = decoded
	return decoded[start:len(decoded):len(decoded)], true
}

// uint32 takes plain digits only: no sign, fraction, exponent or leading zero.
func (s *Scanner) uint32() (uint32, bool) {
	s.space()
	n := 0
	for n < len(s.rest) && s.rest[n] >= '0' && s.rest[n] <= '9' {
		n++
	}
	digits := s.rest[:n]
	if n == 0 || n > 10 || n > 1 && digits[0] == '0' {
		return 0, false
	}
	value, err := strconv.ParseUint(string(digits), 10, 32)
	s.rest = s.rest[n:]
	return uint32(value), err == nil
}

func (s *Scanner) bool() (value, ok bool) {
	s.space()
	for _, word := range [...]string{"true", "false"} {
		if rest, found := bytes.CutPrefix(s.rest, []byte(word)); found {
			s.rest = rest
			return word == "true", true
		}
	}
	return false, false
}

// AppendBytes appends a field with a base64 text to an object that Begin began.
func AppendBytes(dst []byte, name string, value []byte) []byte {
	dst = append(appendName(dst, name), '"')
	dst = base64.StdEncoding.AppendEncode(dst, value)
	return append(dst, '"')
}

// AppendUint32 appends a field with a number.
func AppendUint32(dst []byte, name string, value uint32) []byte {
	return strconv.AppendUint(appendName(dst, name), uint64(value), 10)
}

// AppendBool appends a field with true or false.
func AppendBool(dst []byte, name string, value bool) []byte {
	return strconv.AppendBool(appendName(dst, name), value)
}

// Begin begins an object.
func Begin(dst []byte) []byte { return append(dst, '{') }

// End ends it.
func End(dst []byte) []byte { return append(dst, '}') }

func appendName(dst []byte, name string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}
