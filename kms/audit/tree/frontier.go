package tree

import (
	"crypto/sha256"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is the hash of a line or of a subtree: SHA-256, 32 bytes.
type Hash = tlog.Hash

// Frontier is the right edge of a tree: what is needed of it to add lines. The
// zero value is the edge of the empty tree. It belongs to one goroutine.
type Frontier struct {
	size uint64
	edge [64]Hash // of each set bit of size: the root of the complete subtree of that many lines
}

// Size returns the number of lines in the tree.
func (f *Frontier) Size() uint64 { return f.size }

// Push adds the hash of a line. It appends to stored, in the order of
// [tlog.StoredHashIndex], that hash and those of the subtrees that it completes.
func (f *Frontier) Push(stored []byte, leaf Hash) []byte {
	stored = append(stored, leaf[:]...)
	level, hash := 0, leaf
	for ; f.size>>level&1 == 1; level++ {
		hash = tlog.NodeHash(f.edge[level], hash)
		stored = append(stored, hash[:]...)
	}
	f.edge[level] = hash
	f.size++
	return stored
}

// Root returns the root of the tree (RFC 6962 section 2.1).
func (f *Frontier) Root() Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	level := bits.TrailingZeros64(f.size)
	root := f.edge[level]
	for level++; f.size>>level != 0; level++ {
		if f.size>>level&1 == 1 {
			root = tlog.NodeHash(f.edge[level], root)
		}
	}
	return root
}

// LeafHash returns the hash of a line (RFC 6962 section 2.1) whose bytes follow
// one byte of room, in which the prefix stands for a moment: nothing is copied.
func LeafHash(roomy []byte) Hash {
	room := roomy[0]
	roomy[0] = 0
	hash := sha256.Sum256(roomy)
	roomy[0] = room
	return hash
}

// FrontierAt returns the frontier of the first size lines, whose hashes r reads.
func FrontierAt(size uint64, r tlog.HashReader) (Frontier, error) {
	f := Frontier{size: size}
	for level := range f.edge {
		if size>>level&1 == 0 {
			continue
		}
		hashes, err := r.ReadHashes([]int64{tlog.StoredHashIndex(level, int64(size>>level)-1)})
		if err != nil {
			return Frontier{}, err
		}
		f.edge[level] = hashes[0]
	}
	return f, nil
}
