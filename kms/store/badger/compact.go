package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/keywright/keywright/kms/store"
)

// Compact rewrites the store in opts.Dir, which no process may have open, so that
// its files hold the present records and nothing that was replaced or removed
// before. Records keep their revisions; the changes that Watch could replay are
// given up. It is all or nothing: a crash leaves the old files or the new ones, and
// what is left of the others is removed by the next Open or Compact. What the file
// system or the disk keeps of removed files is beyond it.
//
// It needs as much free space as the store takes now, else it returns
// store.ErrNoSpace; other errors are those of Open. dir must hold a store.
func Compact(opts Options) error {
	opts, err := opts.withDefaults()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(opts.Dir, formatFile)); err != nil {
		return fmt.Errorf("%w: %s holds no store: %w", store.ErrFormat, opts.Dir, err)
	}
	dir, err := openDirectory(opts.Dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.compact(opts.Logger), dir.close())
}

func (d *directory) compact(logger *slog.Logger) error {
	size, err := d.size()
	if err != nil {
		return storageError("measure the store", err)
	}
	if err := d.requireFree(size + flushBytes); err != nil {
		return err
	}
	if err := d.rewrite(logger); err != nil {
		return errors.Join(err, d.removeRest())
	}
	if err := exchange(d.fresh, d.data); err != nil {
		return errors.Join(storageError("put the new files in place", err), d.removeRest())
	}
	if err := syncDirectory(d.path); err != nil {
		return storageError("sync directory", err)
	}
	return d.removeRest()
}

func (d *directory) size() (total uint64, err error) {
	err = filepath.WalkDir(d.data, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			total += uint64(info.Size())
		}
		return err
	})
	return total, err
}

// rewrite makes new files, beside those in use, from the newest state.
func (d *directory) rewrite(logger *slog.Logger) (err error) {
	from, err := badgerdb.OpenManaged(databaseOptions(d.data, logger))
	if err != nil {
		return storageError("open "+d.path, err)
	}
	defer func() { err = errors.Join(err, storageError("close", from.Close())) }()
	to, err := badgerdb.OpenManaged(databaseOptions(d.fresh, logger))
	if err != nil {
		return storageError("make "+d.fresh, err)
	}
	err = copyRecords(from, to)
	if err := errors.Join(err, storageError("close", to.Close())); err != nil {
		return err
	}
	return storageError("sync directory", syncDirectory(d.fresh))
}

// copyRecords writes all records as one state. Their revisions are in their
// values; badger's own timestamps are not looked at below the head's.
func copyRecords(from, to *badgerdb.DB) error {
	h, err := newestHead(from)
	if err != nil || h.revision == 0 {
		return err
	}
	txn := from.NewTransactionAt(uint64(h.revision), false)
	defer txn.Discard()
	batch := to.NewWriteBatchAt(uint64(h.revision))
	defer batch.Cancel()
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: []byte{recordTable}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		value, err := it.Item().ValueCopy(nil)
		if err == nil {
			err = batch.Set(it.Item().KeyCopy(nil), value)
		}
		if err != nil {
			return storageError("copy a record", err)
		}
	}
	h.oldest = h.revision + 1
	if err := batch.Set(headKey(), h.encode()); err != nil {
		return storageError("copy the head", err)
	}
	return storageError("copy the records", batch.Flush())
}

// removeRest removes what is not, or no longer, in use.
func (d *directory) removeRest() error {
	if _, err := os.Lstat(d.fresh); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(d.fresh); err != nil {
		return storageError("remove "+d.fresh, err)
	}
	return storageError("sync directory", syncDirectory(d.path))
}
