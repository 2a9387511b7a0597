package token

import (
	"hash/crc32"
	"math/big"
	"strings"
)

const (
	// Prefix starts every token.
	Prefix = "kwt_"

	checksumDigits = 6
	digits         = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" // as math/big writes base 62
	// maxBody is the largest payload with its signature, in bytes.
	maxBody = MaxPayload + 64
	// maxText is the length of the longest token: a base-62 digit holds 5.954 bits.
	maxText = len(Prefix) + (maxBody*8*1000)/5954 + 1 + checksumDigits
)

// encode writes body, whose first byte is not zero, as a token's text.
func encode(body []byte) string {
	text := Prefix + new(big.Int).SetBytes(body).Text(len(digits))
	return text + checksum(text)
}

// decode is the inverse of encode and accepts nothing else.
func decode(text string) (body []byte, ok bool) {
	if len(text) > maxText || len(text) <= len(Prefix)+checksumDigits || !strings.HasPrefix(text, Prefix) {
		return nil, false
	}
	rest, sum := text[:len(text)-checksumDigits], text[len(text)-checksumDigits:]
	number := rest[len(Prefix):]
	if sum != checksum(rest) || number[0] == digits[0] || strings.Trim(number, digits) != "" {
		return nil, false
	}
	n, ok := new(big.Int).SetString(number, len(digits))
	if !ok {
		return nil, false
	}
	return n.Bytes(), true
}

func checksum(text string) string {
	n := crc32.ChecksumIEEE([]byte(text))
	var out [checksumDigits]byte
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = digits[n%uint32(len(digits))]
		n /= uint32(len(digits))
	}
	return string(out[:])
}
