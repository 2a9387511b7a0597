package worker

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// self is the program that runs, even if another has taken its file's place.
const self = "/proc/self/exe"

// attributes put the worker into a process group of its own, so that a terminal's
// Ctrl-C does not reach it, and have the kernel kill it when the thread that started
// it ends: whoever starts a worker keeps its thread.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func firstThread() bool { return unix.Gettid() == unix.Getpid() }

// dropped are the capabilities that no PKCS#11 module needs, of a worker that runs as
// root (capabilities(7)). Without CAP_SYS_PTRACE it cannot read the memory of the
// server, which is not dumpable. Drivers of devices may need others: raw input and
// output, memory that stays in RAM, files of another user.
var dropped = []uintptr{
	unix.CAP_SYS_PTRACE, unix.CAP_SYS_MODULE, unix.CAP_SYS_BOOT, unix.CAP_SYS_TIME, unix.CAP_SYS_CHROOT, unix.CAP_SYS_PACCT, unix.CAP_SYS_TTY_CONFIG,
	unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SETFCAP, unix.CAP_KILL, unix.CAP_MKNOD, unix.CAP_CHOWN, unix.CAP_FSETID,
	unix.CAP_LINUX_IMMUTABLE, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE,
	unix.CAP_AUDIT_CONTROL, unix.CAP_AUDIT_READ, unix.CAP_AUDIT_WRITE, unix.CAP_MAC_ADMIN, unix.CAP_MAC_OVERRIDE,
	unix.CAP_SYSLOG, unix.CAP_WAKE_ALARM, unix.CAP_BLOCK_SUSPEND, unix.CAP_PERFMON, unix.CAP_BPF, unix.CAP_CHECKPOINT_RESTORE,
}

// confine takes from this thread, and so from the programs that it starts, the way to
// more privileges (set-user-ID programs, file capabilities), and what it may drop of
// those that it has. The thread must end with its goroutine.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_NO_NEW_PRIVS: %w", err)
	}
	for _, capability := range dropped {
		// EPERM is for who has no capabilities to drop, EINVAL for a kernel that knows
		// less.
		for _, err := range []error{
			unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_LOWER, capability, 0, 0),
			unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0),
		} {
			if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("drop capability %d: %w", capability, err)
			}
		}
	}
	return nil
}

// dieWithParent renews what attributes asked for, because the kernel forgets it when
// the program's file carries capabilities.
func dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_PDEATHSIG: %w", err)
	}
	return nil
}

// closeOnExec keeps descriptors that this process has inherited, and that Go
// therefore knows nothing of, from being inherited once more.
func closeOnExec() error {
	err := unix.CloseRange(socketFD, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux before 5.11
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= socketFD {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}
