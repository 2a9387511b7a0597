// Package audit keeps the audit log: one JSON line per operation, written to a
// file before the answer leaves the server.
//
// A Log owns one directory, from Open to Close; a second process on the same
// directory is refused. The lines are numbered from 0 without gaps and never
// rewritten. They lie in segments, files named by the sequence of their first
// line. Only a half line that a crash left at the very end is ever cut off, at
// Open, before anything is appended.
//
// The lines are the leaves of a Merkle tree (package tree), whose root a
// checkpoint says and a signature covers (package checkpoint). The Log keeps the
// last checkpoint and the succession of keys for its caller, who signs and
// verifies; it makes sure that the lines are those of the checkpoint.
//
// All methods may be called by many goroutines at once. Concurrent calls of
// Append share one write and, where they ask for durability, one fdatasync: the
// first caller of a batch writes it for all, the others wait. Nothing is held
// during input or output but the turn to do it. A Log runs one goroutine of its
// own, which syncs what no caller waits for and notices when a failing disk
// takes writes again.
package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright/kms/audit/internal/disk"
	"github.com/keywright/keywright/kms/audit/internal/index"
	"github.com/keywright/keywright/kms/audit/internal/layout"
	"github.com/keywright/keywright/kms/audit/tree"
)

// Errors of a Log, for errors.Is.
var (
	// ErrUnavailable says that a line cannot be written now. The error also
	// wraps the cause. The log serves again by itself once the cause is gone.
	ErrUnavailable = errors.New("audit log cannot be written")
	// ErrUnsigned says why a line cannot be written: too many wait for a signed
	// checkpoint. It comes with ErrUnavailable.
	ErrUnsigned = errors.New("too many lines wait for a signed checkpoint")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("audit log is closed")
	// ErrLocked says that another process has the directory open.
	ErrLocked = errors.New("audit log is in use by another process")
	// ErrRange says that a line, or a size of the log, is not there yet.
	ErrRange = tree.ErrRange
	// ErrDropped says that a line was dropped by DropBefore; its hash is kept.
	ErrDropped = errors.New("audit line was dropped")
	// ErrTooLarge says that an entry's line would exceed MaxLineBytes.
	ErrTooLarge = errors.New("audit entry is too large")
)

// MaxLineBytes bounds one line.
const MaxLineBytes = layout.MaxLineBytes

// Mode is how long hot-path lines may be in the operating system's memory only.
type Mode string

// The modes of Options.Durability.
const (
	// ModeInterval returns once the line is written to the file, which the
	// death of this process cannot undo; an fdatasync starts within
	// Options.Interval, which covers the loss of power.
	ModeInterval Mode = "interval"
	// ModeFsync returns only after an fdatasync that covers the line.
	ModeFsync Mode = "fsync"
)

// Durability is what one call of Append waits for.
type Durability int

const (
	// Hot follows Options.Durability.
	Hot Durability = iota
	// Sync always waits for an fdatasync: for mutations, exports, and denials
	// of authenticated callers.
	Sync
)

// Options configures a Log; the zero value is ready for use.
type Options struct {
	Durability   Mode          // default ModeInterval
	Interval     time.Duration // between fdatasyncs in ModeInterval; default 10 ms
	SegmentBytes int64         // a segment that would grow beyond this is followed by a new one; default 256 MiB
	ReserveBytes int64         // disk space kept for lines of management; default 1 MiB, negative for none
	MaxUnsigned  uint64        // lines without a checkpoint beyond which operations are refused; 0 is no bound
	// RolledBack opens a log too that is not what its saved checkpoint says (Rejected
	// tells): for an operator who put the log back on purpose.
	RolledBack bool
	Logger     *slog.Logger // told when writing starts and stops failing; default none
}

// Recovered says what Open cut off, for the caller to record as an event.
type Recovered struct {
	File  string // path of the segment; empty if the log ended cleanly
	Bytes int64  // how many bytes of an unfinished end were removed
}

// Stats is a momentary view of a Log.
type Stats struct {
	Queue       int           // lines waiting to be written
	Written     uint64        // lines in the log
	Writes      uint64        // writes since Open, each of one or more lines
	Synced      uint64        // lines known to be on disk
	Signed      uint64        // lines that the last saved checkpoint covers
	First       uint64        // number of the oldest line that is kept
	Bytes       int64         // size of all segments
	Segments    int           // number of segments
	SyncLatency time.Duration // of the last fdatasync
}

// Log is an open audit log.
type Log struct {
	dir       string
	options   Options
	recovered Recovered
	rejected  *TamperedError // by Open, with Options.RolledBack
	lock      *os.File
	fdatasync func(*os.File) error
	tree      *tree.File    // changed in the turn to write
	index     *index.Writer // of the last segment, in the turn to write; nil if there can be none
	indexing  sync.Mutex    // the turn to make another segment's index anew

	bodies  sync.Pool // *body
	batches sync.Pool // *batch

	writes atomic.Uint64
	next   atomic.Uint64 // sequence of the next line; all lower ones are written
	synced atomic.Uint64 // all lower ones are on disk
	signed atomic.Uint64 // all lower ones are covered by the checkpoint
	fault  atomic.Pointer[fault]

	mu       sync.Mutex // guards the following; never held during I/O
	closed   bool
	open     [lanes]*batch // take lines until their leader's turn to write
	flushing *flush        // takes callers until its leader's turn to sync
	file     *os.File      // of the last segment
	segments []segment
	changed  chan struct{} // closed at the next write; nil if nobody waits

	writing sync.Mutex // the turn to write; before syncing where both are held
	out     []byte     // a byte of room, and the lines of the batch being written
	room    int64      // where the zeros behind the lines of the last segment end; see makeRoom
	cramped bool       // there can be no more of them
	torn    bool       // a failed write may have left bytes behind the last line
	reserve *reserve

	syncing     sync.Mutex // the turn to sync
	syncedBytes int64      // of the last segment, known to be on disk
	unsynced    atomic.Bool
	syncLatency atomic.Int64

	saving     sync.Mutex // the turn to save a checkpoint or keys
	checkpoint []byte     // the one last saved; guarded by mu
	keys       []byte     // as last saved; guarded by mu

	inflight sync.WaitGroup // calls of Append; added to under mu
	dirty    chan struct{}  // holds a token when a line awaits its fdatasync
	roomless chan struct{}  // holds a token when there should be more room
	failing  chan struct{}  // holds a token when a fault began
	stop     chan struct{}  // closed by Close
	kept     chan struct{}  // closed when the log's goroutine has ended
}

// Open opens the log in dir, which it makes if necessary (mode 0700; files have
// 0600). It reads the last segment whole and checks that the segments follow
// each other; the error for a damaged line is a *CorruptError, and a
// *TamperedError if the lines are not those of the saved checkpoint. ErrLocked
// says that another process has the log open.
func Open(dir string, o Options) (*Log, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l := newLog(dir, o, lock)
	if err := l.load(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	if err := l.reserve.restore(); err != nil { // a full disk must not keep the operator out
		l.fail(err)
	}
	go l.keep()
	return l, nil
}

func newLog(dir string, o Options, lock *os.File) *Log {
	return &Log{
		dir: dir, options: o, lock: lock,
		fdatasync: disk.Datasync,
		bodies:    sync.Pool{New: func() any { return new(body) }},
		batches:   sync.Pool{New: func() any { return new(batch) }},
		reserve:   &reserve{dir: dir, bytes: o.ReserveBytes},
		dirty:     make(chan struct{}, 1),
		roomless:  make(chan struct{}, 1),
		failing:   make(chan struct{}, 1),
		stop:      make(chan struct{}),
		kept:      make(chan struct{}),
	}
}

func (o *Options) complete() error {
	if o.Durability == "" {
		o.Durability = ModeInterval
	}
	if o.Durability != ModeInterval && o.Durability != ModeFsync {
		return fmt.Errorf("audit log: durability %q is neither %q nor %q", o.Durability, ModeInterval, ModeFsync)
	}
	if o.Interval <= 0 {
		o.Interval = 10 * time.Millisecond
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 256 << 20
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 1 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Durability tells which mode the log runs in.
func (l *Log) Durability() Mode { return l.options.Durability }

// Append gives e the next sequence number, writes its line and returns when
// the line is as durable as d asks.
//
// An error that is ErrUnavailable means that e must be treated as not
// recorded: the operation may not be answered. When writing failed, nothing of
// it stays in the file and its number is used again; when only its fdatasync
// failed, the line stays. While disk space is short, lines of PhaseOperation
// are refused before the rest, for which space is reserved. ErrTooLarge and
// ErrClosed are the other errors.
func (l *Log) Append(e *Entry, d Durability) (sequence uint64, err error) {
	return l.AppendAll([]*Entry{e}, d)
}

// AppendAll is Append for entries of one phase, whose lines follow each other: it
// returns the sequence number of the first. All of them are recorded, or none is.
func (l *Log) AppendAll(entries []*Entry, d Durability) (first uint64, err error) {
	bodies := make([]*body, 0, stackBodies)
	defer func() { l.recycle(bodies) }()
	for _, e := range entries {
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		body := l.bodies.Get().(*body)
		body.set(e)
		bodies = append(bodies, body)
		if size := len(body.text); size > MaxLineBytes-layout.HeadBytes {
			return 0, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, MaxLineBytes-layout.HeadBytes)
		}
	}
	b, place, err := l.join(bodies, laneOf(entries[0].Phase))
	if err != nil {
		return 0, err
	}
	defer l.inflight.Done()
	if first, err = l.written(b, place); err != nil {
		return 0, err
	}
	for i, e := range entries {
		e.Sequence = first + uint64(i)
	}
	if d == Sync || l.options.Durability == ModeFsync {
		return first, l.syncTo(first + uint64(len(entries)))
	}
	wake(l.dirty)
	return first, nil
}

// stackBodies is how many entries are appended at once without allocation.
const stackBodies = 16

// Next returns the sequence number of the next line: as many are in the log.
func (l *Log) Next() uint64 { return l.next.Load() }

// Recovered says what Open had to cut off.
func (l *Log) Recovered() Recovered { return l.recovered }

// Health returns nil, or why lines are refused now, as ErrUnavailable.
func (l *Log) Health() error {
	if f := l.fault.Load(); f != nil {
		return f.err
	}
	return l.unsigned(laneOperation)
}

// Stats returns figures for metrics. It is cheap.
func (l *Log) Stats() Stats {
	s := Stats{
		Synced:      l.synced.Load(),
		Written:     l.next.Load(),
		Signed:      l.signed.Load(),
		Writes:      l.writes.Load(),
		SyncLatency: time.Duration(l.syncLatency.Load()),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Segments, s.First = len(l.segments), l.segments[0].first
	for _, segment := range l.segments {
		s.Bytes += segment.size
	}
	for _, b := range l.open {
		if b != nil {
			s.Queue += len(b.bodies)
		}
	}
	return s
}

// Close waits for calls of Append, syncs what is written and releases the
// directory. Later calls return ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.closed = true
	l.mu.Unlock()
	l.inflight.Wait()
	close(l.stop)
	<-l.kept
	_, _ = l.trim() // else the next Open does it
	return errors.Join(l.syncTo(l.next.Load()), l.release())
}

// release closes what is open.
func (l *Log) release() error {
	l.endIndex()
	var errs []error
	if l.tree != nil {
		errs = append(errs, l.tree.Close())
	}
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	return errors.Join(append(errs, l.lock.Close())...)
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

func (l *Log) recycle(bodies []*body) {
	for _, body := range bodies {
		if cap(body.text) <= 64<<10 { // a rare giant should not stay
			l.bodies.Put(body)
		}
	}
}

// wake leaves a token unless there is one.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
