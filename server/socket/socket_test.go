package socket

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func listen(t *testing.T, path string, mode fs.FileMode) *Listener {
	t.Helper()
	l, err := Listen(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
		t.Errorf("%v, %v; want mode %v", info, err, want)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	first := listen(t, path, 0o660)
	wantMode(t, path, 0o660)
	if first.Addr().String() != path {
		t.Errorf("address %v", first.Addr())
	}
	if _, err := Listen(path, 0); !errors.Is(err, ErrInUse) {
		t.Errorf("another at the same path: %v", err)
	}
	_ = first.UnixListener.Close() // as if its process had died: it does not answer
	second := listen(t, path, 0)
	wantMode(t, path, 0o600)
	_ = first.Close() // must not take the other's
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the second does not listen any more: %v", err)
	} else {
		_ = c.Close()
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestBusySocketIsKept: a process that is too busy to accept still has its socket.
func TestBusySocketIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // more than it has room for
		if c, err := net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	if _, err := Listen(path, 0); !errors.Is(err, ErrInUse) {
		t.Errorf("at the path of a busy process: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a file":           file,
		"a directory":      dir,
		"a link":           filepath.Join(dir, "link"),
		"no directory":     filepath.Join(dir, "none", "s"),
		"very long a path": filepath.Join(dir, strings.Repeat("s", 300)),
	} {
		if l, err := Listen(path, 0); err == nil {
			_ = l.Close()
			t.Errorf("%s was taken", name)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file: %q, %v", text, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOnly(t *testing.T) {
	self := uint32(os.Getuid())
	for _, test := range []struct {
		uids   []uint32
		served bool
	}{{[]uint32{self + 1, self}, true}, {[]uint32{self + 1}, false}, {nil, false}} {
		path := filepath.Join(t.TempDir(), "s")
		refused := make(chan uint32, 1)
		l := Only(listen(t, path, 0), test.uids, func(uid uint32) { refused <- uid })
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
		}()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(c) // a refused connection may be reset
		_ = c.Close()
		if served := len(text) > 0; served != test.served {
			t.Errorf("%v: served %v", test.uids, served)
		}
		if !test.served && <-refused != self {
			t.Error("another user was refused")
		}
		_ = l.Close()
	}
}
