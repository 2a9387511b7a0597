// Package canonical writes and reads the one spelling that a line of the audit
// log has: JSON without spaces, fields in a given order and left out when empty,
// names in a map sorted, no character that could break or disguise a line. It
// knows no field and keeps no state.
package canonical

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// mustEscape tells the characters that a line never shows raw: JSON's own, all
// control characters, and those that break lines, reorder or hide text in a
// terminal. The set is fixed: were it to follow the Unicode tables, lines of an
// older release would no longer be canonical.
func mustEscape(r rune) bool {
	switch {
	case r < 0x20, r == '"', r == '\\', 0x7f <= r && r <= 0x9f:
		return true
	case r < 0x200b:
		return false
	}
	return r <= 0x200f || 0x2028 <= r && r <= 0x202e || 0x2060 <= r && r <= 0x206f || r == 0xfeff
}

// AppendQuoted appends s in quotes. Bytes that are not UTF-8 become U+FFFD.
func AppendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for s != "" {
		plain := plainPrefix(s)
		dst = append(dst, s[:plain]...)
		if s = s[plain:]; s == "" {
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		dst = appendEscaped(dst, r)
		s = s[size:]
	}
	return append(dst, '"')
}

// plainPrefix returns how many bytes of s can stand in a line as they are.
func plainPrefix(s string) int {
	i := 0
	for i+8 <= len(s) && plainWord(word(s[i:])) {
		i += 8
	}
	if i+8 > len(s) && plainEnd(s) {
		return len(s)
	}
	for i < len(s) {
		if c := s[i]; 0x20 <= c && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if size == 1 && r == utf8.RuneError || mustEscape(r) {
			return i
		}
		i += size
	}
	return len(s)
}

// plainEnd looks at the last eight bytes of s, or at all of four to seven, of which
// it sees some twice. False says that it cannot tell.
func plainEnd(s string) bool {
	switch n := len(s); {
	case n >= 8:
		return plainWord(word(s[n-8:]))
	case n >= 4:
		return plainWord(half(s) | half(s[n-4:])<<32)
	}
	return false
}

// word returns the first eight bytes of s.
func word(s string) uint64 { return binary.LittleEndian.Uint64([]byte(s[:8])) } // which copies nothing

// half returns the first four bytes of s.
func half(s string) uint64 { return uint64(binary.LittleEndian.Uint32([]byte(s[:4]))) }

// plainWord looks at eight bytes at once: in each, the top bit shows whether it
// is a control, a quote, a backslash or not ASCII.
func plainWord(x uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote, backslash := x^'"'*ones, x^'\\'*ones
	special := x | (x + ones) | (x - 0x20*ones) | (quote - ones) | (backslash - ones)
	return special&tops == 0
}

func appendEscaped(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case utf8.RuneError: // stands for an invalid byte; printable itself
		return utf8.AppendRune(dst, r)
	}
	return append(dst, '\\', 'u',
		hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}

// cutQuoted reads a quoted string from the start of s as AppendQuoted writes
// it, and returns its value and what follows. Any other spelling is refused.
func cutQuoted(s string) (value, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		return "", "", false
	}
	s = s[1:]
	plain := plainPrefix(s)
	if plain < len(s) && s[plain] == '"' { // nothing was escaped: share the line's memory
		return s[:plain], s[plain+1:], true
	}
	var unescaped strings.Builder
	for plain < len(s) && s[plain] != '"' {
		r, size := cutEscape(s[plain:])
		if size == 0 {
			return "", "", false
		}
		unescaped.WriteString(s[:plain])
		unescaped.WriteRune(r)
		s = s[plain+size:]
		plain = plainPrefix(s)
	}
	if plain == len(s) {
		return "", "", false
	}
	unescaped.WriteString(s[:plain])
	return unescaped.String(), s[plain+1:], true
}

// cutEscape reads one escape; a size of 0 says that there is none, or not one
// that appendEscaped would have written.
func cutEscape(s string) (r rune, size int) {
	if len(s) < 2 || s[0] != '\\' {
		return 0, 0
	}
	if s[1] == '"' || s[1] == '\\' {
		return rune(s[1]), 2
	}
	if len(s) < 6 || s[1] != 'u' {
		return 0, 0
	}
	for _, digit := range []byte(s[2:6]) {
		value := strings.IndexByte(hexDigits, digit)
		if value < 0 {
			return 0, 0
		}
		r = r<<4 | rune(value)
	}
	if r == '"' || r == '\\' || !mustEscape(r) {
		return 0, 0
	}
	return r, 6
}
