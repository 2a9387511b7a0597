package keyring

import (
	"bytes"
	"testing"
)

// FuzzOpen: whatever arrives, Open returns the plaintext of an untouched
// ciphertext, or an error; a ciphertext changed in any bit never opens.
func FuzzOpen(f *testing.F) {
	for _, seed := range openSeeds {
		f.Add(seed.plaintext, seed.aad, seed.flip)
	}
	var versions []*Version
	for _, a := range usable(PurposeEncryptDecrypt) {
		versions = append(versions, newTestVersion(f, a))
	}
	f.Fuzz(func(t *testing.T, plaintext, aad []byte, flip uint) {
		for _, v := range versions {
			checkMalleability(t, v, plaintext, aad, flip)
		}
	})
}

var openSeeds = []struct {
	plaintext, aad []byte
	flip           uint
}{
	{nil, nil, 0},
	{[]byte("text"), nil, 8 * HeaderSize},
	{[]byte("text"), []byte("aad"), 200},
	{bytes.Repeat([]byte("long"), 100), bytes.Repeat([]byte("aad"), 300), 1 << 20},
}

func checkMalleability(t *testing.T, v *Version, plaintext, aad []byte, flip uint) {
	ct := must[[]byte](t)(v.Seal(nil, plaintext, RawAAD(aad)))
	if got, err := v.Open(nil, ct, RawAAD(aad)); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("%s: %x, %v", v.algorithm, got, err)
	}
	flip %= uint(8 * len(ct))
	ct[flip/8] ^= 1 << (flip % 8)
	if _, err := v.Open(nil, ct, RawAAD(aad)); err != ErrDecrypt && err != ErrWrongKey {
		t.Fatalf("%s: bit %d flipped: %v", v.algorithm, flip, err)
	}
	if _, err := v.Open(nil, plaintext, RawAAD(aad)); err != ErrDecrypt && err != ErrWrongKey {
		t.Fatalf("%s: opened a plaintext: %v", v.algorithm, err)
	}
}

func FuzzParseHeader(f *testing.F) {
	for _, seed := range headerSeeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err == nil && !bytes.Equal(h.AppendTo(nil), b[:HeaderSize]) {
			t.Errorf("%x reads as %v", b, h)
		}
	})
}

var headerSeeds = [][]byte{nil, {1}, {2, 12: 0}, {1, 12: 0}, Header{1 << 63, 1}.AppendTo(nil)}

func TestFuzzSeeds(t *testing.T) {
	valid := 0
	for _, s := range headerSeeds {
		if _, err := ParseHeader(s); err == nil {
			valid++
		}
	}
	if valid != 2 || len(headerSeeds) != 5 || len(openSeeds) != 4 {
		t.Errorf("%d of %d header seeds are valid", valid, len(headerSeeds))
	}
}
