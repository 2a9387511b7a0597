package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"testing"

	"github.com/keywright/keywright/bench/paired"
)

// BenchmarkGuard is what the regression guard compares with its baseline: Seal and
// Open beside the bare cipher.
func BenchmarkGuard(b *testing.B) {
	block := must[cipher.Block](b)(aes.NewCipher(make([]byte, 32)))
	c := must[cipher.AEAD](b)(cipher.NewGCMWithRandomNonce(block))
	buffer, aad := make([]byte, 0, 256), make([]byte, HeaderSize+1)
	sealed := c.Seal(nil, nil, benchPlaintext, aad)
	opened := make([]byte, 0, 256)
	for _, name := range []string{"AES_256_GCM", "XAES_256_GCM"} {
		a, _ := Lookup(name)
		v := newTestVersion(b, a)
		ct := must[[]byte](b)(v.Seal(nil, benchPlaintext, NoAAD()))
		b.Run("seal/"+name, func(b *testing.B) {
			paired.Report(b, func() { _, _ = v.Seal(buffer, benchPlaintext, NoAAD()) }, func() { c.Seal(opened, nil, benchPlaintext, aad) })
		})
		b.Run("open/"+name, func(b *testing.B) {
			paired.Report(b, func() { _, _ = v.Open(buffer, ct, NoAAD()) }, func() { _, _ = c.Open(opened, nil, sealed, aad) })
		})
	}
}
