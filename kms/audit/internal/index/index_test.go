package index

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// write makes an index of lines that each have a term of their own and share one.
func write(t testing.TB, path string, first uint64, lines int) {
	t.Helper()
	w, err := Create(path, first)
	if err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		if err := w.Add(100, int64(1000+i), []Term{Of(1, fmt.Sprint("line ", i)), Of(2, "shared"), OfNumber(3, uint64(i/700))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// readAll collects copies of the blocks.
func readAll(path string, first uint64) (blocks []Block, err error) {
	_, err = Read(path, first, func(b *Block) {
		kept := *b
		kept.filter = slices.Clone(b.filter)
		blocks = append(blocks, kept)
	})
	return blocks, err
}

func TestBlocks(t *testing.T) {
	const lines = 5000
	path := filepath.Join(t.TempDir(), "index")
	write(t, path, 70, lines)
	blocks, err := readAll(path, 70)
	if err != nil || len(blocks) != (lines+blockLines-1)/blockLines {
		t.Fatalf("%d blocks (%v)", len(blocks), err)
	}
	next, offset := uint64(70), int64(0)
	read, hits := 0, 0
	for _, b := range blocks {
		if b.First != next || b.Offset != offset || b.Oldest != int64(1000+next-70) || b.Newest != int64(1000+next-70+b.Lines-1) {
			t.Errorf("block %+v where line %d at byte %d belongs", b, next, offset)
		}
		next, offset = next+b.Lines, offset+100*int64(b.Lines)
		if !b.May([]Term{Of(2, "shared")}) || !b.May(nil) {
			t.Errorf("block %d denies what all lines have", b.First)
		}
		for i := range lines {
			within := uint64(i)+70 >= b.First && uint64(i)+70 < b.First+b.Lines
			switch may := b.May([]Term{Of(1, fmt.Sprint("line ", i)), Of(2, "shared")}); {
			case within && !may:
				t.Fatalf("block %d denies its line %d", b.First, i)
			case !within && may:
				hits++
			}
			read++
		}
	}
	if next != 70+lines || hits > read/100 {
		t.Errorf("blocks up to %d; %d of %d would be read in vain", next, hits, read)
	}
	if blocks[0].May([]Term{Of(1, "shared")}) && blocks[1].May([]Term{Of(1, "shared")}) && blocks[2].May([]Term{Of(1, "shared")}) {
		t.Error("a value counts in another field too")
	}
}

// TestReadTakesWhatIsSound cuts the file at every byte, and changes each byte.
func TestReadTakesWhatIsSound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	write(t, path, 0, 3*blockLines)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	record := len(whole) / 3
	check := func(text []byte, at int, most int) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		blocks, err := readAll(path, 0)
		if err != nil || len(blocks) != most {
			t.Fatalf("byte %d: %d blocks, want %d (%v)", at, len(blocks), most, err)
		}
	}
	check(whole, 0, 3)
	for at := 0; at < len(whole); at += 7 {
		check(whole[:at], at, at/record)
		changed := append([]byte(nil), whole...)
		changed[at] ^= 1
		check(changed, at, at/record)
	}
	if blocks, err := readAll(path, 5); err != nil || len(blocks) != 0 {
		t.Errorf("of another segment: %d blocks (%v)", len(blocks), err)
	}
	if blocks, err := readAll(path+"none", 0); err != nil || blocks != nil {
		t.Errorf("no file: %v (%v)", blocks, err)
	}
}

func TestLargeBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index")
	w, err := Create(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	terms := make([]Term, 2_000_000) // a filter of its own would be 3 MB
	for i := range terms {
		terms[i] = OfNumber(1, uint64(i))
	}
	for _, bytes := range []int64{16 << 20, 100, blockBytes} {
		if err := w.Add(bytes, 1, terms[:bytes/10]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	blocks, err := readAll(path, 0)
	if err != nil || len(blocks) != 2 || blocks[0].Lines != 1 || blocks[1].Lines != 2 || blocks[1].Offset != 16<<20 {
		t.Fatalf("%d blocks (%v)", len(blocks), err)
	}
	if !blocks[0].May(terms[:16<<20/10]) {
		t.Error("a crowded filter denies what is there")
	}
}

func TestSummary(t *testing.T) {
	const lines = 5000
	path := filepath.Join(t.TempDir(), "index")
	write(t, path, 70, lines)
	shared, vain := Of(2, "shared"), 0
	for i := range lines {
		if Excludes(path, 70+lines, []Term{shared, Of(1, fmt.Sprint("line ", i))}) {
			t.Fatalf("excludes its line %d", i)
		}
		if !Excludes(path, 70+lines, []Term{shared, Of(1, fmt.Sprint("other ", i))}) {
			vain++
		}
	}
	if vain > lines/30 {
		t.Errorf("%d of %d strangers are not excluded", vain, lines)
	}
	stranger := []Term{Of(1, "stranger"), Of(1, "another"), Of(1, "third")}
	if !Excludes(path, 70+lines, stranger) || Excludes(path, 70+lines, nil) {
		t.Error("the test wants an excluded stranger")
	}
	text, err := os.ReadFile(summaryPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{"empty": nil, "zeros": make([]byte, len(text)), "one bit": flipAll(text), "cut": text[:100]} {
		if err := os.WriteFile(summaryPath(path), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if Excludes(path, 70+lines, stranger) {
			t.Errorf("%s: a damaged summary excludes", name)
		}
	}
	write(t, path, 70, lines)
	if Excludes(path, 70+lines+1, stranger) {
		t.Error("the summary of a shorter segment excludes")
	}
	if err := Remove(path); err != nil || Excludes(path, 70+lines, stranger) {
		t.Errorf("removed, it excludes (%v)", err)
	}
}

// flipAll changes a bit of each page.
func flipAll(text []byte) []byte {
	text = slices.Clone(text)
	for at := 500; at < len(text); at += pageBytes {
		text[at] ^= 1
	}
	return text
}

func FuzzRead(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	write(f, path, 0, 600)
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "index")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		blocks, err := readAll(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(0)
		for _, b := range blocks {
			if b.First != next || b.Lines == 0 {
				t.Fatalf("block %+v where line %d belongs", b, next)
			}
			next += b.Lines
			b.May([]Term{1, 2, 3})
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	w, err := Create(filepath.Join(b.TempDir(), "index"), 0)
	if err != nil {
		b.Fatal(err)
	}
	ids := make([]string, 1<<16)
	for i := range ids {
		ids[i] = fmt.Sprintf("01JDCWQ6W1Z0C5S4T3X2B%05d", i)
	}
	var terms []Term
	for i := 0; b.Loop(); i++ {
		terms = append(terms[:0], Of(1, ids[i%len(ids)]), Of(2, "internal/spiffe://example.org/billing"), Of(3, "billing"), Of(4, "cards"),
			Both(3, 4), OfNumber(5, 12345), Of(6, "Encrypt"), Of(7, "OK"))
		if err := w.Add(430, int64(i), terms); err != nil {
			b.Fatal(err)
		}
	}
}
