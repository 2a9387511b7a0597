package envelope

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/iotest"
)

var (
	testKey     = bytes.Repeat([]byte{0x5a}, KeySize)
	testWrapped = []byte("the wrapped data key")
)

func data(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

func seal(t testing.TB, plaintext []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteHeader(&out, testWrapped); err != nil {
		t.Fatal(err)
	}
	if err := Seal(&out, bytes.NewReader(plaintext), testKey); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(file []byte, key []byte) ([]byte, error) {
	in := bytes.NewReader(file)
	wrapped, err := ReadHeader(in)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(wrapped, testWrapped) {
		return nil, fmt.Errorf("%w: another data key", ErrAuthentication)
	}
	var out bytes.Buffer
	err = Open(&out, in, key)
	return out.Bytes(), err
}

func TestRoundTrip(t *testing.T) {
	const first = segmentSize - 40 - 16 // plaintext of the first segment
	const next = segmentSize - 16
	for _, size := range []int{0, 1, 15, 16, 17, first - 1, first, first + 1, first + next - 1, first + next, first + next + 1, 5 * segmentSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			want := data(size)
			got, err := open(seal(t, want), testKey)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes came back as %d, %v", size, len(got), err)
			}
		})
	}
}

func TestSealReadsInAnyPortions(t *testing.T) {
	want := data(segmentSize + 100)
	var out bytes.Buffer
	if err := WriteHeader(&out, testWrapped); err != nil {
		t.Fatal(err)
	}
	if err := Seal(&out, iotest.HalfReader(bytes.NewReader(want)), testKey); err != nil {
		t.Fatal(err)
	}
	got, err := open(out.Bytes(), testKey)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("came back as %d bytes, %v", len(got), err)
	}
}

// TestGolden: a file of the first release, which every later one must open.
func TestGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.hex")
	if err != nil {
		t.Fatal(err)
	}
	file, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := open(file, testKey)
	if err != nil || string(got) != "Keywright opens this in every later release." {
		t.Fatalf("got %q, %v", got, err)
	}
}

// TestOpenRefusesChanges flips a bit of every byte of a small file, and of many of a long one.
func TestOpenRefusesChanges(t *testing.T) {
	small, long := seal(t, data(100)), seal(t, data(2*segmentSize+1000))
	for i := range small {
		for bit := range 8 {
			refuse(t, fmt.Sprintf("bit %d of byte %d", bit, i), flip(small, i, bit))
		}
	}
	for _, i := range interesting(len(long)) {
		refuse(t, fmt.Sprintf("byte %d of a long file", i), flip(long, i, i%8))
	}
}

func TestOpenRefusesCuts(t *testing.T) {
	small, long := seal(t, data(100)), seal(t, data(2*segmentSize+1000))
	for i := range small {
		refuse(t, fmt.Sprintf("cut at %d", i), small[:i])
	}
	for _, i := range interesting(len(long)) {
		refuse(t, fmt.Sprintf("a long file cut at %d", i), long[:i])
	}
	refuse(t, "a byte appended", append(bytes.Clone(small), 0))
	refuse(t, "a byte appended to a long file", append(bytes.Clone(long), 0))
}

func TestOpenRefusesMovedSegments(t *testing.T) {
	start := PrefixSize + 2 + len(testWrapped)
	file := seal(t, data(4*segmentSize))
	segment := func(n int) []byte { return file[start+n*segmentSize : start+(n+1)*segmentSize] }
	refuse(t, "swapped", bytes.Join([][]byte{file[:start], segment(0), segment(2), segment(1), file[start+3*segmentSize:]}, nil))
	refuse(t, "dropped", bytes.Join([][]byte{file[:start], segment(0), segment(2), file[start+3*segmentSize:]}, nil))
	refuse(t, "repeated", bytes.Join([][]byte{file[:start], segment(0), segment(1), segment(1), file[start+2*segmentSize:]}, nil))
	other := seal(t, data(4*segmentSize))
	refuse(t, "of another file", bytes.Join([][]byte{file[:start], segment(0), other[start+segmentSize:]}, nil))
}

func refuse(t *testing.T, what string, file []byte) {
	t.Helper()
	if _, err := open(file, testKey); !errors.Is(err, ErrAuthentication) && !errors.Is(err, ErrFormat) {
		t.Fatalf("%s: %v", what, err)
	}
}

func flip(file []byte, i, bit int) []byte {
	changed := bytes.Clone(file)
	changed[i] ^= 1 << bit
	return changed
}

// interesting returns offsets around segments' ends and a sample of others.
func interesting(size int) []int {
	start := PrefixSize + 2 + len(testWrapped)
	offsets := []int{size - 1, size - 16, size - 17}
	for edge := start; edge < size; edge += segmentSize {
		offsets = append(offsets, edge-1, edge, min(edge+1, size-1), min(edge+40, size-1), min(edge+segmentSize/2, size-1))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		offsets = append(offsets, random.IntN(size))
	}
	return offsets
}

func TestOpenRefusesAnotherKey(t *testing.T) {
	if _, err := open(seal(t, data(10)), data(KeySize)); !errors.Is(err, ErrAuthentication) {
		t.Fatalf("got %v", err)
	}
	for _, size := range []int{0, 16, 31, 33} {
		if err := Seal(io.Discard, bytes.NewReader(nil), make([]byte, size)); err == nil {
			t.Fatalf("sealed with a key of %d bytes", size)
		}
		if err := Open(io.Discard, bytes.NewReader(nil), make([]byte, size)); err == nil {
			t.Fatalf("opened with a key of %d bytes", size)
		}
	}
}

// TestOpenVerifiesBeforeWriting: of a file changed in its third segment, only verified plaintext comes out.
func TestOpenVerifiesBeforeWriting(t *testing.T) {
	plaintext := data(4 * segmentSize)
	file := seal(t, plaintext)
	got, err := open(flip(file, 2*segmentSize+segmentSize/2, 0), testKey)
	if !errors.Is(err, ErrAuthentication) {
		t.Fatalf("got %v", err)
	}
	if len(got) >= 3*segmentSize || !bytes.HasPrefix(plaintext, got) {
		t.Fatalf("%d bytes came out, not all of them verified", len(got))
	}
}

func TestReadAndWriteErrorsAreNotAuthenticationErrors(t *testing.T) {
	broken := errors.New("broken disk")
	file := seal(t, data(3*segmentSize))
	in := io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(broken))
	if _, err := ReadHeader(in); err != nil {
		t.Fatal(err)
	}
	if err := Open(io.Discard, in, testKey); !errors.Is(err, broken) {
		t.Fatalf("reading: %v", err)
	}
	in = io.MultiReader(bytes.NewReader(data(10)), iotest.ErrReader(broken))
	if err := Seal(io.Discard, in, testKey); !errors.Is(err, broken) {
		t.Fatalf("sealing: %v", err)
	}
	if _, err := ReadHeader(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Fatalf("header: %v", err)
	}
	full := bytes.NewReader(file)
	if _, err := ReadHeader(full); err != nil {
		t.Fatal(err)
	}
	if err := Open(failingWriter{broken}, full, testKey); !errors.Is(err, broken) {
		t.Fatalf("writing: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestWriteHeaderRefusesSizes(t *testing.T) {
	for _, size := range []int{0, maxWrappedKey + 1, 1 << 16} {
		if err := WriteHeader(io.Discard, make([]byte, size)); err == nil {
			t.Fatalf("wrote a wrapped data key of %d bytes", size)
		}
	}
}

func FuzzReadHeader(f *testing.F) {
	good := seal(f, nil)
	if _, err := ReadHeader(bytes.NewReader(good)); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(prefix))
	f.Add(binary.BigEndian.AppendUint16([]byte(prefix), maxWrappedKey+1))
	f.Fuzz(func(t *testing.T, file []byte) {
		in := bytes.NewReader(file)
		wrapped, err := ReadHeader(in)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := WriteHeader(&again, wrapped); err != nil {
			t.Fatal(err)
		}
		if !Detect(file) || !bytes.Equal(again.Bytes(), file[:len(file)-in.Len()]) {
			t.Fatalf("%x was read as %x", file, again.Bytes())
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	plaintext := data(16 * segmentSize)
	b.SetBytes(int64(len(plaintext)))
	for b.Loop() {
		if err := Seal(io.Discard, bytes.NewReader(plaintext), testKey); err != nil {
			b.Fatal(err)
		}
	}
}
