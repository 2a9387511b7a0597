package softhsm

import (
	"fmt"
	"os"
	"path/filepath"
)

// Token is a provisioned SoftHSM2 token. It holds paths, never a PIN.
type Token struct {
	Module     string // path of the PKCS#11 library
	Dir        string // absolute path of the directory that holds everything below
	ConfigPath string // SoftHSM2's configuration for this token
	Label      string // CKA label of the token
	PINFile    string // the user's PIN, one line, mode 0600
	SOPINFile  string // the security officer's PIN, one line, mode 0600
}

// Env returns the environment entries ("NAME=value") with which a child process
// reaches this token.
func (t *Token) Env() []string {
	return []string{EnvConfig + "=" + t.ConfigPath}
}

// Activate points this process at the token, by setting EnvConfig. SoftHSM2
// reads it when the module is initialised: call it before, and not while another
// goroutine may be inside the module. A process sees one configuration at a time.
func (t *Token) Activate() error {
	if err := os.Setenv(EnvConfig, t.ConfigPath); err != nil {
		return fmt.Errorf("softhsm: set %s: %w", EnvConfig, err)
	}
	return nil
}

// newToken names the files of the token in dir.
func newToken(module, dir, label string) *Token {
	return &Token{
		Module:     module,
		Dir:        dir,
		ConfigPath: filepath.Join(dir, "softhsm2.conf"),
		Label:      label,
		PINFile:    filepath.Join(dir, "pin"),
		SOPINFile:  filepath.Join(dir, "so-pin"),
	}
}

func (t *Token) labelFile() string  { return filepath.Join(t.Dir, "label") }
func (t *Token) lockFile() string   { return filepath.Join(t.Dir, ".lock") }
func (t *Token) tokensDir() string  { return filepath.Join(t.Dir, "tokens") }
func (t *Token) stagingDir() string { return filepath.Join(t.Dir, "tokens.new") }

// stagingConfig belongs to a token that is still being made.
func (t *Token) stagingConfig() string { return filepath.Join(t.Dir, "softhsm2.new.conf") }

// config is SoftHSM2's configuration for tokens in the given directory
// (softhsm2.conf(5)).
func config(tokensDir string) string {
	return "directories.tokendir = " + tokensDir + "\n" +
		"objectstore.backend = file\n" +
		"log.level = ERROR\n" +
		"slots.removable = false\n"
}
