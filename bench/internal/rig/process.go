package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	startTime = time.Minute      // until a server must be ready
	stopTime  = 30 * time.Second // until a server must have ended
)

// Server is a keywrightd process that is ready.
type Server struct {
	grpc, rest, vault string // host:port; vault is of Serve only
	Mode              Mode
	PID               int
	cmd               *exec.Cmd
	cancel            context.CancelFunc
}

// AddrGRPC is where gRPC is served.
func (s *Server) AddrGRPC() string { return s.grpc }

// AddrREST is where REST is served.
func (s *Server) AddrREST() string { return s.rest }

// AddrVault is where the Vault-compatible API is served.
func (s *Server) AddrVault() string { return s.vault }

func build(ctx context.Context, path string) error {
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "./cmd/keywrightd").CombinedOutput() //nolint:gosec // path is the caller's folder
	if err != nil {
		return fmt.Errorf("build keywrightd (run this in the module's directory, or name a binary with -keywrightd): %w\n%s", err, out)
	}
	return nil
}

// start runs keywrightd until it says that it is ready. What it logs goes to a
// file beside the installation, whose end is told when it fails.
func (r *Rig) start(ctx context.Context, args ...string) (*Server, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Server{cmd: exec.CommandContext(ctx, r.binary, args...), cancel: cancel} //nolint:gosec // it is the server that was asked for
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = stopTime
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is for the bench, which stops the server
	s.cmd.Env = r.environment()
	var log bytes.Buffer
	file, err := os.OpenFile(filepath.Join(r.dir, "keywrightd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		cancel()
		return nil, err
	}
	defer file.Close() //nolint:errcheck // the process has its own descriptor
	s.cmd.Stderr = file
	output, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err == nil {
		s.PID = s.cmd.Process.Pid
		err = s.awaitReady(io.TeeReader(output, &log))
	}
	if err != nil {
		cancel()
		if s.cmd.Process != nil {
			err = errors.Join(err, s.cmd.Wait())
		}
		return nil, fmt.Errorf("keywrightd %s: %w\n%s%s", args[0], err, log.String(), tail(file.Name()))
	}
	return s, nil
}

// errNotReady means that a server ended, or took too long.
var errNotReady = errors.New("it did not become ready")

// awaitReady reads the server's output until the line with its addresses.
func (s *Server) awaitReady(output io.Reader) error {
	late := time.AfterFunc(startTime, s.cancel)
	defer late.Stop()
	ready := regexp.MustCompile(`is ready: grpc (\S+), rest (\S+), metrics \S+?(?:, vault (\S+))?$`)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if m := ready.FindStringSubmatch(lines.Text()); m != nil {
			s.grpc, s.rest, s.vault = m[1], m[2], m[3]
			return nil
		}
	}
	return errors.Join(errNotReady, lines.Err())
}

// stop ends the server as an operator would, by SIGTERM.
func (s *Server) stop() error {
	s.cancel()
	err := s.cmd.Wait()
	if s.cmd.ProcessState.Success() {
		return nil
	}
	return fmt.Errorf("keywrightd ended badly: %w", err)
}

// tail is the end of a log file.
func tail(path string) string {
	const most = 20
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(len(lines)-most, 0):], "\n")
}
