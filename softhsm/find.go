package softhsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Environment variables that name the module's path, the first one set wins.
const (
	EnvModule       = "SOFTHSM2_MODULE"
	EnvPKCS11Module = "KEYWRIGHT_PKCS11_MODULE"
)

// EnvConfig is the variable in which SoftHSM2 itself looks for its configuration.
const EnvConfig = "SOFTHSM2_CONF"

// ErrNotInstalled means that no SoftHSM2 module was found; the message says what
// to install.
var ErrNotInstalled = errors.New("SoftHSM2 is not installed")

const installAdvice = "install it with one of: " +
	"apt-get install softhsm2 (Debian, Ubuntu), " +
	"dnf install softhsm (Fedora, RHEL), " +
	"brew install softhsm (macOS); " +
	"or set " + EnvModule + " to the path of libsofthsm2.so"

// modulePatterns are the places where packages put the module.
func modulePatterns() []string {
	return []string{
		"/usr/lib/softhsm/libsofthsm2.so",       // Debian, Ubuntu, Alpine
		"/usr/lib/*-linux-*/softhsm/*hsm2.so",   // Debian multiarch
		"/usr/lib64/pkcs11/libsofthsm2.so",      // Fedora, RHEL
		"/usr/lib64/softhsm/libsofthsm*.so",     // Fedora, older
		"/usr/lib/pkcs11/libsofthsm2.so",        // Arch, 32-bit Fedora
		"/opt/homebrew/lib/softhsm/*hsm2.so",    // Homebrew on Apple silicon
		"/usr/local/lib/softhsm/libsofthsm2.so", // Homebrew on Intel, built from source
	}
}

// Find returns the path of the SoftHSM2 module: the one named by EnvModule or
// EnvPKCS11Module, else the first in the known places of Debian, Fedora and
// Homebrew. The error is ErrNotInstalled, also when a variable names a file that
// does not exist.
func Find() (modulePath string, err error) {
	for _, name := range []string{EnvModule, EnvPKCS11Module} {
		if path := os.Getenv(name); path != "" {
			return named(name, path)
		}
	}
	return search(modulePatterns())
}

func named(variable, path string) (string, error) {
	if !isFile(path) {
		return "", fmt.Errorf("%w: %s names %q, which is no file; %s", ErrNotInstalled, variable, path, installAdvice)
	}
	return path, nil
}

func search(patterns []string) (string, error) {
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("softhsm: pattern %q: %w", pattern, err)
		}
		for _, path := range matches {
			if isFile(path) {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %s", ErrNotInstalled, installAdvice)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
