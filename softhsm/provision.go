package softhsm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrIncomplete means that a directory holds a token but not the PINs or the
// label that belong to it. Nothing is made anew, because the token may hold keys.
var ErrIncomplete = errors.New("SoftHSM2 token directory is incomplete")

// ErrLabel means that the label is unusable, or that the directory holds a token
// of another label.
var ErrLabel = errors.New("token label refused")

// ErrDirectory means that SoftHSM2's configuration cannot name the directory.
var ErrDirectory = errors.New("token directory refused")

// MaxLabel is the longest token label in bytes (PKCS#11 C_InitToken: 32, blank padded).
const MaxLabel = 32

// Initializer makes a token with the given label and PINs in a free slot of the
// module, in the configuration that EnvConfig names at the time of the call, and
// has released the module when it returns. hsm.InitToken is one.
type Initializer func(ctx context.Context, module, label, soPIN, pin string) error

// Provision returns the token of that label in dir, and makes it if the
// directory holds none: directories of mode 0700, a configuration of its own, two
// random PINs in files of mode 0600. It is idempotent: a call that died half-way
// is finished by the next one, a finished token is left as it is. EnvConfig is
// set to the token's configuration when it returns, as by Activate.
//
// Errors: ErrNotInstalled, ErrLabel, ErrDirectory, ErrIncomplete, what initialize returns, or
// an error of the file system.
func Provision(ctx context.Context, dir, label string, initialize Initializer) (*Token, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	dir, err := absolute(dir)
	if err != nil {
		return nil, err
	}
	module, err := Find()
	if err != nil {
		return nil, err
	}
	t := newToken(module, dir, label)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("softhsm: token directory: %w", err)
	}
	unlock, err := lock(t.lockFile())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := t.provision(ctx, initialize); err != nil {
		return nil, err
	}
	return t, t.Activate()
}

func (t *Token) provision(ctx context.Context, initialize Initializer) error {
	made, err := exists(t.tokensDir())
	if err != nil {
		return err
	}
	if made {
		err = t.checkComplete()
	} else {
		err = t.make(ctx, initialize)
	}
	if err != nil {
		return err
	}
	return writeFile(t.ConfigPath, config(t.tokensDir()))
}

// make initialises the token in a staging directory. The rename at its end is
// the one step that makes the token exist: what an earlier attempt left in the
// staging directory was never handed out, and is dropped.
func (t *Token) make(ctx context.Context, initialize Initializer) error {
	soPIN, pin := rand.Text(), rand.Text()
	if err := t.stage(soPIN, pin); err != nil {
		return err
	}
	if err := os.Setenv(EnvConfig, t.stagingConfig()); err != nil {
		return fmt.Errorf("softhsm: set %s: %w", EnvConfig, err)
	}
	if err := initialize(ctx, t.Module, t.Label, soPIN, pin); err != nil {
		return fmt.Errorf("softhsm: initialise token %q: %w", t.Label, err)
	}
	if empty(t.stagingDir()) {
		return fmt.Errorf("softhsm: initialise token %q: no token appeared in %s; is the module in use in this process already?", t.Label, t.stagingDir())
	}
	if err := syncTree(t.stagingDir()); err != nil {
		return err
	}
	if err := os.Rename(t.stagingDir(), t.tokensDir()); err != nil {
		return fmt.Errorf("softhsm: publish token: %w", err)
	}
	if err := os.Remove(t.stagingConfig()); err != nil {
		return fmt.Errorf("softhsm: remove staging configuration: %w", err)
	}
	return syncPath(t.Dir)
}

// stage makes all that the token needs before it is initialised.
func (t *Token) stage(soPIN, pin string) error {
	if err := os.RemoveAll(t.stagingDir()); err != nil {
		return fmt.Errorf("softhsm: drop half-made token: %w", err)
	}
	if err := os.Mkdir(t.stagingDir(), 0o700); err != nil {
		return fmt.Errorf("softhsm: token directory: %w", err)
	}
	files := []struct{ path, content string }{
		{t.labelFile(), t.Label + "\n"},
		{t.SOPINFile, soPIN + "\n"},
		{t.PINFile, pin + "\n"},
		{t.stagingConfig(), config(t.stagingDir())},
	}
	for _, f := range files {
		if err := writeFile(f.path, f.content); err != nil {
			return err
		}
	}
	return nil
}

// checkComplete refuses a directory whose token cannot be used, or is not the
// one asked for.
func (t *Token) checkComplete() error {
	if empty(t.tokensDir()) {
		return fmt.Errorf("%w: %s is empty; restore it from a backup, or remove %s to start anew", ErrIncomplete, t.tokensDir(), t.Dir)
	}
	for _, path := range []string{t.PINFile, t.SOPINFile, t.labelFile()} {
		if !isFile(path) {
			return fmt.Errorf("%w: %s is missing; restore it from a backup, or remove %s to start anew", ErrIncomplete, path, t.Dir)
		}
	}
	label, err := os.ReadFile(t.labelFile())
	if err != nil {
		return fmt.Errorf("softhsm: token label: %w", err)
	}
	if have := strings.TrimSuffix(string(label), "\n"); have != t.Label {
		return fmt.Errorf("%w: %s holds token %q, not %q", ErrLabel, t.Dir, have, t.Label)
	}
	return nil
}

func checkLabel(label string) error {
	printable := func(r rune) bool { return r > ' ' && r <= '~' }
	if label == "" || len(label) > MaxLabel || strings.ContainsFunc(label, func(r rune) bool { return !printable(r) }) {
		return fmt.Errorf("%w: want 1 to %d printable ASCII characters without blanks", ErrLabel, MaxLabel)
	}
	return nil
}

// absolute returns dir as an absolute path that SoftHSM2 will read as written:
// its configuration knows no quoting, and '#' starts a comment.
func absolute(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("softhsm: token directory: %w", err)
	}
	if strings.ContainsAny(path, "#\r\n") || path != strings.TrimSpace(path) {
		return "", fmt.Errorf("%w: %q must hold no '#', no line break and no blank at its end", ErrDirectory, path)
	}
	return path, nil
}

// lock excludes other processes and goroutines until the function that it
// returns is called. The file stays: removing it would let two owners in.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("softhsm: lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("softhsm: lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
