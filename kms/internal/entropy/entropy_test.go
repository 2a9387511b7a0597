package entropy

import (
	"bytes"
	"errors"
	"sync"
	"testing"
)

func TestReadNeedsSeed(t *testing.T) {
	var s Source
	if n, err := s.Read(make([]byte, 8)); n != 0 || !errors.Is(err, ErrNotSeeded) {
		t.Errorf("Read = %d, %v without a seed", n, err)
	}
}

func TestReadFillsAnySize(t *testing.T) {
	var s Source
	s.Seed([SeedSize]byte{1})
	for _, size := range []int{0, 1, 31, 32, 33, maxBlock - 1, maxBlock, maxBlock + 1, 3*maxBlock + 5} {
		p := make([]byte, size)
		if n, err := s.Read(p); n != size || err != nil {
			t.Fatalf("Read of %d bytes = %d, %v", size, n, err)
		}
		// 16 zero bytes in a row, anywhere, happen once in 2^128.
		if size >= 16 && bytes.Contains(p, make([]byte, 16)) {
			t.Errorf("%d bytes were not all filled", size)
		}
	}
}

// With the same seed no two reads are equal: the operating system's part is
// fresh in each.
func TestReadsDiffer(t *testing.T) {
	var s Source
	seen := map[[16]byte]bool{}
	for range 1000 {
		s.Seed([SeedSize]byte{1})
		var b [16]byte
		if _, err := s.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		if seen[b] {
			t.Fatal("a read came twice")
		}
		seen[b] = true
	}
}

// The token's part is used too: what is mixed from the same bytes of the
// operating system depends on the seed.
func TestSeedMatters(t *testing.T) {
	system := bytes.Repeat([]byte{7}, 1024)
	mixed := func(seed byte) []byte {
		p := make([]byte, 64)
		if err := mix(bytes.NewReader(system), p, bytes.Repeat([]byte{seed}, SeedSize)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if !bytes.Equal(mixed(1), mixed(1)) {
		t.Error("the same sources gave different bytes")
	}
	if bytes.Equal(mixed(1), mixed(2)) {
		t.Error("the seed changes nothing")
	}
	if bytes.Equal(mixed(1)[:32], system[:32]) || bytes.Equal(mixed(1)[:32], mixed(1)[32:]) {
		t.Error("the output is not mixed")
	}
}

func TestSourceAtOnce(t *testing.T) {
	var s Source
	s.Seed([SeedSize]byte{1})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 200 {
				s.Seed([SeedSize]byte{byte(i)})
				if _, err := s.Read(make([]byte, 40)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
