// Package socket listens on unix sockets as files of a file system that others use too:
// never with other rights than asked for, in the place of what a dead process left, and
// of nothing else.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrInUse says that another process listens on a socket.
var ErrInUse = errors.New("another process listens there")

// Listener is a socket that listens. It owns its path from Listen to Close.
type Listener struct {
	*net.UnixListener
	path string
	made fs.FileInfo
}

// Listen makes a socket with the rights of mode (0 is 0600): under another name first,
// so that it is never there with others, and in place of one that a dead process left.
// ErrInUse says that somebody listens there.
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

// checkFree fails if anybody listens at path, or if something lies there that is
// no socket.
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
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return ErrInUse
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist): // nobody does, connect(2)
		return nil
	case errors.Is(err, syscall.EAGAIN): // who listens has more to do than to accept
		return ErrInUse
	}
	return err
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
func (l *Listener) Close() error {
	err := l.UnixListener.Close()
	if info, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(info, l.made) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}
