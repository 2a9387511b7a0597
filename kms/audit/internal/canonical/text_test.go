package canonical

import (
	"strings"
	"testing"
)

// TestPlainPrefix puts each byte, and characters of several bytes, at each place of
// texts of each length that is looked at in another way.
func TestPlainPrefix(t *testing.T) {
	special := []string{"é", "\u200b", "\u2028", "\ufeff", "\U0001F511", "\u0085"}
	for b := range 256 {
		special = append(special, string([]byte{byte(b)}))
	}
	for length := range 20 {
		text := strings.Repeat("a", length)
		if got := plainPrefix(text); got != length {
			t.Errorf("%q: %d", text, got)
		}
		for at := range length {
			for _, s := range special {
				mixed := text[:at] + s + text[at+1:]
				if got, want := plainPrefix(mixed), slowly(mixed); got != want {
					t.Fatalf("%q: %d, want %d", mixed, got, want)
				}
			}
		}
	}
}

// slowly finds the prefix one character after another.
func slowly(s string) int {
	for i, r := range s {
		if r == '\uFFFD' || mustEscape(r) { // no text here has that character but for a bad byte
			return i
		}
	}
	return len(s)
}
