package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/bench/internal/floor"
	"github.com/keywright/keywright/bench/internal/load/transittest"
	"github.com/keywright/keywright/bench/internal/rig"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// TestMain lets the test binary be the floor process that the bench starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == floor.Command {
		main()
	}
	os.Exit(m.Run())
}

// bench runs the program and returns its exit code and what it printed.
func runBench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &problems)
	return code, out.String(), problems.String()
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown command":    {[]string{"lod"}, "no command"},
		"unknown flag":       {[]string{"-x"}, "-help"},
		"argument":           {[]string{"-rounds", "1", "more"}, "no flag"},
		"bad expression":     {[]string{"-run", "("}, "-run"},
		"no rounds":          {[]string{"-rounds", "0"}, "-rounds"},
		"no log":             {[]string{"-entries", "0"}, "-entries"},
		"less than nothing":  {[]string{"-growth", "-1"}, "-growth"},
		"no time":            {[]string{"-duration", "0s"}, "-duration"},
		"load, no namespace": {[]string{"load", "-key", "k"}, "-namespace"},
		"load, no key":       {[]string{"load", "-namespace", "n"}, "-key"},
		"load, no payload":   {[]string{"load", "-namespace", "n", "-key", "k", "-payload", "0"}, "-payload"},
		"load, big batch":    {[]string{"load", "-namespace", "n", "-key", "k", "-batch", "10001"}, "-batch"},
		"load, REST streams": {[]string{"load", "-namespace", "n", "-key", "k", "-rest", "-streams", "2"}, "-streams"},
		"load, two servers":  {[]string{"load", "-key", "k", "-rest", "-vault"}, "-vault"},
		"load, odd data key": {[]string{"load", "-key", "k", "-vault", "-op", "datakey", "-payload", "33"}, "-payload"},
		"load, data keys":    {[]string{"load", "-key", "k", "-vault", "-op", "datakey", "-batch", "2"}, "-batch"},
		"load, half a pair":  {[]string{"load", "-namespace", "n", "-key", "k", "-cert-file", "c"}, "-key-file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runBench(t, test.args...)
			if code != exitUsage || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 || stdout != "" {
				t.Errorf("exit %d, %q, %q; want one line with %q", code, stdout, stderr, test.want)
			}
		})
	}
	if code, _, stderr := runBench(t, "load", "-help"); code != exitOK || !strings.Contains(stderr, "-token-file") {
		t.Errorf("help: exit %d, %q", code, stderr)
	}
}

// TestFigures measures everything once, too shortly to mean anything, against a
// real server.
func TestFigures(t *testing.T) {
	softhsmtest.NeedModule(t)
	t.Chdir("..") // where keywrightd is built
	out := t.TempDir()
	const entries = 20_000
	code, stdout, stderr := runBench(t, "-duration", "20ms", "-rounds", "1", "-entries", fmt.Sprint(entries), "-growth", "100", "-out", out)
	if code != exitOK {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	text, err := os.ReadFile(filepath.Join(out, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Name  string
		Value float64
		Goal  *float64
		Ratio *float64
	}
	if err := json.Unmarshal(text, &rows); err != nil {
		t.Fatal(err)
	}
	subjects := (&bench{figureOptions: figureOptions{entries: entries, growth: 100}}).subjects()
	seen := 0
	for _, s := range subjects {
		for _, r := range rows {
			if r.Name != s.name {
				continue
			}
			seen++
			if r.Value <= 0 || (s.goal.Ratio > 0) != (r.Goal != nil) || (s.predict != nil) != (r.Ratio != nil) || !strings.Contains(stdout, s.name) {
				t.Errorf("%+v", r)
			}
		}
	}
	if seen != len(subjects) {
		t.Errorf("%d of %d figures in the report:\n%s", seen, len(subjects), stdout)
	}
}

// TestLoad calls a real server as a user would.
func TestLoad(t *testing.T) {
	softhsmtest.NeedModule(t)
	t.Chdir("..")
	r, err := rig.New(t.Context(), t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := r.Serve(t.Context(), rig.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	token, forged := tokenFile(t, string(r.Token())), tokenFile(t, "kwt_0000000000")
	grpc := []string{"load", "-duration", "100ms", "-concurrency", "4", "-namespace", rig.Namespace, "-ca-file", r.CAFile(), "-addr", s.AddrGRPC()}
	rest := append(grpc[:len(grpc)-1:len(grpc)-1], s.AddrREST(), "-rest")
	sealing, signing := []string{"-key", rig.SealingKey, "-token-file", token}, []string{"-key", rig.SigningKey, "-token-file", token}
	vault := append(rest[:len(rest)-1:len(rest)-1], "-vault")
	loads(t, string(r.Token()), map[string]loadCase{
		"encrypt":               {join(grpc, sealing), "calls answered", exitOK},
		"decrypt":               {join(grpc, sealing, "-op", "decrypt"), "calls answered", exitOK},
		"data key":              {join(grpc, sealing, "-op", "datakey"), "calls answered", exitOK},
		"sign":                  {join(grpc, signing, "-op", "sign"), "calls answered", exitOK},
		"verify":                {join(grpc, signing, "-op", "verify"), "calls answered", exitOK},
		"batch":                 {join(grpc, sealing, "-batch", "5"), "items/s", exitOK},
		"pipeline":              {join(grpc, sealing, "-streams", "2"), "calls answered", exitOK},
		"open loop":             {join(grpc, sealing, "-rate", "50"), "5 calls answered", exitOK},
		"REST":                  {join(rest, sealing), "calls answered", exitOK},
		"REST decrypt":          {join(rest, sealing, "-op", "decrypt"), "calls answered", exitOK},
		"REST batch":            {join(rest, sealing, "-batch", "5"), "items/s", exitOK},
		"missing key":           {join(grpc, sealing, "-key", "absent"), "absent", exitFailure},
		"REST missing key":      {join(rest, sealing, "-key", "absent"), "404", exitFailure},
		"wrong purpose":         {join(grpc, signing), "SIGN_VERIFY", exitFailure},
		"wrong token":           {join(grpc, sealing, "-token-file", forged), "Unauthenticated", exitFailure},
		"REST wrong token":      {join(rest, sealing, "-token-file", forged), "401", exitFailure},
		"pipeline, denied":      {join(grpc, signing, "-streams", "2"), "SIGN_VERIFY", exitFailure},
		"no token":              {join(grpc, []string{"-key", rig.SealingKey}), "Unauthenticated", exitFailure},
		"no token file":         {join(grpc, sealing, "-token-file", "/nonexistent"), "token file", exitFailure},
		"nothing there":         {join(grpc, sealing, "-addr", "127.0.0.1:1"), "does not serve", exitFailure},
		"pipeline, uneven":      {join(grpc, sealing, "-streams", "3"), "calls answered", exitOK},
		"pipeline, absent key":  {join(grpc, sealing, "-key", "absent", "-streams", "2"), "absent", exitFailure},
		"pipeline, wrong token": {join(grpc, sealing, "-token-file", forged, "-streams", "2"), "-token-file " + forged, exitFailure},
		"REST, no token":        {join(rest, []string{"-key", rig.SealingKey}), "none was sent: give one with -token-file", exitFailure},
		"REST, nothing there":   {join(rest, sealing, "-addr", "127.0.0.1:1"), "does not serve", exitFailure},
		"REST to gRPC":          {join(rest, sealing, "-addr", s.AddrGRPC()), "does not answer HTTP", exitFailure},
		"vault, nothing there":  {join(vault, sealing, "-addr", "127.0.0.1:1"), "does not serve", exitFailure},
		"vault to Keywright":    {join(vault, sealing), "401", exitFailure},
	})
}

// TestLoadVault calls an engine that answers as transit does.
func TestLoadVault(t *testing.T) {
	const text = "hvs.right"
	s := transittest.New(t, text, "k")
	token, forged := tokenFile(t, text), tokenFile(t, "hvs.wrong")
	vault := []string{"load", "-vault", "-plaintext", "-duration", "50ms", "-concurrency", "3", "-addr", s.Listener.Addr().String()}
	known := []string{"-key", "k", "-token-file", token}
	loads(t, text, map[string]loadCase{
		"encrypt":     {join(vault, known), "calls answered", exitOK},
		"data key":    {join(vault, known, "-op", "datakey"), "calls answered", exitOK},
		"verify MAC":  {join(vault, known, "-op", "verify-mac"), "calls answered", exitOK},
		"batch":       {join(vault, known, "-batch", "5"), "items/s", exitOK},
		"open loop":   {join(vault, known, "-rate", "100"), "5 calls answered", exitOK},
		"mount":       {join(vault, known, "-namespace", "other"), "-namespace", exitFailure},
		"missing key": {join(vault, known, "-key", "absent"), "no key absent", exitFailure},
		"wrong token": {join(vault, known, "-token-file", forged), "permission denied; it is that of -token-file " + forged, exitFailure},
		"no token":    {join(vault, []string{"-key", "k"}), "give one with -token-file", exitFailure},
		"operation":   {join(vault, known, "-op", "x"), "give one of", exitFailure},
	})
}

// tokenFile holds a token.
func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// loadCase is what a user calls and sees.
type loadCase struct {
	args []string
	want string // in the result, or in the one line of the error
	code int
}

// loads runs them; none may print the token.
func loads(t *testing.T, token string, cases map[string]loadCase) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runBench(t, test.args...)
			if code != test.code || !strings.Contains(stdout+stderr, test.want) || strings.Count(stderr, "\n") != test.code {
				t.Errorf("exit %d, %q, %q; want exit %d and %q", code, stdout, stderr, test.code, test.want)
			}
			if strings.Contains(stdout+stderr, token) {
				t.Error("the token was printed")
			}
		})
	}
}

func join(args, more []string, last ...string) []string {
	return append(append(args[:len(args):len(args)], more...), last...)
}
