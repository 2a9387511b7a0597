package hsm

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/keywright/keywright/hsm/internal/wait"
)

// turn waits until no other process of Keywright's on this machine opens the same
// library, and returns what ends the turn. SoftHSM2 writes its token's file anew at
// each login, and a process that starts meanwhile finds no token, or one without a
// PIN. The lock is advisory, on the library's file, and ends with the process; who
// waits longer than patience, or cannot have the file, goes on without.
func turn(ctx context.Context, path string, patience time.Duration) (done func()) {
	file, err := os.Open(path)
	if err != nil {
		return func() {}
	}
	ctx, cancel := wait.Bounded(ctx, patience)
	defer cancel()
	for syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		select {
		case <-ctx.Done():
			_ = file.Close()
			return func() {}
		case <-time.After(5 * time.Millisecond):
		}
	}
	return func() { _ = file.Close() }
}
