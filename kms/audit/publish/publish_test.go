package publish_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/publish"
)

const origin = "keywright/00112233445566778899aabbccddeeff"

type memory struct{ private ed25519.PrivateKey }

func (m memory) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(m.private, message), nil
}

// log is a real log with the key that signs its checkpoints.
type log struct {
	*audit.Log
	key    checkpoint.Key
	signer memory
}

func newLog(t *testing.T, seed string) log {
	t.Helper()
	l, err := audit.Open(t.TempDir(), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	signer := memory{ed25519.NewKeyFromSeed([]byte(strings.Repeat(seed, 32)))}
	key, err := checkpoint.NewKey(origin, signer.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return log{l, key, signer}
}

// grow adds lines and returns the checkpoint of all.
func (l log) grow(t *testing.T, lines int, what string) (signed []byte, size uint64) {
	t.Helper()
	for i := range lines {
		if _, err := l.Append(&audit.Entry{RequestID: fmt.Sprint(what, i)}, audit.Hot); err != nil {
			t.Fatal(err)
		}
	}
	return l.sign(t, l.Next()), l.Next()
}

func (l log) sign(t *testing.T, size uint64) []byte {
	t.Helper()
	root, err := l.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := checkpoint.Sign(t.Context(), checkpoint.Checkpoint{Origin: origin, Size: size, Root: root}, l.key, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	f := publish.File{Path: path}
	l := newLog(t, "k")
	for range 2 {
		signed, size := l.grow(t, 3, "r")
		if err := f.Publish(t.Context(), signed, size, l); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != string(signed) {
			t.Errorf("%s: %q (%v)", f.Name(), got, err)
		}
	}
	if err := (publish.File{Path: filepath.Join(path, "below")}).Publish(t.Context(), nil, 0, l); err == nil {
		t.Error("published into a file")
	}
}

// A file is a small witness: what does not continue what it holds is refused.
func TestFileKeepsWhatIsNotContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint")
	f := publish.File{Path: path}
	l := newLog(t, "k")
	first, size := l.grow(t, 5, "r")
	kept, _ := l.grow(t, 5, "r")
	if err := f.Publish(t.Context(), kept, 10, l); err != nil {
		t.Fatal(err)
	}
	forged := newLog(t, "k")
	same, _ := forged.grow(t, 10, "x")
	longer, _ := forged.grow(t, 10, "x")
	for name, test := range map[string]struct {
		signed []byte
		size   uint64
		log    log
	}{"older": {first, size, l}, "another past of its size": {same, 10, forged}, "another past": {longer, 20, forged}} {
		if err := f.Publish(t.Context(), test.signed, test.size, test.log); !errors.Is(err, publish.ErrForked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(kept) {
		t.Errorf("the file has %q (%v)", got, err)
	}
	if err := f.Publish(t.Context(), kept, 10, l); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := os.WriteFile(path, []byte("notes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Publish(t.Context(), kept, 10, l); err == nil || errors.Is(err, publish.ErrForked) {
		t.Errorf("over something else: %v", err)
	}
}

func TestCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	l := newLog(t, "k")
	signed, size := l.grow(t, 3, "r")
	run := func(timeout time.Duration, argv ...string) error {
		return publish.Command{Argv: argv, Timeout: timeout}.Publish(t.Context(), signed, size, l)
	}
	if err := run(0, "tee", path); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(signed) {
		t.Errorf("the command got %q (%v)", got, err)
	}
	if err := run(0, "sh", "-c", "echo no room >&2; yes | head -c 100000; exit 3"); err == nil || !strings.Contains(err.Error(), "no room") || len(err.Error()) > 2000 {
		t.Errorf("%v, want a short error with what the command said", err)
	}
	start := time.Now()
	if err := run(100*time.Millisecond, "sh", "-c", "sleep 60 & sleep 60"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 20*time.Second {
		t.Errorf("%v after %v, want the deadline", err, time.Since(start))
	}
	if err := run(0, filepath.Join(path, "missing")); err == nil {
		t.Error("a program that is not there was run")
	}
}
