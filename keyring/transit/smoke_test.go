package transit

import (
	"bytes"
	"crypto/rand"
	"testing"
)

func TestRoundTrips(t *testing.T) {
	for _, typ := range Types() {
		for _, s := range []Settings{{Type: typ}, {Type: typ, Derived: true}, {Type: typ, Derived: true, Convergent: true}} {
			if s.Check() != nil {
				continue
			}
			t.Run(s.String(), func(t *testing.T) {
				m, err := s.Generate(rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				v, err := NewVersion(s, 7, m)
				if err != nil {
					t.Fatal(err)
				}
				var context []byte
				if s.Derived {
					context = []byte("context")
				}
				p := Params{Context: context}
				if typ.Encrypts() {
					for _, pt := range []string{"", "a", "plaintext of some length, more than two blocks"} {
						ct, err := v.Encrypt([]byte("dst"), []byte(pt), p)
						if err != nil {
							t.Fatal(err)
						}
						n, body, err := ParseVersion("ciphertext", ct[3:])
						if err != nil || n != 7 {
							t.Fatal(n, err, string(ct))
						}
						got, err := v.Decrypt([]byte("dst"), body, p)
						if err != nil || !bytes.Equal(got, []byte("dst"+pt)) {
							t.Fatal(err, string(got))
						}
					}
				}
				if typ.Signs() {
					for _, o := range []SignOptions{{}, {Marshaling: "jws"}, {Algorithm: "pkcs1v15", HashAlgorithm: "sha3-512"}} {
						o.Context = context
						sig, _, err := v.Sign(nil, []byte("message"), o)
						if err != nil {
							t.Fatal(err)
						}
						_, body, _ := ParseVersion("signature", sig)
						if err := v.Verify([]byte("message"), body, o); err != nil {
							t.Fatal(err)
						}
						if err := v.Verify([]byte("message2"), body, o); err == nil {
							t.Fatal("another message verifies")
						}
					}
				}
				tag, err := v.HMAC(nil, []byte("message"), "sha1")
				if err != nil {
					t.Fatal(err)
				}
				_, body, _ := ParseVersion("hmac", tag)
				if err := v.VerifyHMAC([]byte("message"), body, "sha1"); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

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
