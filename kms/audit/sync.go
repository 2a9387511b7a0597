package audit

import (
	"sync"
	"time"

	"github.com/keywright/keywright/kms/audit/internal/disk"
)

// flush is one fdatasync on behalf of all who wait for it.
type flush struct {
	need uint64 // all lines below must be on disk
	done sync.WaitGroup
	err  error // after done
}

// syncTo returns when all lines below need, which are written, are on disk.
// Concurrent callers share an fdatasync, led by the first of them.
func (l *Log) syncTo(need uint64) error {
	if l.synced.Load() >= need {
		return nil
	}
	f, leads := l.joinFlush(need)
	if !leads {
		f.done.Wait()
		return f.err
	}
	f.err = l.leadFlush(f)
	f.done.Done()
	return f.err
}

func (l *Log) joinFlush(need uint64) (f *flush, leads bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if leads = l.flushing == nil; leads {
		l.flushing = new(flush)
		l.flushing.done.Add(1)
	}
	f = l.flushing
	f.need = max(f.need, need)
	return f, leads
}

func (l *Log) leadFlush(f *flush) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	l.flushing = nil
	l.mu.Unlock()
	if l.synced.Load() >= f.need { // the one before was late enough
		return nil
	}
	return l.syncWritten()
}

// syncWritten makes the last segment durable as far as it is written, in the
// turn to sync. Segments before it are already.
func (l *Log) syncWritten() error {
	l.mu.Lock()
	file, size, next := l.file, l.segments[len(l.segments)-1].size, l.next.Load()
	l.mu.Unlock()
	start := time.Now()
	err := l.redirty(file.Name(), size)
	if err == nil {
		err = l.fdatasync(file)
	}
	if err != nil {
		l.unsynced.Store(true)
		return l.fail(err)
	}
	l.syncLatency.Store(int64(time.Since(start)))
	l.syncedBytes = size
	l.synced.Store(next)
	if l.unsynced.Swap(false) {
		l.settle()
	}
	return nil
}

// redirty rewrites, after a failed fdatasync, what it should have made durable.
func (l *Log) redirty(path string, size int64) error {
	if !l.unsynced.Load() {
		return nil
	}
	return disk.Rewrite(path, l.syncedBytes, size)
}

// keep is the log's own goroutine. It starts an fdatasync within the interval
// after a line was written that no caller waits for, and probes a failing disk.
func (l *Log) keep() {
	defer close(l.kept)
	var due, retry <-chan time.Time
	var last time.Time
	for {
		dirty := l.dirty
		if due != nil { // one fdatasync will do for all lines until then
			dirty = nil
		}
		if retry == nil && l.fault.Load() != nil {
			retry = time.After(retryEvery)
		}
		select {
		case <-l.stop:
			return
		case <-dirty:
			due = time.After(l.options.Interval - time.Since(last))
		case <-due:
			due, last = nil, time.Now()
			_ = l.syncTo(l.next.Load()) // recorded as a fault
			l.syncTreeAhead()
		case <-l.roomless:
			l.makeRoom()
		case <-l.failing: // go round to arm retry
		case <-retry:
			retry = nil
			l.probe()
		}
	}
}

// syncTreeAhead syncs hashes now and then, so that the end of a segment, where
// all must be on disk, does not wait long for it. A failure shows there.
func (l *Log) syncTreeAhead() {
	if l.tree.Unsynced() > 1<<20 {
		_ = l.tree.Sync()
	}
}

func (l *Log) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.stop:
	}
}
