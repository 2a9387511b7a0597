package verify_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/kms/audit/verify"
)

const script = "../../../docs/verify_audit.py"

// TestPythonAgrees holds the verifier in docs, which was written from
// docs/audit.md, to the same cases.
func TestPythonAgrees(t *testing.T) {
	python := needPython(t)
	f := newFixture(t)
	for _, c := range tamperings {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, f.dir)
			c.change(t, f, dir)
			args := []string{script, dir}
			key := c.trusted(f)
			if key != nil {
				args = append(args, "--key", key.String())
			}
			kept := c.keptNote(f)
			if kept != nil {
				path := filepath.Join(t.TempDir(), "kept")
				must(t, os.WriteFile(path, kept, 0o600))
				args = append(args, "--checkpoint", path)
			}
			out, err := exec.CommandContext(t.Context(), python, args...).CombinedOutput()
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			} else {
				must(t, err)
			}
			last := lastLine(string(out))
			_, err = verify.Dir(t.Context(), dir, verify.Options{Key: key, Checkpoint: kept})
			if found, ok := errors.AsType[*verify.Finding](err); ok {
				if want := fmt.Sprintf("entry %d: %s: ", found.Entry, found.Kind); code != 1 || !strings.HasPrefix(last, want) {
					t.Errorf("Go says %v; Python, code %d:\n%s", found, code, out)
				}
				return
			}
			must(t, err)
			if code != 0 || !strings.HasPrefix(last, "ok: entries ") {
				t.Errorf("Go finds nothing; Python, code %d:\n%s", code, out)
			}
		})
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestPythonIsSmall: who is to trust the verifier reads it.
func TestPythonIsSmall(t *testing.T) {
	text, err := os.ReadFile(script)
	must(t, err)
	if lines := strings.Count(string(text), "\n"); lines >= 200 {
		t.Errorf("%d lines, want fewer than 200", lines)
	}
}

func needPython(t *testing.T) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("needs python3 (apt install python3): %v", err)
	}
	must(t, err)
	return python
}
