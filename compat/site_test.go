// Package compat runs other programs' own client code against Keywright's programs, which
// it builds, on a real token.
package compat

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// patience is for what takes moments.
const patience = time.Minute

var programs string // the folder of keywright and keywrightd

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "keywright-compat-")
	if err == nil {
		programs = dir
		build := exec.Command("go", "build", "-o", dir, "./cmd/keywright", "./cmd/keywrightd")
		build.Dir, build.Stderr = "..", os.Stderr
		err = build.Run()
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// site is an installation that has been initialised.
type site struct {
	*testing.T
	dir, config string
	server      *exec.Cmd
}

// newSite makes one; unix are lines of YAML below listen.unix.
func newSite(t *testing.T, unix string) *site {
	t.Helper()
	token := softhsmtest.Token(t)
	s := &site{T: t, dir: t.TempDir()}
	s.config = filepath.Join(s.dir, "keywrightd.yaml")
	text := fmt.Sprintf("data_dir: data\nhsm: {module: %s, token_label: %s, pin: {file: %s}}\nlisten:\n  grpc: %s\n  rest: %s\n  metrics: %s\n  unix:\n%s",
		token.Module, token.Label, token.PINFile, free(t), free(t), free(t), unix)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run("keywrightd", "init", "--config", s.config)
	s.start()
	t.Cleanup(func() { s.kill() })
	return s
}

// free is an address that nobody listens on, of loopback.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *site) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(programs, program), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "KEYWRIGHT_CONFIG="+filepath.Join(s.dir, "data", "keywright.yaml"))
	return cmd
}

func (s *site) run(program string, args ...string) {
	s.Helper()
	if out, err := s.command(program, args...).CombinedOutput(); err != nil {
		s.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// keywright runs the command line as the administrator.
func (s *site) keywright(args ...string) {
	s.Helper()
	s.run("keywright", args...)
}

// start starts the server and waits until it is ready.
func (s *site) start() {
	s.Helper()
	s.server = s.command("keywrightd", "serve", "--config", s.config)
	s.await(s.server, "is ready")
}

// await starts a program, and waits until it prints a text.
func (s *site) await(cmd *exec.Cmd, text string) {
	s.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		s.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	_ = in.Close()
	ready := make(chan bool, 1)
	go func() {
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), text) {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			s.Fatalf("%s ended", cmd.Path)
		}
	case <-time.After(patience):
		s.Fatalf("%s is not ready", cmd.Path)
	}
}

// kill ends the server at once.
func (s *site) kill() {
	_ = s.server.Process.Kill()
	_ = s.server.Wait()
}

// eventually waits for something that takes a while.
func eventually(t *testing.T, ctx context.Context, what string, done func() error) {
	t.Helper()
	var err error
	for began := time.Now(); time.Since(began) < patience; time.Sleep(200 * time.Millisecond) {
		if err = done(); err == nil {
			return
		}
		if ctx.Err() != nil {
			break
		}
	}
	t.Fatalf("%s: %v", what, err)
}
