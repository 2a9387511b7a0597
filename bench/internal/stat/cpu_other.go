//go:build !linux

package stat

import (
	"errors"
	"time"
)

// CPUTime fails: the processor time of another process is told on Linux alone.
func CPUTime(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
