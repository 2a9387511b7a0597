package disk

import (
	"os"
	"syscall"
)

// Datasync makes the file's data durable, and its size, but not its times,
// which saves a journal commit.
func Datasync(file *os.File) error {
	for {
		if err := syscall.Fdatasync(int(file.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
