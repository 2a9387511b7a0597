package badger

import (
	"os"
	"testing"
)

// TestMain lets the crash test run this binary as the process that it kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirectory); dir != "" {
		commitForever(dir)
	}
	os.Exit(m.Run())
}
