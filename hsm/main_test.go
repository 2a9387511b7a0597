package hsm_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/keywright/keywright/hsm/worker"
)

// TestMain makes the test binary be a worker when a Supervisor starts it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == worker.CommandName {
		if err := worker.Run(os.Stderr, func(*slog.Logger) error { return nil }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
