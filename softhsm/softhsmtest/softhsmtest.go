// Package softhsmtest gives each test a SoftHSM2 token of its own. It is for
// tests alone; no product package imports it.
//
// SoftHSM2 reads its configuration when the module is initialised, so a process
// has one token directory at a time. Each call therefore makes a fresh directory
// and points the process at it until the test ends (with t.Setenv, which refuses
// parallel tests): close every hsm.Device of the test before it ends, and run
// what should be parallel as parallel goroutines on one device.
package softhsmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/keywright/keywright/softhsm"
)

// Token provisions a fresh token in a temporary directory and points this
// process at it. Where SoftHSM2 is missing the test fails if the environment
// has CI set, and is skipped otherwise.
func Token(t testing.TB) *softhsm.Token {
	t.Helper()
	NeedModule(t)
	t.Setenv(softhsm.EnvConfig, "") // restored when the test ends; Provision sets it
	token, err := softhsm.Provision(t.Context(), tempDir(t), "keywright-test", Initialize)
	if err != nil {
		t.Fatalf("provision a SoftHSM2 token: %v", err)
	}
	return token
}

// tempDir is not t.TempDir, whose name may hold a '#', which starts a comment in
// SoftHSM2's configuration.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "keywright-softhsm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove token directory: %v", err)
		}
	})
	return dir
}

// NeedModule fails or skips the test where SoftHSM2 is missing, as Token does.
func NeedModule(t testing.TB) string {
	t.Helper()
	module, err := softhsm.Find()
	if err == nil {
		_, err = exec.LookPath("softhsm2-util")
	}
	if err == nil {
		return module
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// PIN returns the user's PIN of the token.
func PIN(t testing.TB, token *softhsm.Token) string {
	t.Helper()
	pin, err := os.ReadFile(token.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pin))
}

// Another initialises one more token, of the given label, in the same directory
// and with the same PINs. A module already initialised in this process sees it
// after its next initialisation.
func Another(t testing.TB, token *softhsm.Token, label string) {
	t.Helper()
	pin := PIN(t, token)
	if err := Initialize(t.Context(), token.Module, label, pin, pin); err != nil {
		t.Fatal(err)
	}
}

// Initialize is a softhsm.Initializer that runs softhsm2-util in a process of its
// own, so that tests need no cgo. The PINs stand on its command line: they
// protect nothing.
func Initialize(ctx context.Context, module, label, soPIN, pin string) error {
	cmd := exec.CommandContext(ctx, "softhsm2-util", "--init-token", "--free", "--module", module,
		"--label", label, "--so-pin", soPIN, "--pin", pin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("softhsm2-util: %w: %s", err, out)
	}
	return nil
}
