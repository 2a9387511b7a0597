package kms

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/audit/verify"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// The tests here, and those that they name, show the rows of the table of
// attackers in docs/threat-model.md, by number. Rows 1 to 3, 6 to 9, 12 and 13 are
// below; row 4 is TestPlaintextOnLoopback and the server's TLS tests, row 5 the
// server's tests of failed authentication, row 11 and 14 those of package hsm that
// open a token without the store or the PIN, row 15 keyring's of tampering, row 16
// the server's of metrics. Row 10 cannot be tested.

// record returns a record as it lies in the store.
func (in *testInstallation) record(path string) store.Record {
	in.t.Helper()
	return must[store.Record](in.t)(in.store.Get(in.t.Context(), path))
}

// Row 1: no key material is in the files, in any form that can be read without
// the root key.
func TestRow1ReadingTheDisk(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	k := in.key("pay", "mac", "HMAC_SHA256")
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "pay"))
	d, err := in.domainOf(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	record := must[stored[versionRecord]](t)(read[versionRecord](t.Context(), in.Service, d, pathVersion(ns.ID, k.ID, 1)))
	material := must[[]byte](t)(d.Open(materialPlace(ns.ID, k.ID, 1, k.Algorithm), record.value.Material))
	signer := in.tokenSigner.key.Seed()
	in.close()
	err = filepath.WalkDir(in.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for name, secret := range map[string][]byte{"a key": material, "the token signer": signer} {
			if bytes.Contains(content, secret) {
				t.Errorf("%s holds %s", path, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Row 2: what is edited or moved is refused; a single record that is put back is
// served, and named by verify-store with the entries concerned.
func TestRow2WritingTheDisk(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	k := in.key("pay", "card", "")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	ns := must[*namespace](t)(in.findNamespace(t.Context(), "pay"))
	path := pathVersion(ns.ID, k.ID, 1)
	enabled := in.record(path).Value
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), VersionRef{Namespace: "pay", Key: "card", Version: 1}))
	in.overwrite(path, enabled)
	in.close()
	found := in.verifyStore()
	if len(found.Differences) != 1 || found.Differences[0].Path != path || !strings.Contains(found.Differences[0].Problem, "(DisableVersion) changed it since") {
		t.Errorf("a version put back: %+v", found.Differences)
	}

	in.open()
	edited := bytes.Replace(enabled, []byte("ENABLED"), []byte("ENABLEX"), 1)
	in.overwrite(path, edited)
	in.overwrite(pathVersion(ns.ID, k.ID, 2), enabled)
	in.crash()
	in.open()
	for version := range uint32(2) {
		_, err := in.GetVersion(t.Context(), admin(), VersionRef{Namespace: "pay", Key: "card", Version: version + 1})
		wantCode(t, err, DataLoss)
	}
	in.close()
	if found := in.verifyStore(); len(found.Differences) != 2 {
		t.Errorf("edited and moved: %+v", found.Differences)
	}
}

// Row 2: policies, groups, namespaces and revocations are fresh together: none of
// them can be put back or removed by itself.
func TestRow2CoveredRecordsAreFresh(t *testing.T) {
	for name, tamper := range map[string]func(in *testInstallation, old store.Record){
		"put back": func(in *testInstallation, old store.Record) { in.overwrite(old.Key, old.Value) },
		"removed": func(in *testInstallation, old store.Record) {
			must[store.Revision](in.t)(in.store.Commit(in.t.Context(), store.Txn{Deletes: []string{old.Key}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInstallation(t)
			in.namespace("pay")
			in.put("", "deny", `forbid (principal, action == Action::"Decrypt", resource) when { context.method == "unix" };`)
			old := in.record(pathPolicy("", "deny"))
			in.put("", "deny", `forbid (principal, action == Action::"Decrypt", resource);`)
			tamper(in, old)
			in.crash()
			parts := in.parts()
			_, err := Open(t.Context(), parts)
			in.closeParts()
			wantCode(t, err, DataLoss, "head")
			found := in.verifyStore()
			named := false
			for _, d := range found.Differences {
				named = named || d.Path == old.Key && d.Entry > 0
			}
			if !named {
				t.Errorf("verify-store finds %+v", found.Differences)
			}
			in.Service = nil
		})
	}
}

// Row 3 is TestAnOlderStoreIsRefused and TestAnOlderLogIsRefused.

// Row 6: a stolen token is worth what its principal may, leaves lines, and is
// taken back with what was made with it.
func TestRow6StolenToken(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.put("", "maker", `permit (principal == Token::"app", action == Action::"CreateToken", resource);
		permit (principal == Token::"boss", action, resource);`)
	stolen := must[NewToken](t)(in.CreateToken(t.Context(), admin(), CreateTokenRequest{Principal: "app"}))
	thief := Call{Caller: must[*policy.Caller](t)(in.VerifyToken(stolen.Text)), RequestID: "theft"}
	child := must[NewToken](t)(in.CreateToken(t.Context(), thief, CreateTokenRequest{Principal: "boss"}))
	boss := Call{Caller: must[*policy.Caller](t)(in.VerifyToken(child.Text)), RequestID: "theft2"}
	_, err := in.RotateKey(t.Context(), boss, KeyRef{Namespace: "pay", Key: "card"})
	wantCode(t, err, PermissionDenied) // bounded by what "app" may
	must[EncryptResponse](t)(in.Encrypt(t.Context(), thief, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")}))
	if lines := in.entries(audit.Filter{TokenID: stolen.ID, Action: "Encrypt"}); len(lines) != 1 || lines[0].Principal != `Token::"app"` {
		t.Errorf("lines about the token: %+v", lines)
	}
	must[Revocation](t)(in.RevokeTokens(t.Context(), admin(), RevokeTokensRequest{ID: stolen.ID}))
	for _, text := range []string{stolen.Text, child.Text} {
		if _, err := in.VerifyToken(text); CodeOf(err) != Unauthenticated {
			t.Errorf("after it was revoked: %v", err)
		}
	}
}

// Row 7: an operator changes keys, each change a line before it is made, and can
// neither use a key nor give himself the right to.
func TestRow7Operator(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	operator := as(policy.User, "operator")
	must[KeyVersion](t)(in.RotateKey(t.Context(), operator, KeyRef{Namespace: "pay", Key: "card"}))
	phases := in.entries(audit.Filter{Principal: `User::"operator"`, Action: "RotateKey"})
	if len(phases) != 2 || phases[0].Phase != audit.PhaseIntent || phases[1].Phase != audit.PhaseOutcome {
		t.Errorf("lines %+v", phases)
	}
	_, err := in.Encrypt(t.Context(), operator, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
	wantCode(t, err, PermissionDenied)
	_, err = in.PutPolicy(t.Context(), operator, PutPolicyRequest{Name: "mine", Text: `permit (principal, action, resource);`})
	wantCode(t, err, PermissionDenied)
	_, err = in.CreateToken(t.Context(), operator, CreateTokenRequest{Principal: "app"})
	wantCode(t, err, PermissionDenied)
	_, err = in.PutGroup(t.Context(), operator, PutGroupRequest{Name: "g", Members: []string{`User::"operator"`}})
	wantCode(t, err, PermissionDenied)
}

// Row 8: an administrator cannot use keys by his role; the policy by which he
// could is in the log, with its text, before it is in force.
func TestRow8Administrator(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.put("", "admins", `permit (principal == User::"boss", action in Action::"admin", resource);`)
	boss := as(policy.User, "boss")
	use := func() error {
		_, err := in.Encrypt(t.Context(), boss, &EncryptRequest{Namespace: "pay", Key: "card", Plaintext: []byte("x")})
		return err
	}
	wantCode(t, use(), PermissionDenied)
	text := `permit (principal == User::"boss", action, resource);`
	must[Policy](t)(in.PutPolicy(t.Context(), boss, PutPolicyRequest{Name: "for-me", Text: text}))
	if err := use(); err != nil {
		t.Fatal(err)
	}
	lines := in.entries(audit.Filter{Principal: `User::"boss"`, Action: "PutPolicy"})
	if len(lines) != 2 || lines[0].Phase != audit.PhaseIntent || lines[0].Details["text"] != text {
		t.Errorf("lines %+v", lines)
	}
}

// finding verifies the log of a closed installation with a kept checkpoint, and
// returns what is wrong with it, nil if nothing is.
func (in *testInstallation) finding(kept []byte) *verify.Finding {
	in.t.Helper()
	_, err := verify.Dir(context.Background(), filepath.Join(in.dir, "audit"), verify.Options{Checkpoint: kept})
	var found *verify.Finding
	if err != nil && !errors.As(err, &found) {
		in.t.Fatal(err)
	}
	return found
}

// Row 9: what root changes of the past is named by the verifier; row 13: store
// and log put back together fit each other, and a kept checkpoint tells.
func TestRow9And13RewritingThePast(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "card", "")
	in.close()
	oldStore, oldLog := in.keep("store"), in.keep("audit")
	in.open()
	in.encrypt("pay", "card", "x")
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	note, _ := in.audit.Checkpoint()
	kept := bytes.Clone(note)
	in.close()
	if found := in.finding(kept); found != nil {
		t.Fatalf("the true log: %+v", found)
	}

	segments, err := filepath.Glob(filepath.Join(in.dir, "audit", "*.jsonl"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("%v, %v", segments, err)
	}
	lines := must[[]byte](t)(os.ReadFile(segments[0]))
	forged := bytes.Replace(lines, []byte(`"action":"CreateKey"`), []byte(`"action":"DeleteKey"`), 1)
	if err := os.WriteFile(segments[0], forged, 0o600); err != nil {
		t.Fatal(err)
	}
	changed := uint64(bytes.Count(lines[:bytes.Index(lines, []byte(`"action":"CreateKey"`))], []byte("\n")))
	if found := in.finding(nil); found == nil || found.Entry != changed {
		t.Errorf("entry %d was changed, found %+v", changed, found)
	}

	in.putBack("store", oldStore)
	in.putBack("audit", oldLog)
	in.open() // they fit each other
	in.close()
	if found := in.finding(nil); found != nil {
		t.Errorf("without a kept checkpoint: %+v", found)
	}
	if found := in.finding(kept); found == nil {
		t.Error("the kept checkpoint does not tell")
	}
}

// Row 12: with device, store and log one can sign another past, but not one that
// a kept checkpoint contradicts.
func TestRow12SigningAnotherPast(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.close()
	oldStore, oldLog := in.keep("store"), in.keep("audit")
	in.open()
	in.key("pay", "card", "")
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	note, _ := in.audit.Checkpoint()
	kept := bytes.Clone(note)
	in.close()
	in.putBack("store", oldStore)
	in.putBack("audit", oldLog)
	in.open()
	for range 10 { // as many entries, and signed
		in.key("pay", "other"+newID().String(), "")
	}
	if err := in.makeCheckpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.close()
	if found := in.finding(nil); found != nil {
		t.Errorf("who has seen nothing finds %+v", found)
	}
	if found := in.finding(kept); found == nil {
		t.Error("the kept checkpoint does not tell")
	}
}
