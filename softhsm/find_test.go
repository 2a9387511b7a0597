package softhsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindPrefersEnvironment(t *testing.T) {
	module := filepath.Join(t.TempDir(), "libsofthsm2.so")
	if err := os.WriteFile(module, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{EnvModule, EnvPKCS11Module} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(EnvModule, "")
			t.Setenv(EnvPKCS11Module, "")
			t.Setenv(name, module)
			if got, err := Find(); err != nil || got != module {
				t.Fatalf("Find() = %q, %v; want %q", got, err, module)
			}
		})
	}
}

func TestFindRefusesNamedFileThatIsMissing(t *testing.T) {
	t.Setenv(EnvModule, filepath.Join(t.TempDir(), "absent.so"))
	_, err := Find()
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), EnvModule) {
		t.Fatalf("Find() error = %v; want ErrNotInstalled naming %s", err, EnvModule)
	}
}

func TestSearch(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "lib", "x86_64-linux-gnu", "softhsm", "libsofthsm2.so")
	if err := os.MkdirAll(filepath.Dir(module), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(module, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	directory := filepath.Join(dir, "lib") // matches, but is no file
	got, err := search([]string{filepath.Join(dir, "none.so"), directory, filepath.Join(dir, "lib/*-linux-*/softhsm/*hsm2.so")})
	if err != nil || got != module {
		t.Fatalf("search = %q, %v; want %q", got, err, module)
	}
}

func TestSearchSaysWhatToInstall(t *testing.T) {
	_, err := search([]string{filepath.Join(t.TempDir(), "*.so")})
	if !errors.Is(err, ErrNotInstalled) {
		t.Fatalf("error = %v; want ErrNotInstalled", err)
	}
	for _, command := range []string{"apt-get install softhsm2", "dnf install softhsm", "brew install softhsm"} {
		if !strings.Contains(err.Error(), command) {
			t.Errorf("error %q does not say %q", err, command)
		}
	}
}
