//go:build bao

package interop

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestAutoUnseal lets a whole OpenBao unseal itself, with each way to log in.
func TestAutoUnseal(t *testing.T) {
	program := needBao(t)
	if isPeer() { // which shows that the rest of the test is right
		peer := newTarget(t)
		o := newOpenBao(t, program, peer, fmt.Sprintf("token = %q", peer.token))
		o.restarts()
		return
	}
	for login, credentials := range map[string]func(*site) string{
		"certificate": func(s *site) string {
			return fmt.Sprintf("disable_renewal = \"true\"\n  tls_client_cert = %q\n  tls_client_key = %q", s.file("data/tls/admin.pem"), s.file("data/tls/admin-key.pem"))
		},
		"renewable token": func(s *site) string { return fmt.Sprintf("token = %q", s.token) },
	} {
		t.Run(login, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			holder := s.serve()
			o := newOpenBao(t, program, s.target(), credentials(s))
			running := o.restarts()

			holder.stop(syscall.SIGKILL)
			o.wantServing() // it needs its seal only to start
			running.stop(syscall.SIGTERM)
			o.wantExit()

			s.serve()
			o.serve()
			o.wantServing()
		})
	}
}

// restarts starts it again and again: sealed anew it is initialised, later it unseals
// itself, also when the sealing key was rotated. It runs at the end.
func (o *openBao) restarts() *process {
	o.Helper()
	running := o.serve()
	o.initialise()
	o.wantServing()
	again := func() {
		running.stop(syscall.SIGTERM)
		running = o.serve()
		o.wantServing()
	}
	again()
	o.holder.put("keys/"+o.key+"/rotate", nil)
	again()
	o.holder.put("keys/"+o.key+"/config", fields{"min_decryption_version": 2}) // what was sealed has been sealed anew
	again()
	return running
}

func needBao(t *testing.T) string {
	t.Helper()
	program := os.Getenv("KEYWRIGHT_COMPAT_BAO")
	if program == "" {
		t.Fatal("set KEYWRIGHT_COMPAT_BAO to the path of a bao program (OpenBao 2.6), or leave out -tags bao")
	}
	return program
}

// openBao is an OpenBao server that is sealed by a target's key.
type openBao struct {
	target
	program, dir string
	holder       *try // of the key
	key          string
}

const openBaoConfig = `storage "raft" {
  path    = %q
  node_id = "one"
}
listener "tcp" {
  address     = %q
  tls_disable = true
}
seal "transit" {
  address    = %q
  mount_path = "transit/"
  key_name   = %q
  tls_ca_cert = %q
  %s
}
api_addr      = %q
cluster_addr  = %q
`

func newOpenBao(t *testing.T, program string, server target, credentials string) *openBao {
	t.Helper()
	holder := newTry(t, server, server.clients()["openbao"])
	key := holder.key(nil)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	address, cluster := freeAddress(t), freeAddress(t)
	config := fmt.Sprintf(openBaoConfig, filepath.Join(dir, "raft"), address, holder.url, key, holder.ca, credentials, "http://"+address, "http://"+cluster)
	if err := os.WriteFile(filepath.Join(dir, "bao.hcl"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return &openBao{target: target{T: t, url: "http://" + address, peer: true}, program: program, dir: dir, holder: holder, key: key}
}

func (o *openBao) command() *exec.Cmd {
	cmd := exec.Command(o.program, "server", "-config="+filepath.Join(o.dir, "bao.hcl"))
	cmd.Env = append(os.Environ(), "HOME="+o.dir)
	return cmd
}

func (o *openBao) serve() *process {
	o.Helper()
	p := begin(o.T, o.command())
	p.await("OpenBao server started!")
	return p
}

// initialise initialises it and remembers a secret.
func (o *openBao) initialise() {
	o.Helper()
	status, made := o.raw(http.MethodPut, "sys/init", fields{"recovery_shares": 1, "recovery_threshold": 1})
	if status != http.StatusOK {
		o.Fatalf("init: status %d, %v", status, made)
	}
	o.token, _ = made["root_token"].(string)
	o.wait()
	if status, answered := o.raw(http.MethodPost, "sys/mounts/kept", fields{"type": "kv"}); status >= 300 {
		o.Fatalf("status %d, %v", status, answered)
	}
	if status, answered := o.raw(http.MethodPut, "kept/secret", fields{"value": text}); status >= 300 {
		o.Fatalf("status %d, %v", status, answered)
	}
}

// wait waits until it is unsealed and active.
func (o *openBao) wait() {
	o.Helper()
	await(o.T, "OpenBao to be unsealed", func() bool { status, _ := o.raw(http.MethodGet, "sys/health", nil); return status == http.StatusOK })
}

func (o *openBao) wantServing() {
	o.Helper()
	o.wait()
	status, answered := o.raw(http.MethodGet, "kept/secret", nil)
	if data, _ := answered["data"].(fields); status != http.StatusOK || data["value"] != text {
		o.Fatalf("status %d, %v", status, answered)
	}
}

// wantExit wants it to end at its start, so that systemd starts it again.
func (o *openBao) wantExit() {
	o.Helper()
	p := begin(o.T, o.command())
	await(o.T, "OpenBao to end", p.ended)
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.printed(), "connection refused") {
		o.Fatalf("it ended with %d:\n%s", code, p.printed())
	}
}

// TestMove moves keys from a running OpenBao here, and those made here back.
func TestMove(t *testing.T) {
	there := newBao(t)
	here := newTarget(t)
	for _, k := range movers() {
		t.Run(k.name(), func(t *testing.T) {
			t.Parallel()
			old, new := newTry(t, there, there.clients()["openbao"]), newTry(t, here, here.clients()["vault"])
			for _, way := range [][2]*try{{old, new}, {new, old}} {
				name, filled := way[1].fresh(), k.fill(way[0])
				way[1].put("restore/"+name, fields{"backup": filled.Backup})
				filled.check(way[1], name)
			}
		})
	}
}

// newBao is an OpenBao server in development mode, for moving keys.
func newBao(t *testing.T) target {
	t.Helper()
	program, address := needBao(t), freeAddress(t)
	cmd := exec.Command(program, "server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token", "-dev-listen-address="+address)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	begin(t, cmd).await("Root Token: root")
	server := target{T: t, url: "http://" + address, token: "root", peer: true}
	await(t, "OpenBao", func() bool {
		status, _ := server.raw(http.MethodPost, "sys/mounts/transit", fields{"type": "transit"})
		return status < 300
	})
	return server
}
