package identity

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func self(principal string) Peer { return Peer{UID: uint32(os.Getuid()), Principal: principal} }

func TestUnixPeers(t *testing.T) {
	for name, c := range map[string]struct {
		peers     []Peer
		principal string
		reason    string
	}{
		"mapped":   {[]Peer{{UID: 1 << 30, Principal: `User::"local:other"`}, self(`Workload::"local:app"`)}, `Workload::"local:app"`, ""},
		"unmapped": {[]Peer{{UID: 1 << 30, Principal: `User::"local:other"`}}, "", "UNKNOWN_PEER"},
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := ListenUnix(Socket{Path: path, Peers: c.peers})
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		a := NewAuthenticator(&verifier{}, nil, 0)
		caller, err := a.Authenticate(Of(accepted), "")
		if reason(err) != c.reason || err == nil && (caller.Principal() != c.principal || caller.Method != "unix" || caller.Source.IsValid()) {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
		_, _ = client.Close(), l.Close()
	}
}

func TestListenUnixRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Socket{
		"a file":           {Path: file},
		"no directory":     {Path: filepath.Join(dir, "none", "s")},
		"a token":          {Path: filepath.Join(dir, "s"), Peers: []Peer{self(`Token::"app"`)}},
		"no principal":     {Path: filepath.Join(dir, "s"), Peers: []Peer{self("app")}},
		"twice":            {Path: filepath.Join(dir, "s"), Peers: []Peer{self(`User::"a"`), self(`User::"b"`)}},
		"bad group":        {Path: filepath.Join(dir, "s"), Peers: []Peer{{Principal: `User::"a"`, Groups: []string{"a b"}}}},
		"too many groups":  {Path: filepath.Join(dir, "s"), Peers: []Peer{{Principal: `User::"a"`, Groups: strings.Fields(strings.Repeat("g ", 17))}}},
		"very long a path": {Path: filepath.Join(dir, strings.Repeat("s", 300))},
	} {
		if l, err := ListenUnix(s); err == nil {
			_ = l.Close()
			t.Errorf("%s was accepted", name)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file: %q, %v", text, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
