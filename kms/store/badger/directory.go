package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/kms/store"
)

const (
	formatFile = "format"
	formatTemp = "format.new"
	lockFile   = "lock"
	dataDir    = "data"
	freshDir   = "data.new"
	formatLine = "keywright store, badger, format 1\n"

	mtimeSlack = time.Second // two changes this close may bear the same time
)

// directory is the locked directory of an open store.
type directory struct {
	path  string
	data  string // badger's own directory inside
	fresh string // what Compact makes, or leaves of the old one
	lock  *os.File

	syncedAt    time.Time // when data was last synced
	syncedMtime time.Time // and its modification time before that
}

// openDirectory makes the directory when needed, locks it and checks its format.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, storageError("make directory", err)
	}
	lock, err := lockDirectory(path)
	if err != nil {
		return nil, err
	}
	d := &directory{path: path, data: filepath.Join(path, dataDir), fresh: filepath.Join(path, freshDir), lock: lock}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func lockDirectory(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, storageError("lock directory", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s: stop that server, or configure another directory", store.ErrLocked, path)
	}
	return nil, storageError("lock directory", err)
}

func (d *directory) prepare() error {
	format, err := os.ReadFile(filepath.Join(d.path, formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d.create()
	}
	if err != nil {
		return storageError("read format", err)
	}
	if string(format) != formatLine {
		return fmt.Errorf("%w: %s says %.60q, this program knows %q: use the program that wrote it",
			store.ErrFormat, filepath.Join(d.path, formatFile), format, formatLine)
	}
	return d.removeRest()
}

// create makes a new store in an empty directory. The format file comes last and
// at once, so that a directory without it never held a record.
func (d *directory) create() error {
	if err := d.requireEmpty(); err != nil {
		return err
	}
	if err := os.Chmod(d.path, 0o700); err != nil {
		return storageError("restrict directory", err)
	}
	if err := os.Mkdir(d.data, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return storageError("make directory", err)
	}
	temp := filepath.Join(d.path, formatTemp)
	if err := writeSyncedFile(temp, formatLine); err != nil {
		return storageError("write format", err)
	}
	if err := os.Rename(temp, filepath.Join(d.path, formatFile)); err != nil {
		return storageError("write format", err)
	}
	if err := syncDirectory(d.path); err != nil {
		return storageError("sync directory", err)
	}
	return storageError("sync directory", syncDirectory(filepath.Dir(d.path)))
}

// requireEmpty tolerates what an interrupted create leaves behind.
func (d *directory) requireEmpty() error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return storageError("read directory", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case lockFile, formatTemp:
			continue
		case dataDir:
			if inside, err := os.ReadDir(d.data); err == nil && len(inside) == 0 {
				continue
			}
		}
		return fmt.Errorf("%w: %s has no file %q, yet holds %q: a new store needs an empty directory",
			store.ErrFormat, d.path, formatFile, e.Name())
	}
	return nil
}

// requireFree returns store.ErrNoSpace unless the file system has that many
// bytes left.
func (d *directory) requireFree(bytes uint64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(d.data, &fs); err != nil {
		return storageError("ask for free space", err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < bytes {
		return fmt.Errorf("%w: %s has %d MiB free and needs %d: make room there",
			store.ErrNoSpace, d.path, free>>20, bytes>>20)
	}
	return nil
}

// syncNames makes the names of new files in data durable. Badger syncs a new
// write-ahead log but not the directory that it is in. A directory that was not
// modified since the last call costs one stat.
func (d *directory) syncNames() error {
	now := time.Now()
	info, err := os.Stat(d.data)
	if err != nil {
		return err
	}
	mtime := info.ModTime()
	if mtime.Equal(d.syncedMtime) && mtime.Before(d.syncedAt.Add(-mtimeSlack)) {
		return nil
	}
	if err := syncDirectory(d.data); err != nil {
		return err
	}
	d.syncedAt, d.syncedMtime = now, mtime
	return nil
}

// close releases the lock.
func (d *directory) close() error { return d.lock.Close() }

func writeSyncedFile(path, content string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
