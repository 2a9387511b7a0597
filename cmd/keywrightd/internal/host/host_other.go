//go:build !linux

package host

import (
	"errors"

	"golang.org/x/sys/unix"
)

// forbidDumps turns core dumps off by their size.
func forbidDumps() error {
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

func lockMemory() error { return errors.New("not supported on this operating system") }
