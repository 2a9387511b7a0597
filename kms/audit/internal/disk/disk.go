// Package disk holds what the audit log asks of a file system: making bytes and
// names durable, and replacing a small file so that a reader, or a crash, finds
// the old one or the new one and nothing between. It keeps no state.
package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Replace makes path a file (mode 0600) of exactly content, on disk when it
// returns without error. On error the old file, if any, is still there, or the
// new one is in its place but may not survive the loss of power. Two calls for
// one path must not overlap.
func Replace(path string, content []byte) error {
	temporary := path + ".new"
	if err := write(temporary, content); err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", path, err), os.Remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func write(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = Datasync(file)
	}
	return errors.Join(err, file.Close())
}

// Rewrite writes the bytes from..to of a file once more, after a failed
// Datasync. Linux forgets about pages that it failed to write, so that the next
// Datasync would succeed without them.
func Rewrite(path string, from, to int64) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0) // not O_APPEND: that ignores offsets
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(file, from), io.NewSectionReader(file, from, to-from))
	return errors.Join(err, file.Close())
}
