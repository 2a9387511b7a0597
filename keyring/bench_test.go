package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

// Each benchmark has its floor beside it, the bare primitive on the same bytes;
// ratios within one run mean something, times alone do not.

var benchPlaintext = bytes.Repeat([]byte("x"), 32)

func BenchmarkSeal(b *testing.B) {
	for _, a := range usable(PurposeEncryptDecrypt) {
		v := newTestVersion(b, a)
		for kind, aad := range map[string]AAD{"noaad": NoAAD(), "aad": RawAAD(bytes.Repeat([]byte("a"), 64))} {
			b.Run(a.name+"/"+kind, func(b *testing.B) {
				buffer := make([]byte, 0, 256)
				b.ReportAllocs()
				for b.Loop() {
					_, _ = v.Seal(buffer, benchPlaintext, aad)
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, a := range usable(PurposeEncryptDecrypt) {
		v := newTestVersion(b, a)
		ct := must[[]byte](b)(v.Seal(nil, benchPlaintext, NoAAD()))
		b.Run(a.name, func(b *testing.B) {
			buffer := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Open(buffer, ct, NoAAD())
			}
		})
	}
}

func BenchmarkFloorGCM(b *testing.B) {
	block := must[cipher.Block](b)(aes.NewCipher(make([]byte, 32)))
	c := must[cipher.AEAD](b)(cipher.NewGCMWithRandomNonce(block))
	aad := make([]byte, HeaderSize+1)
	ct := c.Seal(nil, nil, benchPlaintext, aad)
	buffer := make([]byte, 0, 256)
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			c.Seal(buffer, nil, benchPlaintext, aad)
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			_, _ = c.Open(buffer, nil, ct, aad)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, name := range []string{"ED25519", "ECDSA_P256_SHA256"} {
		v := newTestVersion(b, row(b, name))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = v.Sign(benchPlaintext, SignOptions{})
			}
		})
	}
}

func BenchmarkFloorSign(b *testing.B) {
	b.Run("ED25519", func(b *testing.B) {
		key := ed25519.NewKeyFromSeed(make([]byte, 32))
		for b.Loop() {
			ed25519.Sign(key, benchPlaintext)
		}
	})
	b.Run("ECDSA_P256_SHA256", func(b *testing.B) {
		key := must[*ecdsa.PrivateKey](b)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		for b.Loop() {
			digest := sha256.Sum256(benchPlaintext)
			_, _ = ecdsa.SignASN1(rand.Reader, key, digest[:])
		}
	})
}

func BenchmarkMAC(b *testing.B) {
	v := newTestVersion(b, row(b, "HMAC_SHA256"))
	b.ReportAllocs()
	for b.Loop() {
		_, _ = v.MAC(benchPlaintext)
	}
}
