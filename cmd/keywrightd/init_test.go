package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/cmd/keywrightd/internal/pki"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// fingerprint returns a hash of each file below a directory, by its path.
func fingerprint(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		found[path] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInitMakesAnInstallationOnce(t *testing.T) {
	s := newSite(t)
	first := must(t, s.run(t, "init"))
	for _, want := range []string{"Installation ", "Root key ", "keywright.yaml"} {
		if !strings.Contains(first.stdout, want) {
			t.Errorf("%q is not in %q", want, first.stdout)
		}
	}
	var names []string
	for path := range fingerprint(t, filepath.Join(s.data(), "tls")) {
		names = append(names, filepath.Base(path))
	}
	slices.Sort(names)
	if got := fmt.Sprint(names); got != "[admin-key.pem admin.pem ca.pem server-key.pem server.pem]" {
		t.Errorf("files %s: the CA's key is to be in none", got)
	}
	before := fingerprint(t, s.token.Dir)
	credentials := fingerprint(t, filepath.Join(s.data(), "tls"))

	refused(t, s.run(t, "init"), 8, "already")

	if after := fingerprint(t, filepath.Join(s.data(), "tls")); fmt.Sprint(after) != fmt.Sprint(credentials) {
		t.Error("the second init changed certificates")
	}
	if after := fingerprint(t, s.token.Dir); len(after) != len(before) {
		t.Errorf("the second init left %d files in the token, it had %d", len(after), len(before))
	}
	d := s.serve(t)
	if got := d.call(t, s.data(), "", "whoami"); !strings.Contains(got, "local:CN=admin") {
		t.Errorf("whoami: %s", got)
	}
	d.stop(t)
}

func TestFilesAreTheServersAlone(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	err := filepath.WalkDir(s.data(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInitAgainIssuesWhatAnInterruptedInitDidNot(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	ca := fingerprint(t, filepath.Join(s.data(), "tls"))[filepath.Join(s.data(), "tls", "ca.pem")]
	remove(t, filepath.Join(s.data(), "tls"), filepath.Join(s.data(), "keywright.yaml"))

	if got := must(t, s.run(t, "init")); !strings.Contains(got.stdout, "was there already") {
		t.Errorf("init said %q", got.stdout)
	}
	if got := fingerprint(t, filepath.Join(s.data(), "tls"))[filepath.Join(s.data(), "tls", "ca.pem")]; got != ca {
		t.Error("the certificates come from another CA")
	}
	d := s.serve(t)
	d.call(t, s.data(), "", "status")
	d.stop(t)
}

func TestInitRefusesWhatALostStoreLeft(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	remove(t, filepath.Join(s.data(), "store"))
	refused(t, s.run(t, "init"), 8, "holds certificates or a profile")
	remove(t, filepath.Join(s.data(), "tls"), filepath.Join(s.data(), "keywright.yaml"))
	refused(t, s.run(t, "init"), 8, "whose store is gone")
}

// An init that died between its first audit line and the store is done anew, and
// says which root key it may have left in the token.
func TestInitFinishesWhatDiedBeforeTheStore(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	remove(t, filepath.Join(s.data(), "store"), filepath.Join(s.data(), "tls"), filepath.Join(s.data(), "keywright.yaml"), filepath.Join(s.data(), "audit", "checkpoint"))
	segments, err := filepath.Glob(filepath.Join(s.data(), "audit", "*.jsonl"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("audit segments: %v, %v", segments, err)
	}
	lines, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(lines), "\n")
	if err := os.WriteFile(segments[0], []byte(first+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := must(t, s.run(t, "init")); !strings.Contains(got.stdout, "may have left root key") {
		t.Errorf("init said %q", got.stdout)
	}
	d := s.serve(t)
	d.call(t, s.data(), "", "status")
	d.stop(t)
}

// TestInitSurvivesBeingKilled kills init at many moments. Whenever that was, the
// next init makes a whole installation, or finishes the one that is there.
func TestInitSurvivesBeingKilled(t *testing.T) {
	for round := range 6 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			s := newSite(t)
			copyOfToken := filepath.Join(t.TempDir(), "token")
			if err := os.CopyFS(copyOfToken, os.DirFS(s.token.Dir)); err != nil {
				t.Fatal(err)
			}
			cmd := s.keywrightd(t, "init")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.Int64N(int64(time.Second))))
			_ = cmd.Process.Kill()
			_ = cmd.Wait()

			got := s.run(t, "init")
			if got.code == 5 || got.code == 6 || got.code == 11 { // SoftHSM2 was killed while it wrote its own files
				t.Logf("SoftHSM2 lost its token: %s", got.stderr)
				remove(t, s.token.Dir, s.data())
				if err := os.CopyFS(s.token.Dir, os.DirFS(copyOfToken)); err != nil {
					t.Fatal(err)
				}
				got = s.run(t, "init")
			}
			if got.code != 8 || !strings.Contains(got.stderr, "already") { // 8: the kill came too late
				must(t, got)
			}
			d := s.serve(t)
			d.call(t, s.data(), "", "status")
			d.stop(t)
		})
	}
}

func TestInitNeedsAnAdministratorWhereItMakesNoCertificates(t *testing.T) {
	s := newSite(t)
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(s.dir, name) }
	pair, err := authority.IssueServer([]string{"localhost", "127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	client, err := authority.IssueClient(pki.Client{Name: "alice"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pair.Write(in("cert.pem"), in("key.pem")), client.Write(in("alice.pem"), in("alice-key.pem")),
		pki.WriteFile(in("corp.pem"), authority.CertificatePEM()),
		pki.WriteFile(in("keywright.yaml"), []byte("ca_file: corp.pem\ncert_file: alice.pem\nkey_file: alice-key.pem\n"))); err != nil {
		t.Fatal(err)
	}
	s.configure(t, "tls: {cert_file: cert.pem, key_file: key.pem, client_cas: [{name: corp, file: corp.pem}]}\n")
	must(t, s.run(t, "check-config"))

	refused(t, s.run(t, "init"), 2, "--admin")
	must(t, s.run(t, "init", "--admin", `User::"corp:CN=alice"`))
	if _, err := os.Stat(filepath.Join(s.data(), "tls")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("init made certificates that nobody asked for: %v", err)
	}
	d := s.serve(t)
	if got := d.call(t, s.dir, "", "namespace", "create", "demo"); !strings.Contains(got, "demo") {
		t.Error(got)
	}
	d.stop(t)
	if got := s.run(t, "certificates", "renew"); got.code == 0 || !strings.Contains(got.stderr, "without a local CA") {
		t.Errorf("renew: exit code %d: %s", got.code, got.stderr)
	}
}

func TestInitRefusesAPolicyThatIsNone(t *testing.T) {
	s := newSite(t)
	got := s.run(t, "init", "--admin", "alice")
	if got.code == 0 {
		t.Fatal("init accepted a principal that is none")
	}
	must(t, s.run(t, "init"))
}

func TestRenewCertificates(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init", "--san", "kms.example.org"))
	server := filepath.Join(s.data(), "tls", "server.pem")
	d := s.serve(t)
	refused(t, s.run(t, "certificates", "renew"), 9, "another")
	d.stop(t)
	before, err := pki.ReadCertificate(server)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, filepath.Join(s.data(), "tls", "admin.pem"))

	must(t, s.run(t, "certificates", "renew", "--san", "10.1.2.3"))

	after, err := pki.ReadCertificate(server)
	if err != nil {
		t.Fatal(err)
	}
	if after.SerialNumber.Cmp(before.SerialNumber) == 0 {
		t.Error("the certificate is the old one")
	}
	for _, host := range []string{"localhost", "kms.example.org", "10.1.2.3"} {
		if err := after.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	d = s.serve(t)
	if got := d.call(t, s.data(), "", "audit", "list"); !strings.Contains(got, "IssueCertificates") {
		t.Errorf("the audit log does not tell:\n%s", got)
	}
	d.stop(t)
}

func TestIssueCertificates(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	out := filepath.Join(s.dir, "clients")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"alice": {nil, `User::"local:CN=alice"`},
		"web":   {[]string{"--spiffe", "spiffe://example.org/web", "--days", "7"}, `Workload::"local:spiffe://example.org/web"`},
	} {
		got := must(t, s.run(t, append([]string{"certificates", "issue", name, "--out", out}, c.args...)...))
		if !strings.Contains(got.stdout, c.want) {
			t.Errorf("%s: said %q", name, got.stdout)
		}
	}
	refused(t, s.run(t, "certificates", "issue", "alice", "--out", out), 2, "there already")
	refused(t, s.run(t, "certificates", "issue", "../alice", "--out", out), 2, "letters")
	refused(t, s.run(t, "certificates", "issue", "bob", "--out", out, "--days", "366"), 2, "--days is 366")
	refused(t, s.run(t, "certificates", "issue", "bob", "--out", out, "--spiffe", "https://example.org"), 2, "spiffe://")
	refused(t, s.run(t, "certificates", "issue", "bob"), 2, "--out")
	d := s.serve(t)
	for name, want := range map[string]string{"alice": "local:CN=alice", "web": "local:spiffe://example.org/web"} {
		got := d.call(t, s.data(), "", "whoami", "--ca-file", filepath.Join(out, "ca.pem"),
			"--cert-file", filepath.Join(out, name+".pem"), "--key-file", filepath.Join(out, name+"-key.pem"))
		if !strings.Contains(got, want) {
			t.Errorf("whoami: %s", got)
		}
	}
	if got := d.call(t, s.data(), "", "audit", "list", "-o", "json"); !strings.Contains(got, "local:CN=alice") {
		t.Errorf("the audit log does not tell:\n%s", got)
	}
	d.stop(t)
}

func TestBootstrapToken(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(s.dir, "bootstrap")
	got := must(t, s.run(t, "init", "--bootstrap-token", file))
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(text), "kwt_") || strings.Contains(got.stdout, string(text[:20])) {
		t.Fatalf("%q, %v; said %q", text, err, got.stdout)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	d := s.serve(t)
	who := d.call(t, s.data(), "", "whoami", "--token-file", file)
	if !strings.Contains(who, `Token::"bootstrap"`) {
		t.Errorf("whoami: %s", who)
	}
	statement := `permit (principal == User::"local:CN=alice", action in Action::"admin", resource);`
	if got := d.call(t, s.data(), statement, "policy", "put", "alice", "--yes", "--token-file", file); !strings.Contains(got, "alice") {
		t.Errorf("policy put: %s", got)
	}
	again := d.keywright(t, s.data(), statement, "policy", "put", "bob", "--yes", "--token-file", file)
	if out := finish(t, again); out.code != 4 || !strings.Contains(out.stderr, "used up") {
		t.Errorf("a second time: %+v", out)
	}
	d.stop(t)
}

func TestInitCreatesNothingOnAnotherToken(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	softhsmtest.Another(t, s.token, "other")
	s.configureHSM(t, s.token.Module, "other", "file: "+s.token.PINFile, "")
	before := fingerprint(t, s.token.Dir)
	refused(t, s.run(t, "init"), 8, "already")
	refused(t, s.run(t, "serve"), 6, "root key")
	if after := fingerprint(t, s.token.Dir); len(after) != len(before) {
		t.Errorf("%d files in the tokens, there were %d", len(after), len(before))
	}
}
