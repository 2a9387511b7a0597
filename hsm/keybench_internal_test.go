package hsm

import (
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm/internal/cryptoki"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// residentCase is a use, and how a bare loop does the same.
type residentCase struct {
	algorithm, floor string
	use              Use
	bare             func(*cryptoki.Session, heldKey, cryptoki.Handle, []byte) error
}

var residentCases = []residentCase{
	{"ECDSA_P256_SHA256", "bare", UseSign, bareSign},
	{"ECDSA_P256_SHA256", "verified", UseSign, bareSignVerified},
	{"RSA_PKCS1_2048_SHA256", "bare", UseSign, bareSign},
	{"AES_256_GCM", "bare", UseEncrypt, bareEncrypt},
	{"HMAC_SHA256", "bare", UseMAC, bareMAC},
}

// BenchmarkResident compares a device, with 1 and with 8 callers, with bare loops of
// PKCS#11 calls on as many sessions, in turns, so that both see the same machine. It
// reports the device's rate and its ratio to the bare loops'. The device verifies each
// signature, which with ECDSA takes as long as signing does in software; bare loops of
// the name "verified" do so too, the others do not.
func BenchmarkResident(b *testing.B) {
	for _, c := range residentCases {
		for _, callers := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%s/callers=%d", c.algorithm, c.floor, callers), func(b *testing.B) { c.compare(b, callers) })
		}
	}
}

func (c residentCase) compare(b *testing.B, callers int) {
	const round = 64 // uses by each caller, before it is the other's turn
	d, k := residentBench(b, c.algorithm)
	data := make([]byte, 32)
	_, _ = rand.Read(data)
	bare := make([]func() error, callers)
	ours := make([]func() error, callers)
	for i := range callers {
		s, err := d.conn.Load().Fresh()
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(s.Close)
		key, err := s.Find(k.row.Object(k.ID))
		if err != nil {
			b.Fatal(err)
		}
		bare[i] = func() error { return c.bare(s, k, key, data) }
		ours[i] = func() error {
			_, err := d.UseKey(b.Context(), k.ID, k.Algorithm, c.use, data, nil)
			return err
		}
	}
	var took [2]time.Duration
	rounds := 0
	for b.Loop() {
		took[0] += together(b, ours, round)
		took[1] += together(b, bare, round)
		rounds++
	}
	b.ReportMetric(float64(rounds*round*callers)/took[0].Seconds(), "uses/s")
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "of-bare")
	b.ReportMetric(0, "ns/op") // of both, and so of neither
}

// together runs each function a number of times, all at once.
func together(b *testing.B, fns []func() error, times int) time.Duration {
	b.Helper()
	var group sync.WaitGroup
	begun := time.Now()
	for _, fn := range fns {
		group.Go(func() {
			for range times {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	return time.Since(begun)
}

func residentBench(b *testing.B, name string) (*Device, heldKey) {
	b.Helper()
	token := softhsmtest.Token(b)
	d, err := Open(b.Context(), Config{Module: token.Module, TokenLabel: token.Label, PIN: PINFromFile(token.PINFile)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	key, err := d.GenerateKey(b.Context(), newKeyID(), name)
	if err != nil {
		b.Fatal(err)
	}
	k, err := d.knownKey(key.ID, name)
	if err != nil {
		b.Fatal(err)
	}
	return d, k
}

func bareSign(s *cryptoki.Session, k heldKey, key cryptoki.Handle, data []byte) error {
	_, err := s.Sign(key, k.row.Signing.Mechanism(), k.row.Signing.Input(data), k.row.Signing.Size())
	return err
}

func bareSignVerified(s *cryptoki.Session, k heldKey, key cryptoki.Handle, data []byte) error {
	raw, err := s.Sign(key, k.row.Signing.Mechanism(), k.row.Signing.Input(data), k.row.Signing.Size())
	if err != nil {
		return err
	}
	signature, err := k.row.Signing.Encode(raw)
	if err == nil && !k.row.Signing.Verify(k.public, data, signature) {
		err = errWrong
	}
	return err
}

func bareEncrypt(s *cryptoki.Session, _ heldKey, key cryptoki.Handle, data []byte) error {
	iv := make([]byte, ivSize)
	_, _ = rand.Read(iv)
	_, err := s.Encrypt(key, cryptoki.GCM(iv, nil), data, len(data)+tagSize)
	return err
}

func bareMAC(s *cryptoki.Session, k heldKey, key cryptoki.Handle, data []byte) error {
	_, err := s.Sign(key, cryptoki.Plain(k.row.Use), data, k.row.Hash.Size())
	return err
}
