package audit

import (
	"os"
	"syscall"
)

// fdatasync makes the file's data durable, and its size, but not its times,
// which saves a journal commit.
func fdatasync(file *os.File) error {
	for {
		if err := syscall.Fdatasync(int(file.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
