// Package publish takes checkpoints out of the reach of whoever controls the
// server: to a file elsewhere, to a command, or to a witness (C2SP tlog-witness),
// which vouches that it never saw another history.
//
// A Publisher may be used by many goroutines at once, and starts none that
// outlives a call.
package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/internal/disk"
)

// DefaultTimeout bounds what a command or a witness may take.
const DefaultTimeout = 10 * time.Second

// Prover proves that a log only grew. *audit.Log is one.
type Prover interface {
	// Consistency proves that the first size lines begin with the first old lines.
	Consistency(old, size uint64) ([][32]byte, error)
}

// Publisher publishes checkpoints, each later than the one before. A failure
// concerns one checkpoint; the next may be tried as if nothing had been.
type Publisher interface {
	// Name says for people what it is, without secrets.
	Name() string
	// Publish publishes the signed note of a log of size lines.
	Publish(ctx context.Context, signed []byte, size uint64, log Prover) error
}

// File keeps the last checkpoint in a file, such as on another machine's file
// system. Readers find the old one or the new one, never a part. A checkpoint that
// does not continue the one in the file is ErrForked, and the file stays.
type File struct{ Path string }

// Name implements Publisher.
func (f File) Name() string { return "file " + f.Path }

// Publish implements Publisher.
func (f File) Publish(_ context.Context, signed []byte, size uint64, log Prover) error {
	kept, err := os.ReadFile(f.Path)
	if err == nil {
		err = continues(kept, signed, size, log)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return disk.Replace(f.Path, signed)
}

// continues verifies that a checkpoint's log begins with that of a kept one.
func continues(kept, signed []byte, size uint64, log Prover) error {
	old, err := checkpoint.Peek(kept)
	if err != nil {
		return fmt.Errorf("it holds no checkpoint (%w): move it away", err)
	}
	c, err := checkpoint.Peek(signed)
	if err != nil {
		return err
	}
	var proof [][32]byte
	if old.Size > 0 && old.Size < size {
		if proof, err = log.Consistency(old.Size, size); err != nil {
			return err
		}
	}
	if err := c.Continues(old, proof); err != nil {
		return fmt.Errorf("%w: %w; if that is right, move the file away", ErrForked, err)
	}
	return nil
}

// Command runs a program that gets the checkpoint on its standard input. It must
// end with code 0.
type Command struct {
	Argv    []string      // program and arguments; no shell is involved
	Timeout time.Duration // after which it is killed, with its children; default DefaultTimeout
}

// Name implements Publisher.
func (c Command) Name() string { return "command " + c.Argv[0] }

// Publish implements Publisher. What the program prints is shown in the error,
// at most 512 bytes of it.
func (c Command) Publish(ctx context.Context, signed []byte, _ uint64, _ Prover) error {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	command := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...) //nolint:gosec // the operator says what to run
	said := &bounded{limit: 512}
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(signed), said, said
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = time.Second // for a child that left the group and holds the pipes
	err := command.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w; it said %q", c.Name(), err, said.kept)
	}
	return nil
}

// bounded keeps the beginning of what is written.
type bounded struct {
	limit int
	kept  []byte
}

func (b *bounded) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), b.limit-len(b.kept))]...)
	return len(p), nil
}

// Errors of a Witness, for errors.Is.
var (
	// ErrUnavailable says that the witness did not answer as one; try again.
	ErrUnavailable = errors.New("witness is unavailable")
	// ErrRefused says that the witness does not know the log or its key.
	ErrRefused = errors.New("witness refuses the log")
	// ErrForked says that a witness, or a file, saw another history of the log, or a
	// longer one: the log was changed or put back. It calls for an alarm.
	ErrForked = errors.New("another history of the log was seen before")
)
