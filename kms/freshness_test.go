package kms

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
)

// keep copies a closed installation's directory, as a backup does.
func (in *testInstallation) keep(name string) string {
	in.t.Helper()
	kept := filepath.Join(in.t.TempDir(), name)
	if err := os.CopyFS(kept, os.DirFS(filepath.Join(in.dir, name))); err != nil {
		in.t.Fatal(err)
	}
	return kept
}

// putBack replaces a directory of a closed installation by a copy.
func (in *testInstallation) putBack(name, kept string) {
	in.t.Helper()
	dir := filepath.Join(in.dir, name)
	if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(kept))); err != nil {
		in.t.Fatal(err)
	}
}

// refusedStart opens a closed installation, which must be refused for a rollback.
func (in *testInstallation) refusedStart() *RollbackError {
	in.t.Helper()
	parts := in.parts()
	defer in.closeParts()
	before := in.audit.Next()
	s, err := Open(context.Background(), parts)
	if err == nil {
		s.Close(context.Background())
		in.t.Fatal("the start was not refused")
	}
	var rollback *RollbackError
	if !errors.As(err, &rollback) {
		in.t.Fatalf("Open = %v, want a RollbackError", err)
	}
	if in.audit.Next() != before {
		in.t.Errorf("a refused start wrote to the log")
	}
	return rollback
}

func (in *testInstallation) accept(name string) error {
	defer in.closeParts()
	in.log.RolledBack = true
	parts := in.parts()
	in.log.RolledBack = false
	return AcceptRollback(context.Background(), parts, name)
}

func (in *testInstallation) verifyStore() StoreReport {
	in.t.Helper()
	parts := in.parts()
	defer in.closeParts()
	return must[StoreReport](in.t)(VerifyStore(context.Background(), parts, nil))
}

// Threat model, row "store and log at two times": a store put back to an older
// copy is refused, by name of the first change that it lacks, until that is
// accepted; then the log says so, and verify-store knows.
func TestAnOlderStoreIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(in *testInstallation) string{
		"a key's version was disabled": func(in *testInstallation) string {
			must[KeyVersion](in.t)(in.DisableVersion(in.t.Context(), admin(), VersionRef{Namespace: "pay", Key: "card", Version: 1}))
			return "DisableVersion pay/card version 1"
		},
		"a policy was written": func(in *testInstallation) string {
			must[Policy](in.t)(in.PutPolicy(in.t.Context(), admin(), PutPolicyRequest{Name: "more", Text: `permit (principal == Token::"x", action == Action::"GetStatus", resource);`}))
			return "PutPolicy more"
		},
		"a namespace was made": func(in *testInstallation) string {
			in.namespace("other")
			return "CreateNamespace other"
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, crash := range []bool{false, true} {
				in := newInstallation(t)
				in.namespace("pay")
				in.key("pay", "card", "")
				must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
				in.close()
				yesterday := in.keep("store")
				in.open()
				what := change(in)
				must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
				if crash {
					in.crash()
				} else {
					in.close()
				}
				in.putBack("store", yesterday)
				rollback := in.refusedStart()
				if !strings.HasPrefix(rollback.Name, "store-before-") || !strings.Contains(rollback.Error(), what) {
					t.Fatalf("refused by %q: %v, want it to name %s", rollback.Name, rollback, what)
				}
				if found := in.verifyStore(); len(found.Differences) < 2 || !strings.Contains(found.Differences[0].Problem, "older than its audit log") {
					t.Errorf("verify-store finds %+v", found.Differences)
				}
				wantCode(t, in.accept("store-before-1"), FailedPrecondition, rollback.Name)
				if err := in.accept(rollback.Name); err != nil {
					t.Fatal(err)
				}
				wantCode(t, in.accept(rollback.Name), FailedPrecondition, "nothing to accept")
				if found := in.verifyStore(); len(found.Differences) > 0 {
					t.Errorf("after it was accepted, verify-store finds %+v", found.Differences)
				}
				in.open()
				if events := in.entries(audit.Filter{Action: eventAcceptRollback}); len(events) != 1 || events[0].Details["rollback"] != rollback.Name {
					t.Errorf("the log says %+v", events)
				}
				in.close()
			}
		})
	}
}

// Threat model, row "store and log at two times": a log put back to an older copy
// is refused, because the store has seen more of it.
func TestAnOlderLogIsRefused(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.close()
	yesterday := in.keep("audit")
	in.open()
	sealed := in.encrypt("pay", "card", "kept")
	in.close()
	in.putBack("audit", yesterday)
	rollback := in.refusedStart()
	if !strings.HasPrefix(rollback.Name, "log-before-") || !strings.Contains(rollback.Message, "are missing") {
		t.Fatalf("refused by %v", rollback)
	}
	if err := in.accept(rollback.Name); err != nil {
		t.Fatal(err)
	}
	in.open()
	in.wantOpens("pay", sealed, "kept")
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("verify-store finds %+v", found.Differences)
	}
}

// Nor can the log be put back to just before a change, with the checkpoint of that
// time, while the store has not noted how long the log is since.
func TestALogThatLacksTheLastChangeIsRefused(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.close()
	in.open()
	before := in.keep("audit")
	in.key("pay", "card", "")
	in.crash()
	in.putBack("audit", before)
	rollback := in.refusedStart()
	if !strings.HasPrefix(rollback.Name, "log-before-") || !strings.Contains(rollback.Message, "are missing") {
		t.Fatalf("refused by %v", rollback)
	}
	if err := in.accept(rollback.Name); err != nil {
		t.Fatal(err)
	}
	in.open()
	in.namespace("other")
}

// A log that lost everything is a log put back.
func TestALostLogIsRefused(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.close()
	if err := os.RemoveAll(filepath.Join(in.dir, "audit")); err != nil {
		t.Fatal(err)
	}
	rollback := in.refusedStart()
	if err := in.accept(rollback.Name); err != nil {
		t.Fatal(err)
	}
	in.open()
	in.key("pay", "card", "")
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 || found.Unknown > 0 {
		t.Errorf("verify-store finds %+v", found)
	}
}

// A wrong name changes nothing: not the log, nor the checkpoint that tells what
// became of it. An end that only the checkpoint has seen is to be accepted too.
func TestNothingIsPutAsideUnasked(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.close()
	dir := filepath.Join(in.dir, "audit")
	in.open()
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.crash()
	signed := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "checkpoint")))
	segments := must[[]string](t)(filepath.Glob(filepath.Join(dir, "*.jsonl")))
	lines := must[[]byte](t)(os.ReadFile(segments[0]))
	cut := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
	if err := os.WriteFile(segments[0], lines[:cut], 0o600); err != nil {
		t.Fatal(err)
	}
	err := in.accept("log-before-1")
	var e *Error
	if !errors.As(err, &e) || e.Reason != "OTHER_ROLLBACK" {
		t.Fatalf("accept = %v", err)
	}
	if now := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "checkpoint"))); !bytes.Equal(now, signed) {
		t.Error("the checkpoint was put aside unasked")
	}
	if _, err := audit.Open(dir, audit.Options{}); !errors.Is(err, audit.ErrTampered) {
		t.Errorf("Open = %v", err)
	}
	name := strings.Fields(strings.SplitAfter(e.Message, "what is to be accepted is ")[1])[0]
	if err := in.accept(strings.TrimSuffix(name, ",")); err != nil {
		t.Fatal(err)
	}
	in.open()
	in.close()
}

// Another log of the right length, or one with another past, is not the store's.
func TestAnotherLogIsRefused(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.close()
	early := in.keep("audit")
	in.open()
	in.key("pay", "card", "")
	in.close()
	in.putBack("audit", early)
	log := must[*audit.Log](t)(audit.Open(filepath.Join(in.dir, "audit"), audit.Options{}))
	for range 50 { // as many lines, and others
		if _, err := log.Append(&audit.Entry{Action: "Forged", Outcome: "OK"}, audit.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if rollback := in.refusedStart(); !strings.HasPrefix(rollback.Name, "log-differs-") {
		t.Errorf("refused by %v", rollback)
	}
}

// What a restart finds after a crash is not taken for a rollback, whenever marks
// and anchor were last written.
func TestACrashIsNoRollback(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	for round := range 12 {
		for range round {
			must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
		}
		if round%3 == 0 {
			if err := in.settleIntents(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		in.encrypt("pay", "card", "x")
		in.advance(anchorInterval * time.Duration(round%2))
		in.crash()
		in.open()
	}
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 || found.Records == 0 {
		t.Errorf("verify-store finds %+v", found)
	}
}
