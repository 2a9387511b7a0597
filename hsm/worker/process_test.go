package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// A worker has of its Supervisor's what it was given, and nothing else.
func TestWorkerHasNothingOfTheServers(t *testing.T) {
	token := softhsmtest.Token(t)
	config := configFor(token)
	t.Setenv("KEYWRIGHT_TEST_SECRET", "hunter2")
	open, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0) // as one inherited from a shell: not closed on exec
	if err != nil {
		t.Fatal(err)
	}
	high, err := unix.FcntlInt(uintptr(open), unix.F_DUPFD, 77)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(syscall.Close(open), syscall.Close(high)) })
	s, _ := supervise(t, config)
	pid := workers(t, s)[0].cmd.Process.Pid

	environ := read(t, pid, "environ")
	if !strings.Contains(environ, softhsm.EnvConfig+"=") || strings.Contains(environ, "KEYWRIGHT_TEST_SECRET") {
		t.Errorf("environment %q", environ)
	}
	for entry := range strings.SplitSeq(strings.Trim(environ, "\x00"), "\x00") {
		if name, _, _ := strings.Cut(entry, "="); !slices.ContainsFunc(config.Env, func(p string) bool { return Matches(p, name) }) {
			t.Errorf("variable %s", name)
		}
	}
	if line := read(t, pid, "cmdline"); strings.Contains(line, softhsmtest.PIN(t, token)) {
		t.Error("the PIN is an argument")
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		name, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd", fd.Name()))
		if fd.Name() == "77" || (name == os.DevNull && fd.Name() > "1") {
			t.Errorf("descriptor %s is %s", fd.Name(), name)
		}
	}
	module, err := filepath.EvalSymlinks(token.Module)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(read(t, pid, "maps"), module) || strings.Contains(read(t, os.Getpid(), "maps"), module) {
		t.Error("the module is to be loaded in the worker, and there alone")
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("process group %d of worker %d: %v", group, pid, err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		send(t, workers(t, s)[0], signal)
	}
	if _, err := s.Random(t.Context(), 8); err != nil || s.Status().WorkerRestarts != 0 {
		t.Errorf("after the signals of a terminal: %v, %+v", err, s.Status())
	}
}

// A worker cannot gain privileges, and has given up what no module needs. The server
// keeps what it has.
func TestWorkerDropsPrivileges(t *testing.T) {
	s, _ := supervise(t, configFor(softhsmtest.Token(t)))
	own := status(t, os.Getpid())
	worker := status(t, workers(t, s)[0].cmd.Process.Pid)
	if worker["NoNewPrivs"] != "1" || own["NoNewPrivs"] != "0" {
		t.Errorf("NoNewPrivs is %s in the worker, %s in the server", worker["NoNewPrivs"], own["NoNewPrivs"])
	}
	had := capabilities(t, own["CapEff"])
	for _, kind := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		for _, c := range dropped {
			if capabilities(t, worker[kind])&(1<<c) != 0 {
				t.Errorf("%s has capability %d", kind, c)
			}
		}
	}
	if os.Getuid() == 0 && (had&(1<<unix.CAP_SYS_PTRACE) == 0 || capabilities(t, worker["CapEff"])&(1<<unix.CAP_DAC_OVERRIDE) == 0) {
		t.Errorf("root's capabilities: server %x, worker %s", had, worker["CapEff"])
	}
}

// status reads proc_pid_status(5).
func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for line := range strings.Lines(read(t, pid, "status")) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

func capabilities(t *testing.T, mask string) uint64 {
	t.Helper()
	set, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func read(t testing.TB, pid int, name string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parentCommand makes the test binary a server that opens a Supervisor and says so.
const parentCommand = "hsm-worker-parent"

func parent(module, label, pinFile string) {
	s, err := Open(context.Background(), Config{Env: DefaultEnv(), Workers: 2,
		HSM: hsm.Config{Module: module, TokenLabel: label, PIN: hsm.PINFromFile(pinFile)}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for s.Status().Workers < 2 {
		time.Sleep(time.Millisecond)
	}
	for _, p := range *s.live.Load() {
		fmt.Println(p.cmd.Process.Pid)
	}
	select {}
}

// Workers end with their server, however it ends.
func TestWorkersDieWithTheirParent(t *testing.T) {
	token := softhsmtest.Token(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, parentCommand, token.Module, token.Label, token.PINFile)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	lines := bufio.NewScanner(out)
	for len(pids) < 2 && lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != 2 {
		t.Fatalf("workers %v", pids)
	}
	// One that is stopped does not read its end of the socket.
	if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	for _, pid := range pids {
		eventually(t, func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			living := err == nil && !strings.Contains(string(stat), ") Z ") // whoever adopted it may be slow to reap it
			if living {
				return fmt.Errorf("worker %d lives: %s", pid, stat)
			}
			return nil
		})
	}
}

func TestRunByHand(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][]*os.File{"alone": nil, "with a file": {os.Stdin}} {
		cmd := exec.CommandContext(t.Context(), program, CommandName)
		cmd.ExtraFiles = files
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), ErrByHand.Error()) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}
