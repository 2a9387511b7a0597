package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// keep copies a part of the data directory of a server that is stopped.
func (s *site) keep(t *testing.T, name string) string {
	t.Helper()
	kept := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(kept, os.DirFS(filepath.Join(s.data(), name))); err != nil {
		t.Fatal(err)
	}
	return kept
}

func (s *site) putBack(t *testing.T, name, kept string) {
	t.Helper()
	dir := filepath.Join(s.data(), name)
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(kept))); err != nil {
		t.Fatal(err)
	}
}

var acceptable = regexp.MustCompile(`keywrightd accept-rollback (\S+)`)

// accept accepts what a refused start has named.
func (s *site) accept(t *testing.T, got output) {
	t.Helper()
	match := acceptable.FindStringSubmatch(got.stderr)
	if match == nil {
		t.Fatalf("the refusal names nothing to accept: %s", got.stderr)
	}
	refused(t, s.run(t, "accept-rollback", "something-else"), 1, match[1])
	must(t, s.run(t, "accept-rollback", match[1]))
}

// A store, or a log, that was put back to yesterday's copy is refused at start, and
// said how; an operator may accept it by name, and the log tells.
func TestWhatWasPutBackIsRefused(t *testing.T) {
	s := newSite(t)
	must(t, s.run(t, "init"))
	d := s.serve(t)
	d.call(t, s.data(), "", "namespace", "create", "demo")
	d.call(t, s.data(), "", "key", "create", "demo/first")
	d.call(t, s.data(), "", "key", "rotate", "demo/first")
	d.stop(t)
	must(t, s.run(t, "verify-store"))
	store, log := s.keep(t, "store"), s.keep(t, "audit")
	d = s.serve(t)
	d.call(t, s.data(), "", "key", "disable", "demo/first", "--version", "1", "--yes")
	d.stop(t)

	s.putBack(t, "store", store)
	got := s.run(t, "serve")
	refused(t, got, 14, "DisableVersion demo/first version 1")
	if got := s.run(t, "verify-store"); got.code != 14 || !strings.Contains(got.stdout, "older than its audit log") || !strings.Contains(got.stdout, "(DisableVersion) changed it since") {
		t.Errorf("verify-store: exit code %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	s.accept(t, got)
	must(t, s.run(t, "verify-store"))
	d = s.serve(t)
	if got := d.call(t, s.data(), "", "audit", "search", "--action", "AcceptRollback", "-o", "json"); !strings.Contains(got, `"rollback":"store-before-`) {
		t.Errorf("the log says %q", got)
	}
	d.stop(t)

	s.putBack(t, "audit", log)
	got = s.run(t, "serve")
	refused(t, got, 14, "the log was put back to an older state")
	s.accept(t, got)
	s.serve(t).stop(t)
}

// An audit key that is gone from the token can be replaced, and the break is declared.
func TestAuditKeyCanBeReplaced(t *testing.T) {
	s := newSite(t)
	made := must(t, s.run(t, "init"))
	refused(t, s.run(t, "audit-key", "replace"), 2, "--reason")
	replaced := must(t, s.run(t, "audit-key", "replace", "--reason", "moved to another device"))
	key := regexp.MustCompile(`keywright/[0-9a-f]{32}\+[0-9a-f]{8}\+\S+`)
	if before, after := key.FindString(made.stdout), key.FindString(replaced.stdout); before == "" || after == "" || before == after {
		t.Errorf("keys %q and %q", before, after)
	}
	d := s.serve(t)
	d.call(t, s.data(), "", "namespace", "create", "demo")
	d.call(t, s.data(), "", "audit", "rotate-key")
	d.call(t, s.data(), "", "audit", "prove", "1")
	d.stop(t)
	s.serve(t).stop(t)
	must(t, s.run(t, "verify-store"))
	keys, err := os.ReadFile(filepath.Join(s.data(), "audit", "keys"))
	if err != nil || strings.Count(string(keys), "keywright-audit-key/v1") != 3 || !strings.Contains(string(keys), "break moved to another device") {
		t.Errorf("keys: %v\n%s", err, keys)
	}
}
