package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSOPS does with the sops program what its users do.
func TestSOPS(t *testing.T) {
	if err := buildSOPS(); err != nil {
		t.Fatal(err)
	}
	server := newTarget(t)
	c := newTry(t, server, server.clients()["vault"])
	first, second := c.key(nil), c.key(nil)
	f := sopsFiles{T: t, dir: t.TempDir(), server: server}
	f.write("secrets.yaml", "password: correct horse\nuser: ann\n")

	f.sops("encrypt", "--in-place", "--hc-vault-transit", f.uri(first), "secrets.yaml")
	if sealed := f.read("secrets.yaml"); strings.Contains(sealed, "horse") || !strings.Contains(sealed, "vault:v1:") {
		t.Fatalf("sops wrote\n%s", sealed)
	}
	f.holds("password: correct horse\nuser: ann\n")

	f.write("editor", "#!/bin/sh\nsed -i s/horse/mare/ \"$1\"\n")
	if err := os.Chmod(filepath.Join(f.dir, "editor"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.sops("edit", "secrets.yaml")
	f.holds("password: correct mare\nuser: ann\n")

	c.put("keys/"+first+"/rotate", nil)
	f.sops("rotate", "--in-place", "secrets.yaml")
	if sealed := f.read("secrets.yaml"); !strings.Contains(sealed, "vault:v2:") {
		t.Fatalf("the data key is not under the new version:\n%s", sealed)
	}
	f.holds("password: correct mare\nuser: ann\n")

	f.write(".sops.yaml", "creation_rules:\n  - hc_vault_transit_uri: "+f.uri(second)+"\n")
	f.sops("updatekeys", "--yes", "secrets.yaml")
	if sealed := f.read("secrets.yaml"); strings.Contains(sealed, first) || !strings.Contains(sealed, second) {
		t.Fatalf("the data key is not under the other key:\n%s", sealed)
	}
	f.holds("password: correct mare\nuser: ann\n")

	f.server.token = "wrong"
	if out, err := f.command("decrypt", "secrets.yaml").CombinedOutput(); err == nil || strings.Contains(string(out), "mare") {
		t.Fatalf("with a wrong token, %v:\n%s", err, out)
	}
}

// sopsFiles is a directory with the files of somebody who uses sops.
type sopsFiles struct {
	*testing.T
	dir    string
	server target
}

func (f sopsFiles) uri(key string) string { return f.server.url + "/v1/transit/keys/" + key }

func (f sopsFiles) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "sops"), args...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "HOME="+f.dir, "EDITOR="+filepath.Join(f.dir, "editor"),
		"VAULT_TOKEN="+f.server.token, "VAULT_CACERT="+f.server.ca, "VAULT_MAX_RETRIES=0")
	return cmd
}

func (f sopsFiles) sops(args ...string) string {
	f.Helper()
	cmd := f.command(args...)
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil {
		f.Fatalf("sops %q: %v\n%s%s", args, err, out, warnings.String())
	}
	return string(out)
}

// holds wants the plaintext of the encrypted file.
func (f sopsFiles) holds(want string) {
	f.Helper()
	if got := f.sops("decrypt", "secrets.yaml"); got != want {
		f.Fatalf("sops decrypts to %q instead of %q", got, want)
	}
}

func (f sopsFiles) write(name, text string) {
	f.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f sopsFiles) read(name string) string {
	f.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.Fatal(err)
	}
	return string(text)
}
