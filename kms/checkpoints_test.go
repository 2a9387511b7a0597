package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/checkpoint"
	"github.com/keywright/keywright/kms/audit/publish"
	"github.com/keywright/keywright/kms/policy"
)

// opened verifies a note with the installation's keys.
func (in *testInstallation) opened(note []byte) checkpoint.Checkpoint {
	in.t.Helper()
	succession := must[checkpoint.Succession](in.t)(in.succession())
	spans, _, err := succession.Trusted(succession.First())
	if err != nil {
		in.t.Fatal(err)
	}
	return must[checkpoint.Checkpoint](in.t)(checkpoint.OpenTrusted(note, spans))
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// The first entry is signed before an installation is handed out; then all that
// changes something is signed at once, and uses within about a second.
func TestEverythingIsSigned(t *testing.T) {
	in := newInstallation(t)
	note, size := in.audit.Checkpoint()
	if c := in.opened(note); size < 2 || c.Size != size || c.Origin != in.Origin() || c.Epoch == 0 {
		t.Errorf("after the start %d entries are signed: %+v", size, c)
	}
	first := in.entries(audit.Filter{To: 1})[0]
	if key := in.checkpoints.current.Load().key.String(); first.Action != EventInitializeBegin || first.Details["audit_key"] != key || first.Details["root"] == "" {
		t.Errorf("entry 0 is %+v", first)
	}
	in.namespace("pay")
	in.key("pay", "card", "")
	made := in.audit.Next()
	eventually(t, "the changes are signed", func() bool { _, size := in.audit.Checkpoint(); return size >= made })
	in.encrypt("pay", "card", "x")
	used := in.audit.Next()
	eventually(t, "the use is signed", func() bool { _, size := in.audit.Checkpoint(); return size >= used })
	note, size = in.audit.Checkpoint()
	c := in.opened(note)
	if root := must[[32]byte](t)(in.audit.Root(size)); c.Root != root || c.Epoch != in.head.epoch.Load() {
		t.Errorf("signed %+v, the root is %x, the epoch %d", c, root, in.head.epoch.Load())
	}
	if status := in.Health(t.Context()); status.Audit.Signed != size || status.CheckpointTime.IsZero() || status.Epoch != c.Epoch {
		t.Errorf("status says %+v", status)
	}
}

// Entry and proof stand for themselves, and who may not read is told nothing.
func TestEntriesAreProved(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.encrypt("pay", "card", "x")
	last := in.entries(audit.Filter{Action: "Encrypt"})[0]
	succession := must[checkpoint.Succession](t)(in.succession())
	for _, sequence := range []uint64{0, last.Sequence} {
		proved := must[EntryProof](t)(in.ProveEntry(t.Context(), admin(), sequence))
		proof := must[checkpoint.Proof](t)(checkpoint.ParseProof(proved.Proof))
		if _, err := proof.Verify(proved.Line, succession.Current()); err != nil || proof.Index != sequence {
			t.Errorf("entry %d: %v", sequence, err)
		}
		if _, err := proof.Verify(append(proved.Line, ' '), succession.Current()); err == nil {
			t.Error("another line is proved too")
		}
	}
	_, err := in.ProveEntry(t.Context(), admin(), 1<<40)
	wantCode(t, err, NotFound, "its last is")
	for _, sequence := range []uint64{0, last.Sequence, 1 << 40} {
		_, err := in.ProveEntry(t.Context(), nobody(), sequence)
		wantCode(t, err, PermissionDenied)
	}
	auditor := as(policy.User, "auditor of pay")
	in.put("", "auditor", `permit (principal == User::"auditor of pay", action == Action::"ReadAudit", resource in Namespace::"pay");`)
	must[EntryProof](t)(in.ProveEntry(t.Context(), auditor, last.Sequence))
	_, err = in.ProveEntry(t.Context(), auditor, 0)
	wantCode(t, err, PermissionDenied)

	known := must[Checkpoint](t)(in.GetCheckpoint(t.Context(), admin(), 0))
	in.encrypt("pay", "card", "y")
	size := in.opened(known.Note).Size
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if later := must[Checkpoint](t)(in.GetCheckpoint(t.Context(), admin(), size)); in.opened(later.Note).Size <= size || len(later.Consistency) == 0 {
		t.Errorf("later: %+v", later)
	}
	_, err = in.GetCheckpoint(t.Context(), admin(), 1<<40)
	wantCode(t, err, FailedPrecondition, "fewer entries")
	_, err = in.GetCheckpoint(t.Context(), nobody(), 0)
	wantCode(t, err, PermissionDenied)
}

// While the device cannot sign, entries pile up to the bound; then uses are
// refused, operators may act a little longer, and all comes back with the device.
func TestTooMuchUnsignedIsRefused(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.initialize(InitOptions{Policies: testPolicies})
	in.log.MaxUnsigned = 50
	in.open()
	t.Cleanup(in.close)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.device.setAway(true)
	var err error
	for n := 0; err == nil; n++ {
		if n > 60 {
			t.Fatal("nothing is refused")
		}
		_, err = in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != Unavailable || e.Reason != "AUDIT_UNSIGNED" || !strings.Contains(fmt.Sprint(e.Cause), "max_unsigned") {
		t.Fatalf("refused with %v (%v)", err, e.Cause)
	}
	if in.Health(t.Context()).AuditProblem == "" {
		t.Error("health does not say so")
	}
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	in.device.setAway(false)
	eventually(t, "service comes back", func() bool {
		_, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		return err == nil
	})
}

// An old key that a crash left on the token goes at the next start.
func TestOldAuditKeyGoesAfterACrash(t *testing.T) {
	in := newInstallation(t)
	before := in.installation.Signer.ID
	signers := maps.Clone(in.device.signers)
	must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), ""))
	in.crash()
	in.device.putBack(signers)
	in.open()
	in.close()
	if _, there := in.device.signers[before]; there || len(in.device.signers) != 1 {
		t.Errorf("the token still has %d audit keys", len(in.device.signers))
	}
}

// Rotations at the same time, and one after another that could not be completed,
// lose no key: each vouches for the next, and the server starts again.
func TestAuditKeyRotationsDoNotOvertake(t *testing.T) {
	in := newInstallation(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), "")) })
	}
	all.Wait()
	in.crash()
	in.open()
	note, _ := in.audit.Checkpoint()
	in.opened(note)

	keys := bytes.Clone(in.audit.Keys())
	signers := maps.Clone(in.device.signers)
	must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), ""))
	if err := in.audit.SaveKeys(keys); err != nil { // the log's keys could not be written
		t.Fatal(err)
	}
	in.device.putBack(signers)
	must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), ""))
	succession := must[checkpoint.Succession](t)(in.succession())
	if current := in.checkpoints.current.Load().key; !succession.Current().Equal(current) {
		t.Errorf("the log's keys end with %s, the server signs with %s", succession.Current(), current)
	}
	in.crash()
	in.open()
}

// A new audit key is vouched for by the old one, which is gone from the token;
// a crash in between is made up for, and the log stays one.
func TestAuditKeysFollowEachOther(t *testing.T) {
	in := newInstallation(t)
	before := in.installation.Signer.ID
	rotated := must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), "once"))
	again := must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), "once"))
	if rotated != again || rotated.Key != in.checkpoints.current.Load().key.String() {
		t.Errorf("rotated to %+v, sent again %+v", rotated, again)
	}
	if _, err := in.device.Sign(t.Context(), before, []byte("x")); err == nil {
		t.Error("the old key still signs")
	}
	in.namespace("pay")
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	note, _ := in.audit.Checkpoint()
	in.opened(note)
	_, err := in.RotateAuditKey(t.Context(), nobody(), "")
	wantCode(t, err, PermissionDenied)

	// The store knows the new key, the log's keys do not: as after a crash.
	keys := bytes.Clone(in.audit.Keys())
	signers := maps.Clone(in.device.signers)
	must[AuditKey](t)(in.RotateAuditKey(t.Context(), admin(), ""))
	if err := in.audit.SaveKeys(keys); err != nil {
		t.Fatal(err)
	}
	in.crash()
	in.device.putBack(signers)
	if err := os.Remove(filepath.Join(in.dir, "audit", "checkpoint")); err != nil { // by the new key: it would not be there
		t.Fatal(err)
	}
	in.open()
	if succession := must[checkpoint.Succession](t)(in.succession()); succession.Current().String() != in.checkpoints.current.Load().key.String() || bytes.Count(succession.Text(), []byte("keywright-audit-key/v1")) != 3 {
		t.Errorf("after a crash the keys are\n%s", succession.Text())
	}
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("verify-store finds %+v", found.Differences)
	}
}

// stubborn refuses checkpoints for a reason.
type stubborn struct{ refusal error }

func (s *stubborn) Name() string { return "stubborn" }
func (s *stubborn) Publish(context.Context, []byte, uint64, publish.Prover) error {
	return s.refusal
}

// Receivers get checkpoints; one that fails is named in the status, a witness
// that saw another log in the audit log too.
func TestReceivers(t *testing.T) {
	in := newInstallation(t)
	in.close()
	file := filepath.Join(t.TempDir(), "elsewhere")
	forked := &stubborn{publish.ErrForked}
	in.config.Receivers = []Receiver{
		{Publisher: publish.File{Path: file}, Interval: 10 * time.Millisecond},
		{Publisher: publish.Command{Argv: []string{"/bin/sh", "-c", "cat >" + file + ".command"}}, Interval: 10 * time.Millisecond},
		{Publisher: forked, Interval: 10 * time.Millisecond},
	}
	in.open()
	in.namespace("pay")
	made := in.audit.Next()
	eventually(t, "the receivers have it", func() bool {
		statuses := in.Health(t.Context()).Receivers
		return statuses[0].Size >= made && statuses[1].Size >= made && statuses[2].Problem != ""
	})
	for _, path := range []string{file, file + ".command"} {
		if c := in.opened(must[[]byte](t)(os.ReadFile(path))); c.Size < made {
			t.Errorf("%s has %d entries of %d", path, c.Size, made)
		}
	}
	eventually(t, "the alarm is logged", func() bool { return len(in.entries(audit.Filter{Action: "WitnessSawAnotherLog"})) == 1 })
}

// Entries that are old enough are dropped, whole files of them; the rest goes on
// to be proved, and a start finds nothing wrong.
func TestRetention(t *testing.T) {
	in := &testInstallation{t: t, dir: t.TempDir(), device: newDevice()}
	in.log.SegmentBytes = 4 << 10
	in.initialize(InitOptions{Policies: testPolicies})
	in.config.Retention = 24 * time.Hour
	in.open()
	t.Cleanup(in.close)
	in.namespace("pay")
	in.key("pay", "card", "")
	for range 50 {
		in.encrypt("pay", "card", "old")
	}
	old := in.audit.Next()
	in.advance(25 * time.Hour)
	for range 50 {
		in.encrypt("pay", "card", "new")
	}
	for _, step := range []func(context.Context) error{in.settleIntents, in.makeCheckpoint, in.retain} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first := in.audit.Stats().First
	if first == 0 || first > old {
		t.Fatalf("the log begins with %d, %d is the first that is new", first, old)
	}
	dropped := in.entries(audit.Filter{Action: "DropEntries"})
	if len(dropped) != 1 || dropped[0].Details["to"] != fmt.Sprint(first) {
		t.Errorf("the log says %+v", dropped)
	}
	_, err := in.ProveEntry(t.Context(), admin(), 0)
	wantCode(t, err, NotFound, "dropped", fmt.Sprint(first))
	must[EntryProof](t)(in.ProveEntry(t.Context(), admin(), first))
	in.crash()
	in.open()
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 || found.Unknown == 0 {
		t.Errorf("verify-store finds %+v", found)
	}
	in.open()
}

// Where contexts hold personal data the log has a keyed hash of each: the same
// for the same context, and nothing that could be found by guessing.
func TestContextsAreHashed(t *testing.T) {
	in := newInstallation(t)
	in.close()
	in.config.HashContexts = true
	in.open()
	in.namespace("pay")
	in.key("pay", "card", "")
	who := map[string]string{"patient": "Jane Doe"}
	for range 2 {
		must[EncryptResponse](t)(in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x"), Binding: Binding{Context: who}}))
	}
	must[[]Result](t)(in.Batch(t.Context(), admin(), []Operation{&EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x"), Binding: Binding{Context: who}}}))
	entries := in.entries(audit.Filter{Action: "Encrypt"})
	if len(entries) != 3 || len(entries[0].ContextHash) != 64 || entries[0].ContextHash != entries[1].ContextHash || entries[2].Batch[0].ContextHashes[0] != entries[0].ContextHash {
		t.Fatalf("entries %+v", entries)
	}
	if entries[0].ContextHash == hashOf(t, who) {
		t.Error("the hash has no key")
	}
	for _, e := range in.entries(audit.Filter{}) {
		if line := e.AppendJSON(nil); bytes.Contains(line, []byte("Jane")) {
			t.Errorf("the log holds the context: %s", line)
		}
	}
}
