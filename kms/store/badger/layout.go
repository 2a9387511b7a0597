package badger

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	badgerdb "github.com/dgraph-io/badger/v4"

	"github.com/keywright/keywright/kms/store"
)

// The records inside badger, format 1. Integers are big endian; lengths are
// unsigned varints.
//
//	'h'               head: revision (8) ‖ oldest kept revision (8)
//	'c' ‖ revision    changes of one transaction, sorted by key, each
//	                  0 ‖ length ‖ key ‖ length ‖ value   for a put
//	                  1 ‖ length ‖ key                    for a delete
//	'r' ‖ key         record: revision (8) ‖ value
const (
	headTable   = 'h'
	changeTable = 'c'
	recordTable = 'r'

	putTag    = 0
	deleteTag = 1

	revisionBytes  = 8
	maxInlineBytes = 1 << 20 // values below this stay in badger's tree
)

func headKey() []byte { return []byte{headTable} }

func recordKey(key string) []byte { return append([]byte{recordTable}, key...) }

func changeKey(r store.Revision) []byte {
	return binary.BigEndian.AppendUint64([]byte{changeTable}, uint64(r))
}

func (h head) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(h.revision))
	return binary.BigEndian.AppendUint64(b, uint64(h.oldest))
}

func decodeHead(b []byte) (head, error) {
	if len(b) != 2*revisionBytes {
		return head{}, damaged("head")
	}
	h := head{
		revision: store.Revision(binary.BigEndian.Uint64(b)),
		oldest:   store.Revision(binary.BigEndian.Uint64(b[revisionBytes:])),
	}
	if h.revision == 0 || h.oldest == 0 || h.oldest-1 > h.revision {
		return head{}, damaged("head")
	}
	return h, nil
}

func encodeRecord(r store.Revision, value []byte) []byte {
	b := make([]byte, 0, revisionBytes+len(value))
	return append(binary.BigEndian.AppendUint64(b, uint64(r)), value...)
}

// decodeRecord returns a record whose value shares b.
func decodeRecord(key string, b []byte) (store.Record, error) {
	if len(b) < revisionBytes {
		return store.Record{}, damaged(fmt.Sprintf("record %q", key))
	}
	r := store.Revision(binary.BigEndian.Uint64(b))
	return store.Record{Key: key, Value: b[revisionBytes:], Revision: r}, nil
}

// encodeChanges sorts the events by key and writes them.
func encodeChanges(events []store.Event) []byte {
	slices.SortFunc(events, func(a, b store.Event) int { return cmp.Compare(a.Key, b.Key) })
	var b []byte
	for _, e := range events {
		if e.Deleted {
			b = appendBytes(append(b, deleteTag), []byte(e.Key))
			continue
		}
		b = appendBytes(append(b, putTag), []byte(e.Key))
		b = appendBytes(b, e.Value)
	}
	return b
}

func appendBytes(b, data []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// decodeChanges returns events whose values share b.
func decodeChanges(r store.Revision, b []byte) (store.Changes, error) {
	changes := store.Changes{Revision: r}
	for len(b) > 0 {
		event, rest, ok := decodeEvent(b)
		if !ok {
			return store.Changes{}, damaged(fmt.Sprintf("changes of revision %d", r))
		}
		event.Revision = r
		changes.Events = append(changes.Events, event)
		b = rest
	}
	if len(changes.Events) == 0 {
		return store.Changes{}, damaged(fmt.Sprintf("changes of revision %d", r))
	}
	return changes, nil
}

func decodeEvent(b []byte) (event store.Event, rest []byte, ok bool) {
	tag, b := b[0], b[1:]
	key, b, ok := cutBytes(b)
	if !ok || tag > deleteTag {
		return event, nil, false
	}
	event.Key = string(key)
	if tag == deleteTag {
		event.Deleted = true
		return event, b, true
	}
	event.Value, b, ok = cutBytes(b)
	return event, b, ok
}

func cutBytes(b []byte) (data, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	end := size + int(n)
	return b[size:end:end], b[end:], true
}

func damaged(what string) error {
	return fmt.Errorf("%w: %s cannot be read", store.ErrCorrupt, what)
}

// newestHead reads the head, published or not.
func newestHead(db *badgerdb.DB) (head, error) {
	txn := db.NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	b, err := getValue(txn, headKey())
	if err != nil || b == nil {
		return head{oldest: 1}, err
	}
	return decodeHead(b)
}

// getRecord returns the record of key, with Revision 0 when there is none.
func getRecord(txn *badgerdb.Txn, key string) (store.Record, error) {
	b, err := getValue(txn, recordKey(key))
	if err != nil || b == nil {
		return store.Record{}, err
	}
	return decodeRecord(key, b)
}

// getValue returns a copy of what is stored under key, nil when there is
// nothing.
func getValue(txn *badgerdb.Txn, key []byte) ([]byte, error) {
	item, err := txn.Get(key)
	if errors.Is(err, badgerdb.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storageError("read", err)
	}
	b, err := item.ValueCopy(nil)
	return b, storageError("read", err)
}
