// Package tree keeps the hashes of a log's lines, from which the root, inclusion
// proofs and consistency proofs of any size of the log are made (RFC 6962, with
// golang.org/x/mod/sumdb/tlog). A leaf is a line's bytes without the newline.
//
// The hashes lie in one file that only grows: 32 bytes each, in the order of
// tlog.StoredHashIndex, so the hash of line n is followed by those of the
// subtrees that n completes, and n lines have less than 2n hashes. All of it
// follows from the lines. It outlives them where old ones are dropped.
//
// One goroutine at a time may call the methods that change a File; those that
// read may be called by many at any time. New hashes wait in memory until there
// are many or Flush is called, and count all the same.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/keywright/keywright/kms/audit/internal/disk"
)

// lazyBytes is how much waits in memory before it is written.
const lazyBytes = 64 << 10

// ErrRange says that a size or a number is beyond the tree.
var ErrRange = errors.New("beyond the tree")

// File is a tree in a file, from Open to Close.
type File struct {
	file *os.File

	frontier Frontier // of the changing goroutine

	mu      sync.Mutex // guards the following; never held during I/O
	size    uint64     // lines
	written int64      // hashes in the file
	waiting []byte     // hashes behind them
	behind  bool       // the last Flush failed

	syncing  sync.Mutex // guards the following; the turn to sync
	synced   int64      // hashes known to be on disk
	failed   bool       // the last Sync did
	unsynced atomic.Int64
}

// Open opens the tree at path, or makes an empty one (mode 0600). It has the
// lines whose hashes are all there; what follows them is ignored.
func Open(path string) (*File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	f := &File{file: file, written: info.Size() / tlog.HashSize}
	f.size = Lines(f.written)
	if err := f.Cut(f.size); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return f, nil
}

// Lines returns how many lines have all their hashes among so many. The hash
// that would follow belongs to the first line that does not.
func Lines(hashes int64) uint64 {
	level, n := tlog.SplitStoredHashIndex(hashes)
	return uint64(n+1)<<level - 1
}

// Size returns the number of lines.
func (f *File) Size() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// Cut forgets all lines from number size on. No other method may run meanwhile.
func (f *File) Cut(size uint64) error {
	if size > f.Size() {
		return fmt.Errorf("%w: cut to %d lines, there are %d", ErrRange, size, f.Size())
	}
	frontier, err := FrontierAt(size, f)
	if err != nil {
		return err
	}
	if err := f.Flush(); err != nil {
		return err
	}
	count := tlog.StoredHashCount(int64(size))
	if err := f.file.Truncate(count * tlog.HashSize); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frontier, f.size, f.written = frontier, size, count
	f.synced = min(f.synced, count)
	return nil
}

// Extend adds lines. The block is one byte of room and whole lines, each with its
// newline; its bytes change during the call, and are as they were afterwards. On
// error the lines are added all the same, and Flush is owed.
func (f *File) Extend(block []byte) error {
	grown := f.waiting // only this goroutine changes it, and readers look at what was there before
	for len(block) > 1 {
		end := 1 + bytes.IndexByte(block[1:], '\n')
		grown = f.frontier.Push(grown, LeafHash(block[:end]))
		block = block[end:]
	}
	f.mu.Lock()
	f.size, f.waiting = f.frontier.size, grown
	f.mu.Unlock()
	if len(grown) < lazyBytes {
		return nil
	}
	return f.Flush()
}

// Behind reports whether hashes could not be written when they should have been.
func (f *File) Behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.behind
}

// Flush writes what waits.
func (f *File) Flush() error {
	waiting := f.waiting
	if len(waiting) == 0 {
		return nil
	}
	_, err := f.file.WriteAt(waiting, f.written*tlog.HashSize)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind = err != nil; f.behind {
		return err
	}
	f.unsynced.Add(int64(len(waiting)))
	f.written += int64(len(waiting)) / tlog.HashSize
	f.waiting = waiting[:0]
	return nil
}

// Unsynced returns how many bytes were written since the last Sync.
func (f *File) Unsynced() int64 { return f.unsynced.Load() }

// Sync puts what was written on disk, not what waits. It may be called at any time.
func (f *File) Sync() error {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	f.mu.Lock()
	written := f.written
	f.mu.Unlock()
	covered := f.unsynced.Load()
	if f.failed {
		if err := disk.Rewrite(f.file.Name(), f.synced*tlog.HashSize, written*tlog.HashSize); err != nil {
			return err
		}
	}
	err := disk.Datasync(f.file)
	if f.failed = err != nil; f.failed {
		return err
	}
	f.synced = written
	f.unsynced.Add(-covered)
	return nil
}

// Close writes what waits, if it can, and releases the file. It syncs nothing:
// whoever opens the file adds the lines that it lacks.
func (f *File) Close() error {
	_ = f.Flush() // a full disk is no reason to complain of what follows from the lines
	return f.file.Close()
}
