package canonical

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Each function appends a field unless it is empty or zero. The name is given as
// it stands in the line: after a comma, in quotes, and with its colon.

// AppendText appends a text.
func AppendText(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return AppendQuoted(append(dst, name...), value)
}

// AppendNumber appends a number in decimal.
func AppendNumber(dst []byte, name string, value uint64) []byte {
	if value == 0 {
		return dst
	}
	return strconv.AppendUint(append(dst, name...), value, 10)
}

// AppendID appends a number as text of 16 hexadecimal digits.
func AppendID(dst []byte, name string, id uint64) []byte {
	if id == 0 {
		return dst
	}
	dst = append(append(dst, name...), '"')
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[id>>shift&0xf])
	}
	return append(dst, '"')
}

// AppendTexts appends a list of texts.
func AppendTexts(dst []byte, name string, values []string) []byte {
	return AppendList(dst, name, values, func(dst []byte, value *string) []byte { return AppendQuoted(dst, *value) })
}

// AppendList appends a list, each item by the given function.
func AppendList[T any](dst []byte, name string, items []T, item func(dst []byte, item *T) []byte) []byte {
	if len(items) == 0 {
		return dst
	}
	dst = append(append(dst, name...), '[')
	for i := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = item(dst, &items[i])
	}
	return append(dst, ']')
}

// AppendPairs appends an object of texts, its names in bytewise order.
func AppendPairs(dst []byte, name string, pairs map[string]string) []byte {
	if len(pairs) == 0 {
		return dst
	}
	var room [16]pair // keeps the common case off the heap
	sorted, valid := room[:0], true
	for key, value := range pairs {
		sorted = append(sorted, pair{key, value})
		valid = valid && utf8.ValidString(key)
	}
	slices.SortFunc(sorted, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	if !valid {
		return AppendPairs(dst, name, withValidKeys(sorted))
	}
	dst = append(append(dst, name...), '{')
	for i, p := range sorted {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendQuoted(dst, p.key), ':')
		dst = AppendQuoted(dst, p.value)
	}
	return append(dst, '}')
}

type pair struct{ key, value string }

// withValidKeys repairs keys before they are sorted for output: afterwards two
// of them may be the same, and a line must not have a name twice.
func withValidKeys(sorted []pair) map[string]string {
	repaired := make(map[string]string, len(sorted))
	for _, p := range sorted {
		repaired[strings.ToValidUTF8(p.key, "\uFFFD")] = p.value
	}
	return repaired
}

// AppendTime writes RFC 3339 with exactly six digits of a second, in UTC. The
// standard library has a fast path only for whole seconds, so those digits are
// put in by hand. A year that RFC 3339 cannot write becomes the zero time.
func AppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		t = time.Time{}
	}
	dst = append(dst, `,"time":"`...)
	dst = t.AppendFormat(dst, time.RFC3339)
	dst[len(dst)-1] = '.'
	micros := t.Nanosecond() / 1000
	for unit := 100_000; unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+micros/unit%10))
	}
	return append(dst, 'Z', '"')
}
