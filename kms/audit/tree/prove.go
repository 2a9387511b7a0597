package tree

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Root returns the root of the first size lines. ErrRange: there are fewer.
func (f *File) Root(size uint64) (Hash, error) {
	if err := f.check(size); err != nil {
		return Hash{}, err
	}
	return tlog.TreeHash(int64(size), f)
}

// Inclusion proves that line n is among the first size lines (RFC 6962 section
// 2.1.1): at most 64 hashes, from the leaf's sibling to the root's child.
func (f *File) Inclusion(n, size uint64) ([]Hash, error) {
	if err := f.check(size); err != nil {
		return nil, err
	}
	if n >= size {
		return nil, fmt.Errorf("%w: line %d of %d", ErrRange, n, size)
	}
	return tlog.ProveRecord(int64(size), int64(n), f)
}

// Consistency proves that the first size lines begin with the first old lines
// (RFC 6962 section 2.1.2); nothing begins all and needs no hash.
func (f *File) Consistency(old, size uint64) ([]Hash, error) {
	if err := f.check(size); err != nil {
		return nil, err
	}
	if old > size {
		return nil, fmt.Errorf("%w: %d lines of %d", ErrRange, old, size)
	}
	if old == 0 {
		return nil, nil
	}
	return tlog.ProveTree(int64(size), int64(old), f)
}

func (f *File) check(size uint64) error {
	if have := f.Size(); size > have {
		return fmt.Errorf("%w: of %d lines, there are %d", ErrRange, size, have)
	}
	return nil
}

// ReadHashes implements [tlog.HashReader].
func (f *File) ReadHashes(indexes []int64) ([]Hash, error) {
	hashes := make([]Hash, len(indexes))
	for i, index := range indexes {
		if f.waits(index, &hashes[i]) {
			continue
		}
		if _, err := f.file.ReadAt(hashes[i][:], index*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("hash %d of %s: %w", index, f.file.Name(), err)
		}
	}
	return hashes, nil
}

// waits looks for a hash among those that are not written.
func (f *File) waits(index int64, hash *Hash) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	behind := (index - f.written) * tlog.HashSize
	if behind < 0 || behind >= int64(len(f.waiting)) {
		return false
	}
	copy(hash[:], f.waiting[behind:])
	return true
}
