package audit

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keywright/keywright/kms/audit/internal/disk"
)

// retryEvery is how often a failing disk is probed.
const retryEvery = time.Second

// fault is why lines are refused.
type fault struct{ err error }

// fail records that the disk failed and returns the error for callers.
func (l *Log) fail(cause error) error {
	err := cause
	if !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, cause)
	}
	if l.fault.Swap(&fault{err}) == nil {
		l.options.Logger.Error("audit log cannot be written: operations are refused until it can", "dir", l.dir, "error", cause)
		wake(l.failing)
	}
	return err
}

// settle ends a fault after something succeeded, unless another reason stands.
func (l *Log) settle() {
	if l.fault.Load() == nil || l.unsynced.Load() || l.tree.Behind() || !l.reserve.held() {
		return
	}
	if l.fault.Swap(nil) != nil {
		l.options.Logger.Info("audit log can be written again", "dir", l.dir)
	}
}

// probe finds out whether the disk takes writes again, so that service comes
// back without a caller having to fail first. It waits for the turn to write
// because for a moment it takes up space that a line might need.
func (l *Log) probe() {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.reserve.restore(); err != nil {
		l.fail(err)
		return
	}
	if err := l.reserve.probe(); err != nil {
		l.fail(err)
		return
	}
	if err := l.tree.Flush(); err != nil {
		l.fail(err)
		return
	}
	if l.syncTo(l.next.Load()) == nil {
		l.settle()
	}
}

// reserve is a file that only takes up space, to be given up when the disk is
// full. All but held is used in the turn to write.
type reserve struct {
	dir   string
	bytes int64
	gone  atomic.Bool
}

const (
	reserveName = "reserve"
	probeName   = "probe"
	probeBytes  = 64 << 10
)

// held reports whether the space is still kept.
func (r *reserve) held() bool { return !r.gone.Load() }

// release frees the space; false says that there was none to free.
func (r *reserve) release() bool {
	return r.bytes > 0 && !r.gone.Swap(true) && os.Remove(r.path(reserveName)) == nil
}

// restore takes the space, unless it is held.
func (r *reserve) restore() error {
	if r.bytes <= 0 {
		return nil
	}
	if info, err := os.Stat(r.path(reserveName)); err == nil && info.Size() == r.bytes {
		r.gone.Store(false)
		return nil
	}
	err := fill(r.path(reserveName), r.bytes)
	r.gone.Store(err != nil)
	return err
}

// probe takes some more space for a moment.
func (r *reserve) probe() error {
	return errors.Join(fill(r.path(probeName), probeBytes), os.Remove(r.path(probeName)))
}

func (r *reserve) path(name string) string { return r.dir + string(os.PathSeparator) + name }

// fill makes a file of zeros that is on disk when it returns, or none.
func fill(path string, bytes int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, min(bytes, probeBytes))
	for left := bytes; left > 0 && err == nil; left -= int64(len(block)) {
		_, err = file.Write(block[:min(left, int64(len(block)))])
	}
	if err == nil {
		err = disk.Datasync(file)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// isFull tells a lack of space from other failures.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
