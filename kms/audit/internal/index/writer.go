package index

import (
	"errors"
	"os"
)

// A block ends when it has so many lines or bytes.
const (
	blockLines = 512
	blockBytes = 256 << 10
)

// Writer makes the index of one segment as its lines come.
type Writer struct {
	file   *os.File
	block  Block
	bytes  int64  // of the block's lines
	terms  set    // of the block's lines
	all    []Term // of the blocks before, some of them more than once
	record []byte
}

// Create begins the index of a segment whose first line is first, in place of
// one that may be there (mode 0600). A path that ends in .new is to be renamed
// after Close.
func Create(path string, first uint64) (*Writer, error) {
	if err := Remove(path); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Writer{file: file, block: Block{First: first}}, nil
}

// Add adds the next line, of so many bytes with its newline, at the given time in
// microseconds since 1970. An error concerns the blocks from here on: the file
// is of no more use and the Writer is to be closed.
func (w *Writer) Add(bytes int64, at int64, terms []Term) error {
	if w.block.Lines == 0 {
		w.block.Oldest, w.block.Newest = at, at
	}
	w.block.Lines++
	w.block.Oldest, w.block.Newest = min(w.block.Oldest, at), max(w.block.Newest, at)
	w.bytes += bytes
	for _, t := range terms {
		w.terms.add(t)
	}
	if w.block.Lines < blockLines && w.bytes < blockBytes {
		return nil
	}
	return w.end()
}

// end writes the block.
func (w *Writer) end() error {
	if w.block.Lines == 0 {
		return nil
	}
	w.block.filter = w.terms.filter(w.block.filter)
	w.all = w.terms.appendTo(w.all)
	w.record = w.block.append(w.record[:0])
	_, err := w.file.Write(w.record)
	w.block.First += w.block.Lines
	w.block.Offset += w.bytes
	w.block.Lines, w.bytes = 0, 0
	w.terms.clear()
	return err
}

// Close writes the last block and the summary, and ends.
func (w *Writer) Close() error {
	err := errors.Join(w.end(), w.file.Close())
	if err == nil {
		err = writeSummary(summaryPath(w.file.Name()), w.block.First, w.all)
	}
	return err
}

// Abandon ends without the last block, whose lines are only known by reading.
func (w *Writer) Abandon() error { return w.file.Close() }

// set is a set of terms: open addressing, at most half full, 0 an empty slot.
type set struct {
	slots []Term
	count int
}

func (s *set) add(t Term) {
	if 2*(s.count+1) > len(s.slots) {
		s.grow()
	}
	for i := uint64(t); ; i++ {
		switch slot := &s.slots[i&uint64(len(s.slots)-1)]; *slot {
		case t:
			return
		case 0:
			*slot = t
			s.count++
			return
		}
	}
}

func (s *set) grow() {
	old := s.slots
	s.slots, s.count = make([]Term, max(2048, 2*len(old))), 0
	for _, t := range old {
		if t != 0 {
			s.add(t)
		}
	}
}

func (s *set) clear() {
	if len(s.slots) > 1<<16 { // a rare giant should not stay
		s.slots = nil
	}
	clear(s.slots)
	s.count = 0
}

func (s *set) appendTo(dst []Term) []Term {
	for _, t := range s.slots {
		if t != 0 {
			dst = append(dst, t)
		}
	}
	return dst
}

// filter makes the Bloom filter of the terms in dst.
func (s *set) filter(dst []byte) []byte {
	size := min((s.count+1)*bitsPerTerm/8+1, maxFilter)
	if cap(dst) < size {
		dst = make([]byte, size)
	}
	dst = dst[:size]
	clear(dst)
	bits := uint64(size) * 8
	insert := func(t Term) {
		for i := range uint64(probes) {
			at := place(t, i, bits)
			dst[at/8] |= 1 << (at % 8)
		}
	}
	for _, t := range s.slots {
		if t != 0 {
			insert(t)
		}
	}
	return dst
}
