package badger

import (
	"context"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/keywright/keywright/kms/store"
)

// view runs read on a snapshot of the published state.
func (s *Store) view(ctx context.Context, read func(*badgerdb.Txn, head) error) error {
	s.inUse.RLock()
	defer s.inUse.RUnlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	now := s.position.now()
	txn := s.db.NewTransactionAt(uint64(now.revision), false)
	defer txn.Discard()
	return read(txn, now.head)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (record store.Record, err error) {
	if err := store.CheckKey("key", key); err != nil {
		return record, err
	}
	err = s.view(ctx, func(txn *badgerdb.Txn, _ head) error {
		record, err = getRecord(txn, key)
		if err == nil && record.Revision == 0 {
			return store.ErrNotFound
		}
		return err
	})
	return record, err
}

// List implements store.Store. Its cursor is the last key of the page before.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (page store.Page, err error) {
	if err := store.CheckList(prefix, after); err != nil {
		return page, err
	}
	err = s.view(ctx, func(txn *badgerdb.Txn, h head) error {
		page, err = readPage(txn, prefix, after, store.PageLimit(limit))
		page.Revision = h.revision
		return err
	})
	return page, err
}

func readPage(txn *badgerdb.Txn, prefix, after string, limit int) (store.Page, error) {
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: recordKey(prefix)})
	defer it.Close()
	var page store.Page
	size := 0
	for it.Seek(firstKey(prefix, after)); it.Valid(); it.Next() {
		if len(page.Records) == limit || size >= store.MaxPageBytes {
			page.Next = page.Records[len(page.Records)-1].Key
			break
		}
		record, err := itemRecord(it.Item())
		if err != nil {
			return store.Page{}, err
		}
		page.Records = append(page.Records, record)
		size += len(record.Key) + len(record.Value)
	}
	return page, nil
}

// firstKey is the least key that follows the cursor.
func firstKey(prefix, after string) []byte {
	if after == "" {
		return recordKey(prefix)
	}
	return append(recordKey(after), 0)
}

func itemRecord(item *badgerdb.Item) (store.Record, error) {
	key := string(item.Key()[1:])
	b, err := item.ValueCopy(nil)
	if err != nil {
		return store.Record{}, storageError("read", err)
	}
	return decodeRecord(key, b)
}

// Revision implements store.Store.
func (s *Store) Revision(ctx context.Context) (store.Revision, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	return s.position.now().revision, nil
}

// Size implements store.Store. Badger counts its tables once a minute; its
// write-ahead logs, a few times 16 MiB at most, are not among them.
func (s *Store) Size(ctx context.Context) (int64, error) {
	s.inUse.RLock()
	defer s.inUse.RUnlock()
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	tables, _ := s.db.Size()
	return tables, nil
}
