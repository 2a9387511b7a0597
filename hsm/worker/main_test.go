package worker

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
)

// TestMain makes the test binary be a worker when a Supervisor starts it, so that
// tests run real processes with the race detector in them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == CommandName {
		if err := Run(os.Stderr, func(*slog.Logger) error { return nil }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == idleCommand {
		idle()
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == badCommand {
		bad(os.Args[2])
		os.Exit(0)
	}
	if len(os.Args) > 4 && os.Args[1] == parentCommand {
		parent(os.Args[2], os.Args[3], os.Args[4])
	}
	// The race detector makes a program wait a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
