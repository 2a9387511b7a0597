package floor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Command is the argument that makes the bench program a floor process.
const Command = "floor"

// stopTime is how long a floor process has to end.
const stopTime = 5 * time.Second

// Serve is a floor process: it prints its addresses as a line of JSON and ends
// when its input does, so that it never outlives the process that started it.
func Serve(certFile, keyFile string, in io.Reader, out io.Writer) error {
	s, err := Listen(certFile, keyFile)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(s.Addresses); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return s.Close()
}

// Process is a running floor process.
type Process struct {
	Addresses
	PID   int
	cmd   *exec.Cmd
	input io.Closer
}

// Start runs this program anew as a floor process.
func Start(ctx context.Context, certFile, keyFile string) (*Process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.CommandContext(ctx, program, Command, certFile, keyFile)} //nolint:gosec // it is this program
	p.cmd.Stderr, p.cmd.WaitDelay = os.Stderr, stopTime
	input, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.input, p.PID = input, p.cmd.Process.Pid
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &p.Addresses)
	}
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("the floor's server did not start: %w", err)
	}
	return p, nil
}

// Close ends the process.
func (p *Process) Close() error {
	_ = p.input.Close() // it is closed already where the process has ended
	return p.cmd.Wait()
}
