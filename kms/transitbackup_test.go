package kms

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/store"
)

// transitBackups are what the real engines made, and ciphertexts under their keys.
type transitBackups struct {
	Cases []struct {
		Name, Backup string
		Ciphertexts  []struct{ Context, AAD, Nonce, Padding, Plaintext, Ciphertext string }
		HMACs        []struct{ Hash, Message, HMAC string }
	}
}

func readTransitBackups(t testing.TB, engine string) transitBackups {
	t.Helper()
	var b transitBackups
	raw := must[[]byte](t)(os.ReadFile("../keyring/transit/testdata/" + engine + ".json"))
	if err := json.Unmarshal(raw, &b); err != nil || len(b.Cases) < 20 {
		t.Fatalf("%s has %d cases: %v", engine, len(b.Cases), err)
	}
	return b
}

// transitBackup is OpenBao's backup of a key: the case's name says which.
func transitBackup(t testing.TB, name string) string {
	t.Helper()
	for _, c := range readTransitBackups(t, "openbao").Cases {
		if c.Name == name {
			return c.Backup
		}
	}
	t.Fatalf("no backup of %s", name)
	return ""
}

// changedBackup is a backup whose JSON policy was changed.
func changedBackup(t testing.TB, backup string, change func(policy map[string]any)) string {
	t.Helper()
	var data map[string]any
	decoder := json.NewDecoder(base64.NewDecoder(base64.StdEncoding, strings.NewReader(backup)))
	decoder.UseNumber()
	if err := decoder.Decode(&data); err != nil {
		t.Fatal(err)
	}
	change(data["policy"].(map[string]any))
	return base64.StdEncoding.EncodeToString(must[[]byte](t)(json.Marshal(data)))
}

func (in *testInstallation) restored(q RestoreTransitRequest) (Key, error) {
	if q.Namespace == "" {
		q.Namespace = "pay"
	}
	return in.RestoreTransitKey(in.t.Context(), admin(), q)
}

func TestRestoredKeysServeWhatTheyMade(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	names := map[string]string{} // of keys, by engine and case
	check := func() {
		t.Helper()
		n := 0
		for _, engine := range []string{"vault", "openbao"} {
			for _, c := range readTransitBackups(t, engine).Cases {
				name := names[engine+"/"+c.Name]
				for _, sealed := range c.Ciphertexts {
					in.wantTransitOpens(name, []byte(sealed.Ciphertext), sealed.Plaintext, transit.Params{Context: []byte(sealed.Context), AAD: []byte(sealed.AAD),
						Nonce: []byte(sealed.Nonce), Padding: sealed.Padding})
					n++
				}
				for _, mac := range c.HMACs {
					got, err := in.TransitVerifyHMAC(t.Context(), admin(), &TransitVerifyHMACRequest{Namespace: "pay", Key: name, Message: []byte(mac.Message), Hash: mac.Hash, HMAC: []byte(mac.HMAC)})
					if err != nil || !got.Valid {
						t.Errorf("%s: HMAC %s: %+v, %v", c.Name, mac.HMAC, got, err)
					}
					n++
				}
			}
		}
		if n < 400 {
			t.Errorf("checked only %d", n)
		}
	}
	for _, engine := range []string{"vault", "openbao"} {
		for _, c := range readTransitBackups(t, engine).Cases {
			name := engine + "." + strings.NewReplacer(" ", "-", ",", "").Replace(c.Name)
			names[engine+"/"+c.Name] = name
			k, err := in.restored(RestoreTransitRequest{Key: name, Backup: c.Backup})
			if err != nil || k.Transit == nil || k.PrimaryVersion != k.LatestVersion || k.Exportable {
				t.Fatalf("%s: restored %+v, %v", name, k, err)
			}
			archived := max(k.Transit.MinAvailableVersion, 1)
			must[Key](t)(in.ConfigureTransitKey(t.Context(), admin(), ConfigureTransitRequest{Namespace: "pay", Key: name, MinDecryptionVersion: &archived}))
		}
	}
	check()
	in.close()
	in.open()
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	check()
	in.wantBracketed()
}

func TestRestoredTrimmedVersions(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	k := must[Key](t)(in.restored(RestoreTransitRequest{Key: "old", Backup: transitBackup(t, "trimmed aes256-gcm96")}))
	if k.Transit.MinAvailableVersion < 2 {
		t.Fatalf("restored %+v", k.Transit)
	}
	trimmed := k.Transit.MinAvailableVersion - 1
	_, err := in.transitOpen("old", []byte("vault:v1:AAAA"), transit.Params{})
	wantCode(t, err, FailedPrecondition, "version 1 is DESTROYED")
	for name, err := range map[string]error{
		"enable":  second(in.EnableVersion(t.Context(), admin(), ref("old", trimmed))),
		"restore": second(in.RestoreVersion(t.Context(), admin(), ref("old", trimmed))),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, NotFound, "does not exist") })
	}
	if got := must[TransitKeyInfo](t)(in.ReadTransitKey(t.Context(), admin(), ReadTransitRequest{Namespace: "pay", Key: "old"})).Versions; got[0].Version <= trimmed {
		t.Errorf("read %+v", got)
	}
}

func TestRestoreIsRefusedByLimits(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.key("pay", "taken", "")
	good := transitBackup(t, "aes256-gcm96")
	renamed := func(name string) string {
		return changedBackup(t, good, func(p map[string]any) { p["name"] = name })
	}
	for name, c := range map[string]struct {
		q    RestoreTransitRequest
		code Code
		part string
	}{
		"taken":              {RestoreTransitRequest{Key: "taken", Backup: good}, AlreadyExists, "key pay/taken already exists"},
		"taken, by its name": {RestoreTransitRequest{Backup: renamed("taken")}, AlreadyExists, "key pay/taken already exists"},
		"no backup":          {RestoreTransitRequest{Key: "new"}, InvalidArgument, "backup"},
		"no base64":          {RestoreTransitRequest{Key: "new", Backup: "!"}, InvalidArgument, "is not base64"},
		"something else":     {RestoreTransitRequest{Backup: "e30="}, InvalidArgument, "is not a backup"},
		"no such name here":  {RestoreTransitRequest{Backup: renamed("a b")}, InvalidArgument, `the backup's own name, "a b"`},
		"no key":             {RestoreTransitRequest{Key: "new", Backup: "e30="}, InvalidArgument, "is not a backup"},
		"no namespace":       {RestoreTransitRequest{Namespace: "none", Key: "new", Backup: good}, NotFound, "none"},
		"rotated too often": {RestoreTransitRequest{Key: "new", Backup: changedBackup(t, good, func(p map[string]any) { p["auto_rotate_period"] = 1 })},
			InvalidArgument, "auto_rotate_period is 1ns"},
		"rotated, but not to be": {RestoreTransitRequest{Key: "new", Backup: changedBackup(t, good, func(p map[string]any) {
			p["auto_rotate_period"], p["Imported"] = int64(time.Hour), true
		})}, InvalidArgument, "imported key that may not be rotated"},
		"too many versions": {RestoreTransitRequest{Key: "new", Backup: manyVersions(t, good, MaxRestoredVersions+1)}, InvalidArgument, "has 1001 versions, the limit is 1000; where it comes from, rewrap what the oldest 1 encrypted"},
	} {
		_, err := in.restored(c.q)
		t.Run(name, func(t *testing.T) { wantCode(t, err, c.code, c.part) })
	}
	_, err := in.RestoreTransitKey(t.Context(), nobody(), RestoreTransitRequest{Namespace: "pay", Key: "new", Backup: good})
	wantCode(t, err, PermissionDenied)
	most := RestoreTransitRequest{Key: "most", Backup: manyVersions(t, good, MaxRestoredVersions), Idempotency: "once"}
	k := must[Key](t)(in.restored(most))
	if again := must[Key](t)(in.restored(most)); again.ID != k.ID || k.LatestVersion != MaxRestoredVersions {
		t.Errorf("restored %+v, then %+v", k, again)
	}
}

// manyVersions is a backup of a key that was rotated: all its versions are the first.
func manyVersions(t testing.TB, backup string, n int) string {
	b := must[*transit.Backup](t)(transit.ParseBackup(backup))
	b.LatestVersion, b.MinDecryptionVersion, b.MinEncryptionVersion = uint32(n), 1, 0
	b.AutoRotatePeriod = 24 * time.Hour
	for v := uint32(1); v <= b.LatestVersion; v++ {
		b.Versions[v] = b.Versions[1]
	}
	return must[string](t)(b.Encode())
}

func TestRestoreValidatesOnly(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	q := RestoreTransitRequest{Key: "card", Backup: transitBackup(t, "ecdsa-p256"), ValidateOnly: true}
	before := must[store.Revision](t)(in.store.Revision(t.Context()))
	if k := must[Key](t)(in.restored(q)); k.Name != "card" || k.Transit.Type != "ecdsa-p256" || k.LatestVersion != 2 {
		t.Errorf("described %+v", k)
	}
	if e := in.last("ImportKey"); e.Details["validate_only"] != "true" || e.Details["type"] != "ecdsa-p256" || len(e.Records) > 0 {
		t.Errorf("logged %+v", e)
	}
	_, err := in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})
	wantCode(t, err, NotFound)
	if after := must[store.Revision](t)(in.store.Revision(t.Context())); after != before {
		t.Errorf("the store changed: %d, then %d", before, after)
	}
	q.ValidateOnly = false
	must[Key](t)(in.restored(q))
	q.ValidateOnly = true
	_, err = in.restored(q)
	wantCode(t, err, AlreadyExists)
}

// A backup of what was restored is what was restored, to the byte.
func TestBackupOfARestoredKey(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	must[Namespace](t)(in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "backed", PlaintextExport: true}))
	for _, name := range []string{"aes256-gcm96", "trimmed aes256-gcm96", "convergent aes128-gcm96", "ecdsa-p256", "ed25519", "rsa-2048", "hmac of 512 bytes"} {
		for _, hashiCorp := range []bool{false, true} {
			b := must[*transit.Backup](t)(transit.ParseBackup(transitBackup(t, name)))
			b.Exportable, b.PlaintextBackup, b.HashiCorp = true, true, hashiCorp
			b.Name = strings.ReplaceAll(name, " ", "-") + map[bool]string{true: ".vault"}[hashiCorp]
			text := must[string](t)(b.Encode())
			k := must[Key](t)(in.restored(RestoreTransitRequest{Namespace: "backed", Backup: text}))
			if k.Name != b.Name {
				t.Errorf("restored as %s", k.Name)
			}
			if again := must[string](t)(in.BackupTransitKey(t.Context(), admin(), BackupTransitRequest{Namespace: "backed", Key: k.Name, HashiCorp: hashiCorp})); again != text {
				t.Errorf("%s: the backup is another", k.Name)
			}
		}
	}
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), VersionRef{Namespace: "backed", Key: "aes256-gcm96", Version: 1}))
	_, err := in.BackupTransitKey(t.Context(), admin(), BackupTransitRequest{Namespace: "backed", Key: "aes256-gcm96"})
	wantCode(t, err, FailedPrecondition, "version 1 is DISABLED")
}

// A key with more versions than a transaction takes comes in pages, the newest first, and
// a restore that ended early is taken up by the same backup.
func TestRestoreOfManyVersions(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	const many = 3*restorePage + 7
	q := RestoreTransitRequest{Namespace: "pay", Key: "many", Backup: manyVersions(t, transitBackup(t, "aes256-gcm96"), many)}
	r := must[*restoring](t)(in.readBackup(q))
	defer r.wipe()
	begun := must[Key](t)(in.restoreNewest(t.Context(), admin(), q, r, nil))
	if begun.Transit.Restoring != many-restorePage+1 || begun.LatestVersion != many {
		t.Fatalf("begun %+v", begun.Transit)
	}
	newest := in.transitSeal("many", 0, "x", transit.Params{})
	in.wantTransitOpens("many", newest, "x", transit.Params{})
	of := func(v int) []byte {
		return bytes.Replace(newest, []byte(fmt.Sprintf("v%d:", many)), []byte(fmt.Sprintf("v%d:", v)), 1)
	}
	for _, what := range []error{
		second(in.transitOpen("many", of(1), transit.Params{})),
		second(in.TransitEncrypt(t.Context(), admin(), &TransitEncryptRequest{Namespace: "pay", Key: "many", Version: 2, Plaintext: []byte("x")})),
	} {
		wantReason(t, what, FailedPrecondition, "VERSION_PENDING")
	}
	in.close() // and a restart in between
	in.open()
	other := q
	other.Backup = manyVersions(t, transitBackup(t, "aes128-gcm96"), 2)
	_, err := in.restored(other)
	wantReason(t, err, AlreadyExists, "KEY_EXISTS")
	done := must[Key](t)(in.restored(q))
	if done.Transit.Restoring != 0 || done.ID != begun.ID {
		t.Fatalf("done %+v", done.Transit)
	}
	for v := 1; v <= many; v++ {
		in.wantTransitOpens("many", of(v), "x", transit.Params{})
	}
	_, err = in.restored(q)
	wantReason(t, err, AlreadyExists, "KEY_EXISTS")
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("the store differs from its log: %v", found.Differences)
	}
}
