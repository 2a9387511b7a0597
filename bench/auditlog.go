package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/keywright/keywright/bench/internal/gobench"
)

// entryBytes is what an entry takes on disk: 390 of its line, 64 of hashes, 17 of
// the index, and something to spare.
const entryBytes = 512

// inLog is the probe of a benchmark in the log of BenchmarkLog, which is appended
// to once, when the first of them opens.
func (b *bench) inLog(run gobench.Run, value reading) maker {
	dir := filepath.Join(b.dir, "log")
	run.Env = []string{"KEYWRIGHT_AUDIT_DIR=" + dir, "KEYWRIGHT_AUDIT_ENTRIES=" + strconv.Itoa(b.entries)}
	newProbe := b.beside(verifyPackage, run, value)
	return func(ctx context.Context) (probe, error) {
		p, err := newProbe(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dir); err == nil {
			return p, nil
		}
		if err := haveRoom(b.dir, int64(b.entries)*entryBytes); err != nil {
			return nil, err
		}
		_, err = p.measure(ctx, time.Millisecond) // any of them appends what is missing first
		return p, err
	}
}

// haveRoom refuses to begin what would fill the disk.
func haveRoom(dir string, bytes int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < bytes {
		return fmt.Errorf("the audit log needs %d MB in %s, where %d MB are free: make room, point TMPDIR elsewhere, or give fewer -entries", bytes>>20, dir, free>>20)
	}
	return nil
}
