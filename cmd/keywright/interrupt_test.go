package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// interruptLeavesNothing: a command that waits for its input in the middle of
// an envelope ends at once on SIGINT, with its exit code and without a file.
func interruptLeavesNothing(t *testing.T, profile string) {
	keywright := func(args ...string) *exec.Cmd {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Args = append([]string{"keywright"}, args...) // the name makes the test binary be keywright
		cmd.Env = append(os.Environ(), "KEYWRIGHT_CONFIG="+profile)
		return cmd
	}
	policy := filepath.Join(t.TempDir(), "use.cedar")
	if err := os.WriteFile(policy, []byte(`permit (principal, action, resource in Namespace::"int");`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"namespace", "create", "int"}, {"key", "create", "int/k"}, {"policy", "put", "int/use", policy}} {
		if out, err := keywright(args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	dir := t.TempDir()
	cmd := keywright("encrypt", "int/k", "--out", filepath.Join(dir, "out"))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { entries, err := os.ReadDir(dir); return err == nil && len(entries) == 1 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 130 {
		t.Fatalf("ended with %v, want exit code 130", err)
	}
	if elapsed := time.Since(start); elapsed > 10*time.Second {
		t.Fatalf("took %v to end", elapsed)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Fatalf("left %v, %v", entries, err)
	}
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("waited in vain")
		}
	}
}
