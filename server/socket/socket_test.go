package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestSocketFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	first, err := Listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 || first.Addr().String() != path {
		t.Errorf("%v, %v, %v", info.Mode(), err, first.Addr())
	}
	if _, err := Listen(path, 0); !errors.Is(err, ErrInUse) {
		t.Errorf("another at the same path: %v", err)
	}
	// Left by a process that died: it does not answer.
	_ = first.UnixListener.Close()
	second, err := Listen(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	_ = first.Close() // must not take the other's
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the second does not listen any more: %v", err)
	} else {
		_ = c.Close()
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
