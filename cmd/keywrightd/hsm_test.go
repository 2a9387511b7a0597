package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

func TestProbe(t *testing.T) {
	s := newSite(t)
	got := must(t, s.run(t, "hsm", "probe", "--quick", "--module", s.token.Module, "--token-label", s.token.Label, "--pin-file", s.token.PINFile))
	for _, line := range []string{
		"profile softhsm2: SoftHSM 2", "AES_256_GCM yes yes", "RSA_OAEP_2048_SHA256 yes no CKR_ARGUMENTS_BAD",
		"aes-gcm yes yes used", "AES-GCM without IV accepted, and the IV is a constant one", "SOFTWARE keys yes, under a root key by aes-gcm", "audit key ED25519",
	} {
		if !containsLine(got.stdout, line) {
			t.Errorf("the report lacks %q:\n%s", line, got.stdout)
		}
	}
}

// containsLine compares without the blanks that align columns.
func containsLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.Join(strings.Fields(line), " ") == want {
			return true
		}
	}
	return false
}

// The token of the configuration, as JSON, beside itself.
func TestProbeAndCompare(t *testing.T) {
	s := newSite(t)
	got := must(t, s.run(t, "hsm", "probe", "--quick", "--json"))
	var report hsm.TestReport
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.Token.Label != s.token.Label || report.Use.RootWrap != "aes-gcm" || len(report.Use.Keys) == 0 {
		t.Errorf("report %+v", report)
	}
	one, two := filepath.Join(s.dir, "one.json"), filepath.Join(s.dir, "two.json")
	for _, path := range []string{one, two} {
		if err := os.WriteFile(path, []byte(got.stdout), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table := must(t, finish(t, program(t, "hsm", "compare", one, two))).stdout
	for _, line := range []string{"CAPABILITY one two", "ED25519 yes yes", "RSA_OAEP_2048_SHA256 claims only claims only", "root key by aes-gcm used used"} {
		if !containsLine(table, line) {
			t.Errorf("the table lacks %q:\n%s", line, table)
		}
	}
	refused(t, finish(t, program(t, "hsm", "compare", s.config)), 1, "not a report")
	refused(t, finish(t, program(t, "hsm", "compare")), 2, "name the reports")
}

func TestProbeRefuses(t *testing.T) {
	s := newSite(t)
	wrong := filepath.Join(s.dir, "wrong-pin")
	if err := os.WriteFile(wrong, []byte("not-the-pin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	module, label, pin := "--module="+s.token.Module, "--token-label="+s.token.Label, "--pin-file="+s.token.PINFile
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"no module":       {[]string{"--module=" + s.config, label, pin}, 4, "no PKCS#11 library"},
		"missing module":  {[]string{"--module=/no/such.so", label, pin}, 4, "no such file"},
		"no token named":  {[]string{module, pin}, 3, "--token-label"},
		"no such token":   {[]string{module, "--token-label=absent", pin}, 6, s.token.Label},
		"no PIN":          {[]string{module, label}, 3, "0 sources of the PIN"},
		"two PINs":        {[]string{module, label, pin, "--pin-env=HOME"}, 3, "2 sources of the PIN"},
		"no PIN file":     {[]string{module, label, "--pin-file=/no/such"}, 3, "no such file"},
		"no variable":     {[]string{module, label, "--pin-env=NO_SUCH_VARIABLE"}, 3, "NO_SUCH_VARIABLE"},
		"wrong PIN":       {[]string{module, label, "--pin-file=" + wrong}, 5, "it is not tried again"},
		"long arguments":  {[]string{module, label, pin, "--init-args=" + strings.Repeat("x", 5000)}, 3, "at most 4096"},
		"no time":         {[]string{module, label, pin, "--timeout=0s"}, 3, "--timeout"},
		"a little time":   {[]string{module, label, pin, "--timeout=1ms"}, 11, "--timeout"},
		"an argument":     {[]string{module, label, pin, "more"}, 2, "more"},
		"a PIN as a flag": {[]string{module, label, "--pin", "1234"}, 2, "--pin"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := s.run(t, append([]string{"hsm", "probe"}, test.args...)...)
			refused(t, got, test.code, test.want)
			if strings.Contains(got.stderr, "not-the-pin") {
				t.Error("the PIN was printed")
			}
		})
	}
	softhsmtest.Another(t, s.token, s.token.Label)
	refused(t, s.run(t, "hsm", "probe", module, label, pin), 6, "ambiguous")
}
