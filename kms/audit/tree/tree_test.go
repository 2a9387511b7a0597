package tree

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

func openTree(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// block makes the lines from..to as Extend takes them.
func block(from, to int) []byte {
	b := []byte{'x'}
	for i := from; i < to; i++ {
		b = fmt.Appendf(b, "line %d\n", i)
	}
	return b
}

// reference hashes the same lines with tlog alone.
func reference(t testing.TB, lines int) tlog.HashReaderFunc {
	t.Helper()
	var stored []Hash
	r := tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		hashes := make([]Hash, len(indexes))
		for i, index := range indexes {
			hashes[i] = stored[index]
		}
		return hashes, nil
	})
	for i := range lines {
		hashes, err := tlog.StoredHashes(int64(i), fmt.Appendf(nil, "line %d", i), r)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
	return r
}

// TestPublishedRoots: the roots of the CT reference implementation's test
// (google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc).
func TestPublishedRoots(t *testing.T) {
	inputs := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var f Frontier
	for n, want := range roots {
		if root := f.Root(); hex.EncodeToString(root[:]) != want {
			t.Errorf("root of %d leaves is %x, want %s", n, root, want)
		}
		if n < len(inputs) {
			leaf, err := hex.DecodeString(inputs[n])
			if err != nil {
				t.Fatal(err)
			}
			f.Push(nil, LeafHash(append([]byte{'x'}, leaf...)))
		}
	}
}

func TestProofs(t *testing.T) {
	const lines = 70
	f := openTree(t, filepath.Join(t.TempDir(), "tree"))
	for from := 0; from < lines; from += 7 {
		b := block(from, from+7)
		if err := f.Extend(b); err != nil || !bytes.Equal(b, block(from, from+7)) {
			t.Fatalf("Extend: %v, block is now %q", err, b)
		}
	}
	want := reference(t, lines)
	for size := uint64(0); size <= lines; size++ {
		root, err := f.Root(size)
		if expected, _ := tlog.TreeHash(int64(size), want); err != nil || root != expected {
			t.Fatalf("root of %d: %v (%v)", size, root, err)
		}
		for n := range size {
			proof, err := f.Inclusion(n, size)
			if err == nil {
				err = tlog.CheckRecord(proof, int64(size), root, int64(n), tlog.RecordHash(fmt.Appendf(nil, "line %d", n)))
			}
			if err != nil {
				t.Fatalf("inclusion of %d in %d: %v", n, size, err)
			}
			if n == 0 {
				continue
			}
			old, _ := f.Root(n)
			tree, err := f.Consistency(n, size)
			if err == nil {
				err = tlog.CheckTree(tree, int64(size), root, int64(n), old)
			}
			if err != nil {
				t.Fatalf("consistency of %d with %d: %v", n, size, err)
			}
		}
	}
	for name, err := range map[string]error{
		"root": second(f.Root(lines + 1)), "inclusion size": second(f.Inclusion(0, lines+1)), "inclusion line": second(f.Inclusion(5, 5)),
		"consistency size": second(f.Consistency(1, lines+1)), "consistency old": second(f.Consistency(6, 5)), "cut": f.Cut(lines + 1),
	} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("%s: %v, want ErrRange", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestOpenTakesWholeLines cuts the file at every byte.
func TestOpenTakesWholeLines(t *testing.T) {
	const lines = 20
	path := filepath.Join(t.TempDir(), "tree")
	if err := openTree(t, path).Extend(block(0, lines)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := reference(t, lines)
	for end := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTree(t, path)
		size := int64(f.Size())
		if tlog.StoredHashCount(size) > int64(end)/32 || size < lines && tlog.StoredHashCount(size+1) <= int64(end)/32 {
			t.Fatalf("%d bytes are taken for %d lines", end, size)
		}
		if err := f.Extend(block(int(size), lines)); err != nil {
			t.Fatal(err)
		}
		if root, err := f.Root(lines); err != nil || root != second2(tlog.TreeHash(lines, want)) {
			t.Fatalf("%d bytes: root afterwards %v (%v)", end, root, err)
		}
		f.Close()
	}
}

func second2(h Hash, _ error) Hash { return h }

func TestCut(t *testing.T) {
	const lines = 33
	f := openTree(t, filepath.Join(t.TempDir(), "tree"))
	want := reference(t, lines)
	for size := range lines {
		if err := f.Extend(block(int(f.Size()), lines)); err != nil {
			t.Fatal(err)
		}
		if err := f.Cut(uint64(size)); err != nil || f.Size() != uint64(size) {
			t.Fatalf("cut to %d: %d (%v)", size, f.Size(), err)
		}
		if root, err := f.Root(uint64(size)); err != nil || root != second2(tlog.TreeHash(int64(size), want)) || root != f.frontier.Root() {
			t.Fatalf("root of %d after a cut: %v (%v)", size, root, err)
		}
	}
}

// TestWaitingHashes: what cannot be written counts, and is written later.
func TestWaitingHashes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree")
	f := openTree(t, path)
	if err := f.Extend(block(0, 5)); err != nil {
		t.Fatal(err)
	}
	writable := f.file
	closed, err := os.Open(path) // for reading only: writes fail
	if err != nil {
		t.Fatal(err)
	}
	f.file = closed
	for from := 5; from < 20; from += 5 {
		if err := f.Extend(block(from, from+5)); err != nil {
			t.Fatal(err)
		}
		if err := f.Flush(); err == nil || !f.Behind() {
			t.Fatal("the write did not fail")
		}
	}
	want := reference(t, 20)
	check := func() {
		t.Helper()
		for size := range int64(21) {
			if root, err := f.Root(uint64(size)); err != nil || root != second2(tlog.TreeHash(size, want)) {
				t.Fatalf("root of %d: %v (%v)", size, root, err)
			}
		}
	}
	check()
	f.file = writable
	if err := f.Flush(); err != nil || f.Behind() {
		t.Fatal(err)
	}
	check()
	if err := f.Sync(); err != nil || f.Unsynced() != 0 {
		t.Errorf("%d bytes unsynced (%v)", f.Unsynced(), err)
	}
	if again := openTree(t, path); again.Size() != 20 {
		t.Errorf("%d lines in the file", again.Size())
	}
}

// TestLazy: many hashes are written by themselves, the rest by Close.
func TestLazy(t *testing.T) {
	const lines = 5000
	path := filepath.Join(t.TempDir(), "tree")
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	writes, size := 0, int64(0)
	for n := range lines {
		if err := f.Extend(block(n, n+1)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() != size {
			writes, size = writes+1, info.Size()
		}
	}
	if most := lines * 2 * tlog.HashSize / lazyBytes; writes == 0 || writes > most {
		t.Errorf("%d writes, want 1 to %d", writes, most)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if again := openTree(t, path); again.Size() != lines {
		t.Errorf("%d lines in the file", again.Size())
	}
}

// FuzzExtend: however lines are grouped, the tree is tlog's.
func FuzzExtend(f *testing.F) {
	f.Add([]byte("a\nbb\n\nc\n"), uint8(2))
	f.Fuzz(func(t *testing.T, text []byte, first uint8) {
		text = append(text, '\n')
		tree := openTree(t, filepath.Join(t.TempDir(), "tree"))
		lines := bytes.SplitAfter(text, []byte("\n"))
		lines = lines[:len(lines)-1]
		split := min(int(first), len(lines))
		for _, part := range [][][]byte{lines[:split], lines[split:]} {
			if err := tree.Extend(append([]byte{7}, bytes.Join(part, nil)...)); err != nil {
				t.Fatal(err)
			}
		}
		var stored []Hash
		r := tlog.HashReaderFunc(func(indexes []int64) (found []Hash, err error) {
			for _, i := range indexes {
				found = append(found, stored[i])
			}
			return found, nil
		})
		for i, line := range lines {
			hashes, err := tlog.StoredHashes(int64(i), line[:len(line)-1], r)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, hashes...)
		}
		root, err := tree.Root(uint64(len(lines)))
		if want, _ := tlog.TreeHash(int64(len(lines)), r); err != nil || root != want {
			t.Fatalf("root %v (%v), want %v", root, err, want)
		}
	})
}

func BenchmarkExtend(b *testing.B) {
	f := openTree(b, filepath.Join(b.TempDir(), "tree"))
	lines := append([]byte{0}, bytes.Repeat(append(bytes.Repeat([]byte("x"), 430), '\n'), 64)...)
	for b.Loop() {
		if err := f.Extend(lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/line")
}
