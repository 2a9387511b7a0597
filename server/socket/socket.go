// Package socket makes unix sockets to listen on: with the rights that they are to
// have from the moment they are there, in place of one that a dead process left, and
// never in place of one that is served. It imports nothing of the project, since the
// server and the command line tool both need it.
//
// A Listener owns its path from Listen to Close.
//
// Threading: everything is safe for concurrent use.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrInUse says that another process listens on a socket.
var ErrInUse = errors.New("another process listens there")

// dialTimeout bounds how long a process that might listen is waited for.
const dialTimeout = time.Second

// Listener listens on a unix socket.
type Listener struct {
	*net.UnixListener
	path string
	made fs.FileInfo

	closing sync.Once
	closed  error
}

// Listen makes the socket: under another name first, so that it is never there with
// other rights than mode (0 is 0600), and in place of one that a dead process left.
func Listen(path string, mode fs.FileMode) (*Listener, error) {
	l := &Listener{path: path}
	err := checkFree(path)
	if err == nil {
		err = l.listen(mode)
	}
	if err != nil {
		return nil, fmt.Errorf("unix socket %s: %w", path, err)
	}
	return l, nil
}

// checkFree fails unless nothing is at path, or a socket of which the kernel says
// that nobody listens: one that is too busy to answer is not free.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something is there that is no socket; move it away, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, dialTimeout)
	switch {
	case err == nil:
		_ = c.Close()
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return ErrInUse
	}
	return fmt.Errorf("whether anybody listens there cannot be told: %w", err)
}

func (l *Listener) listen(mode fs.FileMode) error {
	if mode == 0 {
		mode = 0o600
	}
	dir, err := os.MkdirTemp(filepath.Dir(l.path), ".kw-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is empty but for what failed
	first := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: first, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	l.UnixListener = listener
	if err = os.Chmod(first, mode.Perm()); err == nil {
		err = os.Rename(first, l.path)
	}
	if err == nil {
		l.made, err = os.Lstat(l.path)
	}
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return nil
}

// Addr returns the path.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close ends listening and removes the socket, unless another has taken its place.
// Only the first call does something: later, the same inode may be another's socket.
func (l *Listener) Close() error {
	l.closing.Do(func() { l.closed = l.close() })
	return l.closed
}

func (l *Listener) close() error {
	err := l.UnixListener.Close()
	if info, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(info, l.made) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}
