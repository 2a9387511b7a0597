package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/kms"
)

func TestCheckConfigChangesNothing(t *testing.T) {
	s := newSite(t)
	if got := must(t, s.run(t, "check-config")); !strings.Contains(got.stdout, "is valid") {
		t.Errorf("said %q", got.stdout)
	}
	if _, err := os.Stat(s.data()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("check-config made the data directory: %v", err)
	}
}

func TestCheckConfigLooksAtFiles(t *testing.T) {
	s := newSite(t)
	open := filepath.Join(s.dir, "open-pin")
	if err := os.WriteFile(open, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	pin := "file: " + s.token.PINFile
	tests := map[string]struct{ module, pin, more, want string }{
		"module":       {"/no/such/module.so", pin, "", "hsm.module: "},
		"module's dir": {s.dir, pin, "", "hsm.module: "},
		"PIN file":     {s.token.Module, "file: /no/such/pin", "", "hsm.pin: "},
		"PIN for all":  {s.token.Module, "file: " + open, "", "chmod 600"},
		"PIN variable": {s.token.Module, "env: NO_SUCH_VARIABLE", "", "hsm.pin: the variable NO_SUCH_VARIABLE"},
		"certificate":  {s.token.Module, pin, "tls: {cert_file: no.pem, key_file: no.pem}\n", "tls.cert_file: "},
		"bundle":       {s.token.Module, pin, "tls: {client_cas: [{name: corp, file: no.pem}]}\n", "tls.client_cas[0].file: "},
		"no bundle":    {s.token.Module, pin, "tls: {client_cas: [{name: corp, file: keywrightd.yaml}]}\n", "no certificate in PEM"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s.configureHSM(t, test.module, s.token.Label, test.pin, test.more)
			refused(t, s.run(t, "check-config"), 3, test.want)
		})
	}
}

func TestUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "absent.yaml")
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"unknown command":  {[]string{"sreve"}, 2, "sreve"},
		"unknown below":    {[]string{"certificates", "steal"}, 2, "steal"},
		"unknown flag":     {[]string{"serve", "--pin", "1234"}, 2, "--pin"},
		"an argument more": {[]string{"serve", "now"}, 2, "now"},
		"port base":        {[]string{"dev", "--port-base", "70000"}, 3, "--port-base"},
		"log level":        {[]string{"dev", "--log-level", "loud"}, 3, "--log-level"},
		"no configuration": {[]string{"serve", "--config", missing}, 3, "docs/keywrightd.yaml"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { refused(t, finish(t, program(t, test.args...)), test.code, test.want) })
	}
	if got := must(t, finish(t, program(t, "version"))); got.stdout != "keywrightd unreleased\n" {
		t.Errorf("version: %q", got.stdout)
	}
	if got := must(t, finish(t, program(t, "--help"))); !strings.Contains(got.stdout, "Exit codes:") {
		t.Errorf("help: %s", got.stdout)
	}
}

func TestExitCodesAreTheTables(t *testing.T) {
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	meanings := map[int]int{}
	for _, f := range failures() {
		if f.meaning != "" {
			meanings[f.code]++
			if row := fmt.Sprintf("| %d | %s |", f.code, f.meaning); !strings.Contains(string(page), row) {
				t.Errorf("docs/config.md lacks the row %q", row)
			}
		}
		for _, target := range f.errs {
			var printed strings.Builder
			wrapped := fmt.Errorf("while testing: %w", target)
			if code := report(&printed, wrapped); code != f.code {
				t.Errorf("%v: exit code %d, want %d", target, code, f.code)
			}
			if text := printed.String(); !strings.HasPrefix(text, "keywrightd: while testing: ") || strings.Count(text, "\n") != 1 {
				t.Errorf("%v: printed %q", target, text)
			}
		}
	}
	for code, n := range meanings {
		if n != 1 || code <= exitUsage {
			t.Errorf("exit code %d has %d meanings", code, n)
		}
	}
}

// A caller is not told why the HSM is away; who starts the server is.
func TestReportSaysTheCause(t *testing.T) {
	deeper := &kms.Error{Code: kms.Unavailable, Message: "the store is away", Cause: errors.New("no route")}
	var printed strings.Builder
	code := report(&printed, fmt.Errorf("start: %w", &kms.Error{Code: kms.Unavailable, Message: "the HSM is away", Cause: fmt.Errorf("%w: %w", hsm.ErrSignerNotFound, deeper)}))
	if code != 6 || !strings.Contains(printed.String(), hsm.ErrSignerNotFound.Error()) || !strings.Contains(printed.String(), "no route") {
		t.Errorf("code %d: %s", code, printed.String())
	}
}
