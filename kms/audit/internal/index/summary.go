package index

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"strings"
)

// A summary says of a whole segment which terms it does not have, so that a search
// for what is rare passes over most segments. It is a Bloom filter in pages, of
// which a term needs one: each has the CRC-32C of what follows (4 bytes, big
// endian), the line with which the segment ends (8 bytes, excluded), and bits.
const (
	pageBytes     = 4096
	pageHead      = 4 + 8
	pageBits      = (pageBytes - pageHead) * 8
	summaryBits   = 12 // per term; one term in 100 is not excluded in vain
	summaryProbes = 6
)

// summaryPath returns where the summary of an index lies.
func summaryPath(path string) string { return strings.TrimSuffix(path, ".new") + ".sum" }

// writeSummary writes the summary of a segment that ends with line end.
func writeSummary(path string, end uint64, terms []Term) error {
	pages := uint64(len(terms)*summaryBits/pageBits + 1)
	text := make([]byte, pages*pageBytes)
	for _, t := range terms {
		bits := text[pageOf(t, pages)*pageBytes+pageHead:]
		for i := range uint64(summaryProbes) {
			at := place(mix(uint64(t), 1), i, pageBits)
			bits[at/8] |= 1 << (at % 8)
		}
	}
	for page := text; len(page) > 0; page = page[pageBytes:] {
		binary.BigEndian.PutUint64(page[4:], end)
		binary.BigEndian.PutUint32(page, crc32.Checksum(page[4:pageBytes], castagnoli))
	}
	return os.WriteFile(path, text, 0o600)
}

func pageOf(t Term, pages uint64) uint64 { return uint64(uint32(mix(uint64(t), 2))) * pages >> 32 }

// Excludes reports whether a segment that ends with line end (excluded) is known
// to have no line with all the terms. The path is that of its index.
func Excludes(path string, end uint64, terms []Term) bool {
	file, err := os.Open(summaryPath(path))
	if err != nil {
		return false
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() < pageBytes {
		return false
	}
	page := make([]byte, pageBytes)
	for _, t := range terms {
		at := pageOf(t, uint64(info.Size()/pageBytes))
		if _, err := file.ReadAt(page, int64(at*pageBytes)); err != nil {
			return false
		}
		if binary.BigEndian.Uint32(page) != crc32.Checksum(page[4:], castagnoli) || binary.BigEndian.Uint64(page[4:]) != end {
			return false
		}
		if lacks(page[pageHead:], t) {
			return true
		}
	}
	return false
}

func lacks(bits []byte, t Term) bool {
	for i := range uint64(summaryProbes) {
		if at := place(mix(uint64(t), 1), i, pageBits); bits[at/8]>>(at%8)&1 == 0 {
			return true
		}
	}
	return false
}

// Remove removes an index with its summary; neither need be there.
func Remove(path string) error {
	for _, name := range []string{path, summaryPath(path)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
