package stat

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of /proc/PID/stat: USER_HZ, 100 on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// CPUTime returns the processor time that a process has used so far, user and
// system, to 10 ms (proc(5), fields utime and stime). It fails where there is
// no /proc.
func CPUTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseCPUTime(text)
}

func parseCPUTime(text []byte) (time.Duration, error) {
	const user, system = 11, 12                                     // counted from the field behind the name
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // the name may hold spaces
	if len(fields) <= system {
		return 0, fmt.Errorf("process status has %d fields behind the name", len(fields))
	}
	var ticks uint64
	for _, field := range fields[user : system+1] {
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("process status: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
