package hsm_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// needProc ends a test that cannot learn about a process: it fails where CI is set,
// and is skipped elsewhere.
func needProc(t testing.TB, err error) {
	t.Helper()
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("no /proc to look into: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// residentMemory is what a process has in memory, in bytes.
func residentMemory(t testing.TB, process int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", process))
	needProc(t, err)
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// threads counts the threads of this process.
func threads(t testing.TB) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	needProc(t, err)
	return len(tasks)
}

// descriptors counts the open files of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	needProc(t, err)
	return len(open)
}
