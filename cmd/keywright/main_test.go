package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keywright/keywright/softhsm/softhsmtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keywright": func() { os.Exit(run()) }})
}

// TestProgram runs the program against one real server on a real token.
func TestProgram(t *testing.T) {
	profile := startServer(t)
	t.Run("scripts", func(t *testing.T) { runScripts(t, profile) })
	t.Run("kube-plugin", func(t *testing.T) { kubePlugin(t, profile) })
	t.Run("interrupt", func(t *testing.T) { interruptLeavesNothing(t, profile) })
}

// docs is where the documentation is; scripts run elsewhere.
var docs, _ = filepath.Abs("../../docs")

// runScripts runs testdata/*.txtar; each works in a namespace of its own.
func runScripts(t *testing.T, profile string) {
	text, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	addr, _, _ := strings.Cut(strings.TrimPrefix(string(text), "addr: "), "\n")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("KEYWRIGHT_CONFIG", profile)
			env.Setenv("SITE", filepath.Dir(profile))
			env.Setenv("ADDR", addr)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would wait a second at each exit
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "flip": flip, "cut": cut, "bigfile": bigfile, "getjson": getjson, "mode": mode, "alone": alone, "waitfor": waitfor, "signedlog": signedlog, "until": until, "docscript": docscript,
		},
	})
}

// startServer builds keywrightd, starts it in development mode in a fresh folder
// and returns the administrator's profile. It is stopped when the test ends.
func startServer(t *testing.T) string {
	t.Helper()
	softhsmtest.NeedModule(t)
	dir, err := os.MkdirTemp("", "keywright-cli-") // SoftHSM2's configuration does not take all of t.TempDir's characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "keywrightd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../keywrightd").CombinedOutput(); err != nil {
		t.Fatalf("build keywrightd: %v\n%s", err, out)
	}
	site := filepath.Join(dir, "site")
	server := exec.Command(program, "dev", "--dir", site, "--port-base", "0")
	var log bytes.Buffer
	server.Stderr = &log
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() { ready <- awaitReady(out) }()
	t.Cleanup(func() { stopServer(t, server, &log) })
	select {
	case ok := <-ready:
		if ok {
			return filepath.Join(site, "keywright.yaml")
		}
		t.Fatal("keywrightd ended before it was ready")
	case <-time.After(time.Minute):
		t.Fatal("keywrightd was not ready within a minute")
	}
	return ""
}

func awaitReady(out io.Reader) bool {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "is ready: grpc") {
			go func() { _, _ = io.Copy(io.Discard, out) }() // what else it prints must not block it
			return true
		}
	}
	return false
}

func stopServer(t *testing.T, server *exec.Cmd, log *bytes.Buffer) {
	_ = server.Process.Signal(syscall.SIGTERM) // Wait tells if it has ended already
	if err := server.Wait(); err != nil || t.Failed() {
		t.Logf("keywrightd ended: %v\n%s", err, log)
	}
}

// docscript writes the commands that a page of docs shows: docscript PAGE FILE.
func docscript(ts *testscript.TestScript, _ bool, args []string) {
	page, err := os.ReadFile(filepath.Join(docs, args[0]))
	ts.Check(err)
	var script strings.Builder
	for i, block := range strings.Split(string(page), "```sh\n") {
		if commands, _, ok := strings.Cut(block, "```"); ok && i > 0 {
			script.WriteString(commands)
		}
	}
	if script.Len() == 0 {
		ts.Fatalf("%s shows no commands", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(script.String()), 0o600))
}

// exits runs a command that must exit with the given code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// flip changes a bit of a file's byte; negative offsets count from the end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	edit(ts, args, func(data []byte, offset int) []byte {
		if offset < 0 {
			offset += len(data)
		}
		data[offset] ^= 1
		return data
	})
}

// cut shortens a file to a size; negative sizes count from the end.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	edit(ts, args, func(data []byte, size int) []byte {
		if size < 0 {
			size += len(data)
		}
		return data[:size]
	})
}

// bigfile writes a file of the given size.
func bigfile(ts *testscript.TestScript, _ bool, args []string) {
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(data) // it never fails
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// edit applies change to a copy: flip|cut FROM TO NUMBER.
func edit(ts *testscript.TestScript, args []string, change func([]byte, int) []byte) {
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	number, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), change(data, number), 0o600))
}

// getjson sets a variable to a member of the JSON object in stdout, and fails if there is none.
func getjson(ts *testscript.TestScript, _ bool, args []string) {
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &object))
	value, ok := object[args[1]]
	if !ok {
		ts.Fatalf("stdout has no member %q", args[1])
	}
	ts.Setenv(args[0], fmt.Sprint(value))
}

// mode checks a file's permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("mode %s, want %s", got, args[1])
	}
}

// alone checks that a folder holds the named files and nothing else.
func alone(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if strings.Join(names, " ") != strings.Join(args[1:], " ") {
		ts.Fatalf("%s holds %q, want %q", args[0], names, args[1:])
	}
}

// waitfor waits until a file holds a text.
func waitfor(ts *testscript.TestScript, _ bool, args []string) {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(data), args[1]) {
			return
		}
	}
	ts.Fatalf("%s does not come to hold %q", args[0], args[1])
}

// until runs a program until what it prints, or fails with, holds a text.
func until(ts *testscript.TestScript, _ bool, args []string) {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(100 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // it may be meant to fail
		if strings.Contains(ts.ReadFile("stdout")+ts.ReadFile("stderr"), args[0]) {
			return
		}
	}
	ts.Fatalf("%s does not come to print %q", strings.Join(args[1:], " "), args[0])
}
