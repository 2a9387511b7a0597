// Package index finds lines of a segment without reading them all. Beside the
// segment lies a file with a record per block of lines: where the block is, which
// times it spans, and a Bloom filter of the terms that its lines can be asked
// for. All of it follows from the lines: a file that is missing, damaged or
// short is no harm, and can be made anew.
//
// A Writer belongs to one goroutine; a file may be read while it grows.
package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Term is something that a line can be asked for: a value in a field, hashed. Two
// values may have the same term; the lines decide.
type Term uint64

// Of returns the term of a value. Equal values in different fields differ by the
// field's number, which is not 0.
func Of(field uint8, value string) Term { return mix(xxhash.Sum64String(value), uint64(field)) }

// OfNumber returns the term of a number.
func OfNumber(field uint8, value uint64) Term { return mix(value, uint64(field)) }

// Both returns the term of two values together.
func Both(a, b Term) Term { return mix(uint64(a), uint64(b)) }

// mix is the finalizer of splitmix64 over both. It is never 0, which is no term.
func mix(a, b uint64) Term {
	x := a + b*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return Term(max(x^x>>31, 1))
}

// Block is a stretch of lines.
type Block struct {
	First          uint64 // number of the first line
	Lines          uint64
	Offset         int64 // of the first line in the segment, in bytes
	Oldest, Newest int64 // times of the lines, in microseconds since 1970
	filter         []byte
}

// The form of a block's record, numbers big endian: the size of the filter (4
// bytes), First, Lines, Offset, Oldest, Newest (8 bytes each), the filter, and the
// CRC-32C of all that (4 bytes).
const (
	headBytes = 4 + 5*8
	sumBytes  = 4
	maxFilter = 1 << 20

	bitsPerTerm = 16 // with 10 probes one block in 2000 is read in vain
	probes      = 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append appends the block's record.
func (b *Block) append(dst []byte) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b.filter)))
	for _, n := range []uint64{b.First, b.Lines, uint64(b.Offset), uint64(b.Oldest), uint64(b.Newest)} {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	dst = append(dst, b.filter...)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// parse reads a block's record and returns what follows it.
func parse(text []byte) (b Block, rest []byte, ok bool) {
	if len(text) < headBytes+sumBytes {
		return b, nil, false
	}
	filter := int64(binary.BigEndian.Uint32(text))
	end := headBytes + filter
	if filter == 0 || filter > maxFilter || int64(len(text)) < end+sumBytes {
		return b, nil, false
	}
	if crc32.Checksum(text[:end], castagnoli) != binary.BigEndian.Uint32(text[end:]) {
		return b, nil, false
	}
	number := func(i int) uint64 { return binary.BigEndian.Uint64(text[4+8*i:]) }
	b = Block{number(0), number(1), int64(number(2)), int64(number(3)), int64(number(4)), text[headBytes:end]}
	return b, text[end+sumBytes:], true
}

// buffers holds what Read reads files into.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Read visits the blocks of a segment that begins with line first, as far as the
// file is sound and they follow each other, and returns with which line that ends
// (excluded). A missing file has no blocks. A block is valid during the visit.
func Read(path string, first uint64, visit func(*Block)) (covered uint64, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return first, nil
	}
	if err != nil {
		return first, err
	}
	defer file.Close()
	buffer := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buffer)
	buffer.Reset()
	if _, err := buffer.ReadFrom(file); err != nil {
		return first, err
	}
	text, offset := buffer.Bytes(), int64(-1)
	for {
		b, rest, ok := parse(text)
		if !ok || b.First != first || b.Lines == 0 || b.Offset <= offset {
			return first, nil
		}
		visit(&b)
		first, offset, text = b.First+b.Lines, b.Offset, rest
	}
}

// May reports whether a line of the block may have all terms.
func (b *Block) May(terms []Term) bool {
	for _, t := range terms {
		if !b.has(t) {
			return false
		}
	}
	return true
}

func (b *Block) has(t Term) bool {
	bits := uint64(len(b.filter)) * 8
	for i := range uint64(probes) {
		if at := place(t, i, bits); b.filter[at/8]>>(at%8)&1 == 0 {
			return false
		}
	}
	return true
}

// place returns the i-th bit of a term in a filter of so many bits (double
// hashing, Kirsch and Mitzenmacher 2006).
func place(t Term, i, bits uint64) uint64 {
	hash := uint32(t) + uint32(i)*(uint32(t>>32)|1)
	return uint64(hash) * bits >> 32
}
