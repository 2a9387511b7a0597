package client

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func environment(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return values[name] }
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	tokenFile := write(t, filepath.Join(dir, "token"), "kwt_fromfile\n")
	full := write(t, filepath.Join(dir, "full", "profile.yaml"), "addr: example.test:1\nca_file: ca.pem\ncert_file: /abs/cert.pem\nkey_file: sub/key.pem\ntoken_file: ../token\n")
	certOnly := write(t, filepath.Join(dir, "certonly.yaml"), "addr: example.test:2\ncert_file: c\nkey_file: k\n")
	write(t, filepath.Join(dir, "home", ".config", "keywright", "config.yaml"), "addr: home.test:3\n")
	write(t, filepath.Join(dir, "xdg", "keywright", "config.yaml"), "addr: xdg.test:4\n")
	tests := []struct {
		name  string
		flags Settings
		env   func(string) string
		want  Settings
	}{
		{"nothing", Settings{}, environment("HOME", "/nonexistent"), Settings{Addr: DefaultAddr}},
		{"default profile", Settings{}, environment("HOME", filepath.Join(dir, "home")), Settings{Addr: "home.test:3"}},
		{"XDG profile", Settings{}, environment("HOME", filepath.Join(dir, "home"), "XDG_CONFIG_HOME", filepath.Join(dir, "xdg")), Settings{Addr: "xdg.test:4"}},
		{"profile with relative paths", Settings{}, environment(EnvConfig, full), Settings{
			Addr: "example.test:1", CAFile: filepath.Join(dir, "full", "ca.pem"), CertFile: "/abs/cert.pem", KeyFile: filepath.Join(dir, "full", "sub", "key.pem"),
			TokenFile: tokenFile, Token: "kwt_fromfile"}},
		{"flag before environment before profile", Settings{Addr: "flag:1", Config: full}, environment(EnvAddr, "env:1", EnvCAFile, "env-ca", EnvConfig, "/nonexistent"), Settings{
			Addr: "flag:1", CAFile: "env-ca", CertFile: "/abs/cert.pem", KeyFile: filepath.Join(dir, "full", "sub", "key.pem"),
			TokenFile: tokenFile, Token: "kwt_fromfile"}},
		{"token of the environment beside the profile's certificate", Settings{Config: certOnly}, environment(EnvToken, " kwt_env\n"), Settings{
			Addr: "example.test:2", CertFile: filepath.Join(dir, "c"), KeyFile: filepath.Join(dir, "k"), Token: "kwt_env"}},
		{"token file flag before the environment's token", Settings{TokenFile: tokenFile}, environment("HOME", dir, EnvToken, "kwt_env"), Settings{
			Addr: DefaultAddr, TokenFile: tokenFile, Token: "kwt_fromfile"}},
		{"certificate flag replaces the environment's token", Settings{CertFile: "c", KeyFile: "k"}, environment("HOME", dir, EnvToken, "kwt_env"), Settings{
			Addr: DefaultAddr, CertFile: "c", KeyFile: "k"}},
		{"the environment's certificate replaces the profile's token", Settings{Config: full}, environment(EnvCertFile, "c", EnvKeyFile, "k"), Settings{
			Addr: "example.test:1", CAFile: filepath.Join(dir, "full", "ca.pem"), CertFile: "c", KeyFile: "k"}},
		{"unix socket", Settings{Addr: "unix:/run/keywright.sock"}, environment("HOME", dir, EnvToken, "kwt_a"), Settings{Addr: "unix:/run/keywright.sock", Token: "kwt_a"}},
		{"plaintext to loopback", Settings{Addr: "[::1]:1", Plaintext: true}, environment("HOME", dir), Settings{Addr: "[::1]:1", Plaintext: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Resolve(test.flags, test.env)
			got.Config = ""
			if err != nil || got != test.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		return write(t, filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")), text)
	}
	home := environment("HOME", dir)
	tests := []struct {
		name  string
		flags func() Settings
		env   func(string) string
		want  string
	}{
		{"missing profile", func() Settings { return Settings{Config: "/nonexistent"} }, home, "no such file"},
		{"profile of the environment missing", func() Settings { return Settings{} }, environment(EnvConfig, "/nonexistent"), "no such file"},
		{"unknown field", func() Settings { return Settings{Config: file("addr: a:1\nadress: b:2\n")} }, home, "line 2: field adress not found"},
		{"field twice", func() Settings { return Settings{Config: file("addr: a:1\naddr: b:2\n")} }, home, "already defined"},
		{"wrong type", func() Settings { return Settings{Config: file("addr: [1]\n")} }, home, "line 1"},
		{"two documents", func() Settings { return Settings{Config: file("addr: a:1\n---\naddr: b:2\n")} }, home, "one YAML document"},
		{"no YAML", func() Settings { return Settings{Config: file("\x00\x01")} }, home, "profile"},
		{"address without port", func() Settings { return Settings{Addr: "localhost"} }, home, "host:port"},
		{"certificate without key", func() Settings { return Settings{CertFile: "c"} }, home, "go together"},
		{"key without certificate", func() Settings { return Settings{KeyFile: "k"} }, home, "go together"},
		{"token with a space", func() Settings { return Settings{} }, environment("HOME", dir, EnvToken, "kwt_ab cd"), "no token has"},
		{"token with a newline inside", func() Settings { return Settings{TokenFile: file("kwt_ab\nkwt_cd\n")} }, home, "no token has"},
		{"empty token file", func() Settings { return Settings{TokenFile: file("\n")} }, home, "is empty"},
		{"missing token file", func() Settings { return Settings{TokenFile: "/nonexistent"} }, home, "no such file"},
		{"plaintext to a name", func() Settings { return Settings{Addr: "kms.example:1", Plaintext: true} }, home, "loopback"},
		{"plaintext to another address", func() Settings { return Settings{Addr: "192.0.2.1:1", Plaintext: true} }, home, "loopback"},
		{"plaintext to all addresses", func() Settings { return Settings{Addr: ":1", Plaintext: true} }, home, "loopback"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Resolve(test.flags(), test.env)
			if !errors.Is(err, ErrSettings) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want one that says %q", err, test.want)
			}
			if strings.Contains(err.Error(), "kwt_ab") {
				t.Fatal("the error shows the token")
			}
		})
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	s := Settings{Token: "kwt_secret"}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", s.Token, "settings", s)
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %v", s, s, s.Token), fmt.Sprintf("%s %q %x", s.Token, s.Token, s.Token), log.String()} {
		if strings.Contains(text, "secret") || strings.Contains(text, "6b77745f736563726574") {
			t.Errorf("printed: %s", text)
		}
	}
}

func FuzzProfile(f *testing.F) {
	seeds := []string{"", "addr: a:1\n", "addr: a:1\nca_file: b\ncert_file: c\nkey_file: d\ntoken_file: e\n"}
	for _, seed := range seeds {
		if _, err := parseProfile(strings.NewReader(seed)); err != nil {
			f.Fatalf("seed %q: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parseProfile(strings.NewReader(text)); err != nil && p != (profile{}) {
			t.Fatalf("%q gave a profile with the error %v", text, err)
		}
	})
}
