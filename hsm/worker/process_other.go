//go:build !linux

package worker

import (
	"os"
	"syscall"
)

var self, _ = os.Executable()

// attributes put the worker into a process group of its own, so that a terminal's
// Ctrl-C does not reach it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// dieWithParent has nothing to do: the end of the socket ends the worker.
func dieWithParent() error { return nil }

func firstThread() bool { return false }

// confine has nothing to take away: capabilities are Linux's.
func confine() error { return nil }

func closeOnExec() error { return nil }
