package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidDumps turns core dumps off twice: by their size, and by the process's
// dumpable attribute (prctl(2)), which also bars ptrace and /proc/PID/mem to
// others than root.
func forbidDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	return nil
}

// errLimit means that locking would sooner or later make an allocation fail.
var errLimit = errors.New("the limit of locked memory is finite (for systemd: LimitMEMLOCK=infinity)")

// lockMemory locks each page, present and future, from its first use on. Under a
// finite limit it does nothing: there, memory that grows beyond the limit ends the
// process.
func lockMemory() error {
	if !mayLock() {
		return errLimit
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// mayLock tells whether locked memory has no limit: by RLIMIT_MEMLOCK, or because
// CAP_IPC_LOCK overrides it (mlock(2)).
func mayLock() bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil && limit.Cur == unix.RLIM_INFINITY {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}
