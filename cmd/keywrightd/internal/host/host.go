// Package host asks the operating system to keep the process's memory to itself:
// no core dump, no reading by other processes of the same user, no swapping, and
// files that only their owner reads.
//
// It changes the whole process, once, before any secret is read.
package host

import (
	"fmt"
	"log/slog"
	"syscall"
)

// Harden does all of that, and logs what was not permitted, which is no error:
// the server works without. It fails only if core dumps cannot be turned off.
func Harden(log *slog.Logger) error {
	syscall.Umask(0o077)
	if err := forbidDumps(); err != nil {
		return fmt.Errorf("turn core dumps off: %w", err)
	}
	if err := lockMemory(); err != nil {
		log.Info("memory is not locked: secrets may reach the swap space", "reason", err)
	}
	return nil
}
