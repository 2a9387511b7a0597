package hsm_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keywright/keywright/hsm"
)

// A flood of tampered blobs and ciphertexts: each is told as such, the token stays
// trusted, and memory does not grow, in this process or in the worker's. They are
// large, so that a buffer that is not freed shows soon.
func TestFaultFloodOfTamperedCiphertexts(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		for name, tampered := range map[string]func() error{"wrap blobs": r.tamperedBlob(), "ciphertexts of a resident key": r.tamperedCiphertext()} {
			r.before.keys = r.keys()
			flood(r, name, tampered)
		}
	})
}

// Sizes of a flood. Without a bound it would grow by floodSize times floodBytes.
const (
	floodWarmUp = 300
	floodSize   = 3000
	floodBytes  = 32 << 10
	floodGrowth = 24 << 20
)

func flood(r *rig, name string, tampered func() error) {
	r.Helper()
	send := func(n int) {
		for range n {
			err := tampered()
			if !errors.Is(err, hsm.ErrUnwrap) && !errors.Is(err, hsm.ErrDecrypt) {
				r.Fatalf("error = %v", err)
			}
		}
	}
	send(floodWarmUp)
	before := residentMemory(r, r.module.Process())
	send(floodSize)
	after := residentMemory(r, r.module.Process())
	if after-before > floodGrowth {
		r.Errorf("%s: resident memory grew from %d to %d bytes", name, before, after)
	}
	now := r.traces()
	if s := r.Status(); !s.Healthy || s.Generation != r.before.generation || now.process != r.before.process {
		r.Errorf("status after the flood: %+v", s)
	}
	if err := r.all(); err != nil {
		r.Error(err)
	}
	r.leavesNothing()
	r.report(observation{fault: fmt.Sprintf("%d tampered %s", floodSize, name), callers: told(tampered()),
		health: fmt.Sprintf("well, memory of the module's process %d→%d MB", before>>20, after>>20), recovery: "not needed"})
}

func (r *rig) tamperedBlob() func() error {
	r.Helper()
	blob, err := r.Wrap(r.Context(), r.root.ID, 1, make([]byte, floodBytes), nil)
	if err != nil {
		r.Fatal(err)
	}
	blob[len(blob)-1] ^= 1
	return func() error { _, err := r.Unwrap(r.Context(), blob, nil); return err }
}

func (r *rig) tamperedCiphertext() func() error {
	r.Helper()
	key := r.residentKey("AES_256_GCM")
	ciphertext, err := r.use(key, hsm.UseEncrypt, make([]byte, floodBytes))
	if err != nil {
		r.Fatal(err)
	}
	ciphertext[len(ciphertext)-1] ^= 1
	return func() error { _, err := r.use(key, hsm.UseDecrypt, ciphertext); return err }
}
