package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// twoTokens is a site with a second token, "east", in the same module.
type twoTokens struct {
	*site
	east string // the directory of its objects
	more string // of the section hsm
	// module is a copy of the library, so that it has a state of its own: SoftHSM2
	// looks for tokens only when it is initialised.
	module string
}

func (s *twoTokens) eastToken() string {
	return "name: east, token_label: keywright-east, module: " + s.module
}

func newTwoTokens(t *testing.T) *twoTokens {
	t.Helper()
	s := newSite(t)
	objects := filepath.Join(s.token.Dir, "tokens")
	before := names(t, objects)
	if err := hsm.InitToken(t.Context(), s.token.Module, "keywright-east", "so-pin-east", softhsmtest.PIN(t, s.token)); err != nil {
		t.Fatal(err)
	}
	made := slices.DeleteFunc(names(t, objects), func(name string) bool { return slices.Contains(before, name) })
	if len(made) != 1 {
		t.Fatalf("the second token is in %v", made)
	}
	two := &twoTokens{site: s, east: filepath.Join(objects, made[0]), module: filepath.Join(s.dir, "libeast.so")}
	library, err := os.ReadFile(s.token.Module)
	if err == nil {
		err = os.WriteFile(two.module, library, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	two.configureTokens(t, two.eastToken())
	return two
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// configureTokens writes a configuration with these further tokens.
func (s *twoTokens) configureTokens(t *testing.T, tokens ...string) {
	t.Helper()
	var list []string
	for _, token := range tokens {
		list = append(list, fmt.Sprintf("{%s, pin: {file: %s}}", token, s.token.PINFile))
	}
	text := fmt.Sprintf("data_dir: data\nhsm: {module: %s, token_label: %s, pin: {file: %s}, tokens: [%s]%s}\n"+
		"listen: {grpc: '127.0.0.1:0', rest: '127.0.0.1:0', metrics: '127.0.0.1:0'}\n",
		s.token.Module, s.token.Label, s.token.PINFile, strings.Join(list, ", "), s.more)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hideEast takes the second token away; the function that it returns brings it back.
func (s *twoTokens) hideEast(t *testing.T) (restore func()) {
	t.Helper()
	hidden := filepath.Join(s.token.Dir, "hidden")
	if err := os.Rename(s.east, hidden); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Rename(hidden, s.east); err != nil {
			t.Fatal(err)
		}
	}
}

const useAll = `permit (principal == User::"local:CN=admin", action in [Action::"encrypter", Action::"decrypter"], resource);`

func wantText(t *testing.T, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in\n%s", part, got)
		}
	}
}

// eventually repeats a call until it prints that.
func (d *daemon) eventually(t *testing.T, dir, want string, args ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		got := finish(t, d.keywright(t, dir, "", args...))
		if strings.Contains(got.stdout+got.stderr, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("keywright %v does not print %q but\n%s%s\nserver:\n%s", args, want, got.stdout, got.stderr, d.printed())
		}
	}
}

// Two real tokens: namespaces on both, roots rotated, a namespace moved, one token
// away, back, and away at the start.
func TestTwoTokens(t *testing.T) {
	s := newTwoTokens(t)
	must(t, s.run(t, "check-config"))
	must(t, s.run(t, "init"))
	d := s.serve(t)
	call := func(stdin string, args ...string) string { t.Helper(); return d.call(t, s.data(), stdin, args...) }
	call(useAll, "policy", "put", "use", "-", "--yes")
	got := finish(t, d.keywright(t, s.data(), "", "namespace", "create", "there", "--token", "east"))
	if got.code != 6 {
		t.Errorf("exit code %d", got.code)
	}
	wantText(t, got.stderr, "token east has no root key yet")
	wantText(t, call("", "root", "rotate", "--token", "east"), "east", "ACTIVE")
	call("", "namespace", "create", "there", "--token", "east")
	call("", "namespace", "create", "here")
	for _, ns := range []string{"here", "there"} {
		call("", "key", "create", ns+"/card")
		call("text of "+ns, "encrypt", ns+"/card", "--out", filepath.Join(s.dir, ns))
	}
	wantText(t, call("", "namespace", "describe", "there"), "east")
	wantText(t, call("", "status"), "default: healthy, root version 1; east: healthy, root version 2")
	wantText(t, call("", "root", "rotate", "--wait"), "ACTIVE")
	wantText(t, call("", "root", "list"), "RETIRED")
	opens := func(ns string) {
		t.Helper()
		if got := call("", "decrypt", ns+"/card", filepath.Join(s.dir, ns)); got != "text of "+ns {
			t.Errorf("%s opens to %q", ns, got)
		}
	}
	opens("here")
	opens("there")
	d.stop(t)

	// Away at the start: the other goes on, and it is used once it is back.
	restore := s.hideEast(t)
	d = s.serve(t)
	opens("here")
	got = finish(t, d.keywright(t, s.data(), "", "decrypt", "there/card", filepath.Join(s.dir, "there")))
	wantText(t, got.stderr, `the HSM token "east" is not available`)
	d.eventually(t, s.data(), "east: NOT HEALTHY", "status")
	restore()
	d.eventually(t, s.data(), "text of there", "decrypt", "there/card", filepath.Join(s.dir, "there"))
	d.eventually(t, s.data(), "east: healthy", "status")
	call("", "namespace", "create", "more", "--token", "east")

	// Moved to the other token, it needs this one no more.
	wantText(t, call("", "root", "migrate", "there", "--to", "default"), "default")
	call("", "root", "migrate", "more", "--to", "default")
	opens("there")
	d.stop(t)
	s.configureTokens(t)
	d = s.serve(t)
	opens("there")
	d.stop(t)
}

func TestServeRefusesTokens(t *testing.T) {
	s := newTwoTokens(t)
	must(t, s.run(t, "init"))
	tests := map[string]struct {
		tokens []string
		want   string
	}{
		"a label twice":  {[]string{"name: a, token_label: x", "name: b, token_label: x"}, "hsm.tokens[1] names the same token as hsm.tokens[0]"},
		"the default":    {[]string{"name: a, token_label: " + s.token.Label}, "hsm.tokens[0] names the same token as hsm"},
		"a name twice":   {[]string{"name: a, token_label: x", "name: a, token_label: y"}, `hsm.tokens[1].name "a" is taken`},
		"default's name": {[]string{"name: default, token_label: x"}, `hsm.tokens[0].name "default" is taken`},
		"no name":        {[]string{"token_label: x"}, "hsm.tokens[0].name"},
		"no label":       {[]string{"name: a"}, "hsm.tokens[0].token_label is missing"},
		"a typo":         {[]string{"name: a, label: x"}, "field label is unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s.configureTokens(t, test.tokens...)
			refused(t, s.run(t, "serve"), 3, test.want)
		})
	}
	t.Run("one label of two tokens", func(t *testing.T) {
		elsewhere, err := softhsm.Provision(t.Context(), filepath.Join(s.token.Dir, "third"), "keywright-east", softhsmtest.Initialize)
		if err == nil {
			err = errors.Join(os.CopyFS(filepath.Join(s.token.Dir, "tokens"), os.DirFS(filepath.Join(elsewhere.Dir, "tokens"))), s.token.Activate())
		}
		if err != nil {
			t.Fatal(err)
		}
		s.configureTokens(t, "name: east, token_label: keywright-east")
		got := s.run(t, "serve")
		if got.code == 0 || !strings.Contains(got.stderr, "token east") || !strings.Contains(got.stderr, "ambiguous") {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
	})
}

// A real token that is lost seals the server, and unseals it when it is back.
func TestSealOnLoss(t *testing.T) {
	s := newTwoTokens(t)
	s.more = ", on_loss: seal, on_loss_after: 1s"
	s.configureTokens(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	d.call(t, s.data(), useAll, "policy", "put", "use", "-", "--yes")
	d.call(t, s.data(), "", "namespace", "create", "here")
	d.call(t, s.data(), "", "key", "create", "here/card")
	d.call(t, s.data(), "text", "encrypt", "here/card", "--out", filepath.Join(s.dir, "here"))
	objects := filepath.Join(s.token.Dir, "tokens")
	if err := os.Rename(objects, objects+".away"); err != nil {
		t.Fatal(err)
	}
	d.eventually(t, s.data(), "sealed: the HSM has been away since", "decrypt", "here/card", filepath.Join(s.dir, "here"))
	wantText(t, d.call(t, s.data(), "", "status"), "NOT HEALTHY: sealed: the HSM has been away since")
	if text := get(t, "http://"+d.metrics+"/metrics"); !strings.Contains(text, "\nkeywright_sealed 1\n") || !strings.Contains(text, `keywright_token_sealed{token="default"} 1`) {
		t.Errorf("metrics:\n%s", text)
	}
	if err := os.Rename(objects+".away", objects); err != nil {
		t.Fatal(err)
	}
	d.eventually(t, s.data(), "text", "decrypt", "here/card", filepath.Join(s.dir, "here"))
	wantText(t, d.call(t, s.data(), "", "audit", "list", "--action", "Unseal"), "Unseal")
	d.stop(t)
}
