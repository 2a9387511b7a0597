package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm/worker"
)

// childrenOf lists the living children of a process by their stat lines, which
// everybody may read (proc_pid_stat(5)).
func childrenOf(t *testing.T, parent int) map[int][]string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int][]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		id, _, _ := strings.Cut(string(text), " ")
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest) // state, parent, process group
		pid, err := strconv.Atoi(id)
		if err == nil && len(fields) > 2 && fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			found[pid] = fields
		}
	}
	return found
}

// workersOf waits until a server has n workers.
func workersOf(t *testing.T, d *daemon, n int) (pids []int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		found := childrenOf(t, d.cmd.Process.Pid)
		if len(found) == n && strings.Contains(get(t, "http://"+d.metrics+"/metrics"), fmt.Sprintf("keywright_hsm_workers %d\n", n)) {
			for pid := range found {
				pids = append(pids, pid)
			}
			return pids
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server has the children %v, want %d workers:\n%s", found, n, d.printed())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tells waits until a line is among the metrics.
func tells(t *testing.T, d *daemon, line string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		metrics := get(t, "http://"+d.metrics+"/metrics")
		if strings.Contains(metrics, line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			name, _, _ := strings.Cut(line, " ")
			_, after, _ := strings.Cut(metrics, "\n"+name+" ")
			now, _, _ := strings.Cut(after, "\n")
			t.Fatalf("the metrics say %s %s, want %s", name, now, line)
		}
	}
}

// A server serves through workers; one that is killed is replaced while calls on
// keys in memory go on, and metrics and the log say so.
func TestServeThroughWorkers(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), "hsm: {", "hsm: {workers: 2, ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	d := s.serve(t)
	pids := workersOf(t, d, 2)
	for _, pid := range pids {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 bytes") {
			t.Errorf("worker %d may dump core:\n%s", pid, limits)
		}
		if group := childrenOf(t, d.cmd.Process.Pid)[pid][2]; group != strconv.Itoa(pid) {
			t.Errorf("worker %d is in process group %s", pid, group)
		}
	}
	d.call(t, s.data(), "", "namespace", "create", "demo")
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.call(t, s.data(), "", "key", "create", "demo/first")
	tells(t, d, "keywright_hsm_worker_restarts_total 1")
	tells(t, d, "keywright_hsm_healthy 1")
	after := workersOf(t, d, 2)
	if slices.Contains(after, pids[0]) {
		t.Error("the killed worker lives")
	}
	if log := d.printed(); !strings.Contains(log, "HSM worker was lost") || !strings.Contains(log, "signal: killed") {
		t.Errorf("log:\n%s", log)
	}
	d.stop(t)
	for _, pid := range after {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("worker %d outlives its server", pid)
		}
	}
}

// The server can use the token in its own process.
func TestServeInProcess(t *testing.T) {
	s := newSite(t)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.config, []byte(strings.Replace(string(text), "hsm: {", "hsm: {in_process: true, ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, s.run(t, "init"))
	d := s.serve(t)
	workersOf(t, d, 0)
	d.stop(t)
}

func TestWorkerIsNotRunByHand(t *testing.T) {
	refused(t, finish(t, program(t, worker.CommandName)), exitUsage, "no command to be run by hand")
	if help := must(t, finish(t, program(t, "--help"))); strings.Contains(help.stdout, worker.CommandName) {
		t.Error("the usage shows it")
	}
}
