package stat

import (
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime returns the processor time that a process has used so far, user and
// system, of all its threads that are and were (clock_getcpuclockid(3)).
func CPUTime(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED: what the scheduler counts, in ns
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}
