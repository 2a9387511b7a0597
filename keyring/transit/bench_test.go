package transit

import (
	"crypto/rand"
	"testing"
)

func BenchmarkEncrypt100x32(b *testing.B) {
	typ, _ := LookupType("aes256-gcm96")
	s := Settings{Type: typ}
	m, _ := s.Generate(rand.Reader)
	v, _ := NewVersion(s, 1, m)
	pt := make([]byte, 32)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		for range 100 {
			if _, err := v.Encrypt(buf, pt, Params{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "items/s")
}

func BenchmarkDecrypt100x32(b *testing.B) {
	typ, _ := LookupType("aes256-gcm96")
	s := Settings{Type: typ}
	m, _ := s.Generate(rand.Reader)
	v, _ := NewVersion(s, 1, m)
	ct, _ := v.Encrypt(nil, make([]byte, 32), Params{})
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		for range 100 {
			_, body, err := ParseVersion("ciphertext", ct)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := v.Decrypt(buf, body, Params{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "items/s")
}
