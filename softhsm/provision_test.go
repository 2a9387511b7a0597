package softhsm_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

const label = "provisioned"

// provision runs Provision with the real initialiser; the environment is
// restored when the test ends.
func provision(t *testing.T, dir string) *softhsm.Token {
	t.Helper()
	token, err := softhsm.Provision(t.Context(), dir, label, softhsmtest.Initialize)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func prepare(t *testing.T) (dir string) {
	t.Helper()
	softhsmtest.NeedModule(t)
	t.Setenv(softhsm.EnvConfig, "")
	base, err := os.MkdirTemp("", "keywright-provision-") // t.TempDir may hold a '#'
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	return filepath.Join(base, "hsm")
}

func TestProvisionMakesUsableToken(t *testing.T) {
	token := provision(t, prepare(t))
	if got := os.Getenv(softhsm.EnvConfig); got != token.ConfigPath {
		t.Errorf("%s = %q, want %q", softhsm.EnvConfig, got, token.ConfigPath)
	}
	slots := showSlots(t, token)
	if strings.Count(slots, "Label:            "+label) != 1 || !strings.Contains(slots, "User PIN init.:   yes") {
		t.Fatalf("softhsm2-util --show-slots:\n%s", slots)
	}
}

// showSlots asks SoftHSM2 itself, in a process that has nothing but Env.
func showSlots(t *testing.T, token *softhsm.Token) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "softhsm2-util", "--show-slots")
	cmd.Env = token.Env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestProvisionKeepsSecretsPrivate(t *testing.T) {
	token := provision(t, prepare(t))
	if softhsmtest.PIN(t, token) == readTrimmed(t, token.SOPINFile) {
		t.Error("both PINs are the same")
	}
	err := filepath.WalkDir(token.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProvisionIsIdempotent(t *testing.T) {
	dir := prepare(t)
	before := snapshot(t, provision(t, dir).Dir)
	after := snapshot(t, provision(t, dir).Dir)
	if !maps.Equal(before, after) {
		t.Fatalf("second call changed the directory: %v, then %v", slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
	}
}

// A directory that was moved gets a configuration that names its new place.
func TestProvisionFollowsMovedDirectory(t *testing.T) {
	dir := prepare(t)
	provision(t, dir)
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if slots := showSlots(t, provision(t, moved)); !strings.Contains(slots, label) {
		t.Fatalf("token not found after the move:\n%s", slots)
	}
}

func TestProvisionFinishesHalfDoneWork(t *testing.T) {
	died := errors.New("died")
	cases := map[string]softhsm.Initializer{
		"before the token": func(context.Context, string, string, string, string) error { return died },
		"after the token": func(ctx context.Context, module, label, soPIN, pin string) error {
			return errors.Join(softhsmtest.Initialize(ctx, module, label, soPIN, pin), died)
		},
	}
	for name, dies := range cases {
		t.Run(name, func(t *testing.T) {
			dir := prepare(t)
			if _, err := softhsm.Provision(t.Context(), dir, label, dies); !errors.Is(err, died) {
				t.Fatalf("error = %v, want %v", err, died)
			}
			slots := showSlots(t, provision(t, dir))
			if strings.Count(slots, "Initialized:      yes") != 1 {
				t.Fatalf("want exactly one token:\n%s", slots)
			}
		})
	}
}

func TestProvisionNoticesThatNoTokenAppeared(t *testing.T) {
	dir := prepare(t)
	nothing := func(context.Context, string, string, string, string) error { return nil }
	if _, err := softhsm.Provision(t.Context(), dir, label, nothing); err == nil {
		t.Fatal("Provision succeeded without a token")
	}
}

func TestProvisionRefuses(t *testing.T) {
	cases := map[string]struct {
		label string
		spoil func(*softhsm.Token) error
		want  error
	}{
		"other label": {"another", func(*softhsm.Token) error { return nil }, softhsm.ErrLabel},
		"lost PIN":    {label, func(k *softhsm.Token) error { return os.Remove(k.PINFile) }, softhsm.ErrIncomplete},
		"lost SO PIN": {label, func(k *softhsm.Token) error { return os.Remove(k.SOPINFile) }, softhsm.ErrIncomplete},
		"lost keys": {label, func(k *softhsm.Token) error {
			tokens := filepath.Join(k.Dir, "tokens")
			return errors.Join(os.RemoveAll(tokens), os.Mkdir(tokens, 0o700))
		}, softhsm.ErrIncomplete},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := prepare(t)
			if err := c.spoil(provision(t, dir)); err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)
			_, err := softhsm.Provision(t.Context(), dir, c.label, softhsmtest.Initialize)
			if !errors.Is(err, c.want) {
				t.Fatalf("error = %v, want %v", err, c.want)
			}
			if !maps.Equal(before, snapshot(t, dir)) {
				t.Fatal("a refused call changed the directory")
			}
		})
	}
}

func TestProvisionRefusesLabels(t *testing.T) {
	dir := prepare(t)
	for _, bad := range []string{"", "two words", "new\nline", "ümlaut", strings.Repeat("x", softhsm.MaxLabel+1)} {
		if _, err := softhsm.Provision(t.Context(), dir, bad, softhsmtest.Initialize); !errors.Is(err, softhsm.ErrLabel) {
			t.Errorf("label %q: error = %v, want ErrLabel", bad, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused label left %s behind: %v", dir, err)
	}
}

func TestProvisionRefusesDirectories(t *testing.T) {
	for _, bad := range []string{"a#b", "line\nbreak", "trailing "} {
		dir := filepath.Join(prepare(t), bad)
		if _, err := softhsm.Provision(t.Context(), dir, label, softhsmtest.Initialize); !errors.Is(err, softhsm.ErrDirectory) {
			t.Errorf("directory %q: error = %v, want ErrDirectory", bad, err)
		}
	}
}

func TestProvisionConcurrently(t *testing.T) {
	dir := prepare(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := softhsm.Provision(t.Context(), dir, label, softhsmtest.Initialize); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if slots := showSlots(t, provision(t, dir)); strings.Count(slots, "Initialized:      yes") != 1 {
		t.Fatalf("want exactly one token:\n%s", slots)
	}
}

func TestTestHelperGivesFreshTokens(t *testing.T) {
	var dirs []string
	for range 2 {
		t.Run("token", func(t *testing.T) { dirs = append(dirs, softhsmtest.Token(t).Dir) })
	}
	if len(dirs) == 2 && dirs[0] == dirs[1] {
		t.Fatalf("two tests share %s", dirs[0])
	}
}

func readTrimmed(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

// snapshot maps every file below dir to its content.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
