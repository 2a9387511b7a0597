// Package badger keeps a store.Store in one directory on a local disk, with the
// embedded database badger.
//
// Open takes the directory for one process at a time and starts two goroutines,
// the committer and the housekeeper, which end with Close. A Store may be used
// by any number of goroutines.
//
// The committer is the only writer. It takes whatever transactions are waiting,
// checks each against the state that its predecessors leave, and writes them as
// one synced badger transaction (group commit): each has its own revision and
// its own outcome, all share the cost of the sync. Badger runs in managed mode,
// where the number of a group's last revision is badger's timestamp. Readers
// read at the last published revision, so they never wait for a writer and never
// see what is not yet durable.
//
// The directory holds
//
//	format    one line, the version of all that follows
//	lock      locked (flock) while a process has the store open
//	data/     badger's own files; layout.go documents the records inside
//	data.new/ there while Compact works, or after it was interrupted
//
// Badger writes through memory maps of sparse files, where a full disk is not an
// error but a SIGBUS that ends the process. So commits are refused with
// store.ErrNoSpace while the file system has less than Options.MinFree left,
// which is more than badger's background work (writing out and merging tables)
// needs to finish; reads go on, and writes come back by themselves. What remains:
// another program that takes those last bytes within the second or so that such
// work is under way still ends the process. Nothing acknowledged is lost then, and
// Open refuses until there is room. A file system of its own rules it out.
package badger

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/keywright/keywright/kms/store"
)

// Defaults of Options.
const (
	DefaultKeepRevisions = 10_000
	DefaultMinFree       = 256 << 20
)

const (
	memTableBytes  = 16 << 20          // badger allows 15 % of it in one transaction
	flushBytes     = 4 * memTableBytes // what opening and closing may have to write out
	discardEvery   = 10 * time.Second  // how often superseded versions are given up
	collectEvery   = 10 * time.Minute  // how often the value log is looked at
	collectDiscard = 0.5               // share of garbage that makes a value log file worth rewriting
)

// Options configure Open. Only Dir is required.
type Options struct {
	// Dir is created with mode 0700 when it does not exist.
	Dir string
	// KeepRevisions is how many of the last transactions Watch can replay,
	// DefaultKeepRevisions when 0.
	KeepRevisions uint64
	// MinFree is the number of bytes that the file system must have left for a
	// commit to be accepted, DefaultMinFree when 0. Less than the default risks
	// the process on a full disk.
	MinFree uint64
	// Logger receives badger's own messages, errors and warnings as such, the
	// rest at debug level. Nothing is logged when nil.
	Logger *slog.Logger
}

// Store implements store.Store.
type Store struct {
	opts Options
	dir  *directory
	db   *badgerdb.DB

	commits chan *request      // unbuffered: what was not taken did not happen
	write   func(*group) error // writes a group durably; replaced by tests of failing disks
	broken  error              // why the committer writes no more; its own

	position position
	inUse    sync.RWMutex // held shared while badger is read, exclusively to wait for readers

	closed  atomic.Bool
	closing chan struct{}
	workers sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens the store in opts.Dir, making it if the directory is empty or
// missing. It returns store.ErrLocked when another process has it open,
// store.ErrFormat when the directory holds something else or a format of a newer
// program, store.ErrNoSpace when the disk is too full to open it safely.
func Open(opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := openDirectory(opts.Dir)
	if err != nil {
		return nil, err
	}
	s, err := openIn(dir, opts)
	if err != nil {
		return nil, errors.Join(err, dir.close())
	}
	s.workers.Go(s.commitLoop)
	s.workers.Go(s.housekeep)
	return s, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, &store.InvalidError{Field: "dir", Reason: "empty: name the directory of the store"}
	}
	if o.KeepRevisions == 0 {
		o.KeepRevisions = DefaultKeepRevisions
	}
	if o.MinFree == 0 {
		o.MinFree = DefaultMinFree
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

func openIn(dir *directory, opts Options) (*Store, error) {
	if err := dir.requireFree(flushBytes); err != nil {
		return nil, err
	}
	db, err := badgerdb.OpenManaged(databaseOptions(dir.data, opts.Logger))
	if err != nil {
		return nil, storageError("open "+dir.path, err)
	}
	head, err := newestHead(db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Store{
		opts: opts, dir: dir, db: db,
		commits: make(chan *request),
		closing: make(chan struct{}),
	}
	s.write = s.writeSynced
	s.position.publish(head)
	db.SetDiscardTs(uint64(head.revision))
	return s, nil
}

// databaseOptions keeps memory small (two memtables, no caches: stored values
// are sealed, so they neither compress nor repeat) and everything in the tree.
// No value reaches the value log, because badger only logs a failed sync of that
// and then acknowledges the write. Checksums are verified when a table is opened,
// not for each block: a block that fails then is silently taken for an empty one.
func databaseOptions(path string, logger *slog.Logger) badgerdb.Options {
	return badgerdb.DefaultOptions(path).
		WithSyncWrites(true).
		WithDetectConflicts(false). // there is one writer
		WithMemTableSize(memTableBytes).
		WithNumMemtables(2).
		WithNumCompactors(2).
		WithValueThreshold(maxInlineBytes).
		WithValueLogFileSize(maxInlineBytes).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithChecksumVerificationMode(options.OnTableRead).
		WithMetricsEnabled(false).
		WithLogger(databaseLogger{logger})
}

// Close implements store.Store. When the disk is too full to write out what is
// still in memory, it returns store.ErrNoSpace and leaves the files as a crash
// would: nothing that was committed is lost, but the directory stays locked
// until the process ends.
func (s *Store) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return store.ErrClosed
	}
	close(s.closing)
	s.workers.Wait()
	s.position.stop(store.ErrClosed)
	s.inUse.Lock()
	defer s.inUse.Unlock()
	if err := s.dir.requireFree(flushBytes); err != nil {
		return fmt.Errorf("closed without writing out the memory table: %w", err)
	}
	return errors.Join(storageError("close", s.db.Close()), s.dir.close())
}

// housekeep gives up what no reader can ask for any more.
func (s *Store) housekeep() {
	discard, collect := time.NewTicker(discardEvery), time.NewTicker(collectEvery)
	defer discard.Stop()
	defer collect.Stop()
	for {
		select {
		case <-discard.C:
			s.discardVersions()
		case <-collect.C:
			s.collectValueLog()
		case <-s.closing:
			return
		}
	}
}

// discardVersions lets badger drop versions that were superseded up to now. In
// managed mode badger does not know its readers, so first all those are waited
// for that may read at an older revision.
func (s *Store) discardVersions() {
	now := s.position.now().revision
	s.waitForReaders()
	s.db.SetDiscardTs(uint64(now))
}

func (s *Store) waitForReaders() {
	s.inUse.Lock()
	defer s.inUse.Unlock()
}

func (s *Store) collectValueLog() {
	for s.db.RunValueLogGC(collectDiscard) == nil {
		if s.closed.Load() {
			return
		}
	}
}

// storageError marks a failure of badger or the operating system.
func storageError(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, doing, err)
}
