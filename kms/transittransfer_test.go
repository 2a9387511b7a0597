package kms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
)

// openNamespace makes namespace open, with plaintext export.
func (in *testInstallation) openNamespace() {
	in.t.Helper()
	must[Namespace](in.t)(in.CreateNamespace(context.Background(), admin(), CreateNamespaceRequest{Namespace: "open", PlaintextExport: true}))
}

func (in *testInstallation) openKey(name string, o TransitOptions) {
	in.t.Helper()
	o.PlaintextBackup = true
	must[Key](in.t)(in.CreateKey(context.Background(), admin(), CreateKeyRequest{Namespace: "open", Key: name, Exportable: true, Transit: &o}))
}

func (in *testInstallation) backup(name string) string {
	in.t.Helper()
	return must[string](in.t)(in.BackupTransitKey(context.Background(), admin(), BackupTransitRequest{Namespace: "open", Key: name}))
}

func (in *testInstallation) restore(namespace, name, backup string) (Key, error) {
	return in.RestoreTransitKey(context.Background(), admin(), RestoreTransitRequest{Namespace: namespace, Key: name, Backup: backup})
}

func TestRestoredTransitKeysGoOn(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.openNamespace()
	ctx := context.Background()
	for name, o := range transitKinds() {
		if o.Type == "rsa-3072" || o.Type == "rsa-4096" { // as rsa-2048, and slow to make
			continue
		}
		in.openKey(name, o)
		p := o.params()
		var old []byte
		if kind, _ := transit.LookupType(o.Type); kind.Encrypts() {
			old = must[TransitEncryptResponse](t)(in.TransitEncrypt(ctx, admin(), &TransitEncryptRequest{Namespace: "open", Key: name, Plaintext: []byte("secret"), Params: p})).Ciphertext
		}
		tag := must[TransitHMACResponse](t)(in.TransitHMAC(ctx, admin(), &TransitHMACRequest{Namespace: "open", Key: name, Message: []byte("m")})).HMAC
		must[KeyVersion](t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: "open", Key: name}))
		backup := in.backup(name)

		restored, err := in.restore("pay", "", backup)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if restored.Name != name || restored.LatestVersion != 2 || restored.Exportable || restored.Transit.PlaintextBackup || restored.Imported.IsZero() {
			t.Fatalf("%s: restored as %+v %+v", name, restored, restored.Transit)
		}
		if old != nil {
			in.wantTransitOpens(name, old, "secret", p)
		}
		if !must[VerifyResponse](t)(in.TransitVerifyHMAC(ctx, admin(), &TransitVerifyHMACRequest{Namespace: "pay", Key: name, Message: []byte("m"), HMAC: tag})).Valid {
			t.Fatalf("%s: an HMAC from before does not verify", name)
		}
		if v := in.rotate(name); v != 3 {
			t.Fatalf("%s: rotated to version %d", name, v)
		}
	}
	in.close()
	if report := in.verifyStore(); len(report.Differences) > 0 {
		t.Fatalf("the store differs from its log: %v", report.Differences)
	}
}

func TestRestoreKeepsSettings(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.openNamespace()
	ctx := context.Background()
	in.openKey("k", TransitOptions{})
	for range 4 {
		must[KeyVersion](t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: "open", Key: "k"}))
	}
	must[Key](t)(in.ConfigureTransitKey(ctx, admin(), ConfigureTransitRequest{Namespace: "open", Key: "k", MinDecryptionVersion: new(uint32(3)),
		MinEncryptionVersion: new(uint32(4)), DeletionAllowed: new(true), AutoRotatePeriod: new(48 * time.Hour)}))
	must[Key](t)(in.TrimTransitKey(ctx, admin(), TrimTransitRequest{Namespace: "open", Key: "k", MinAvailableVersion: 3}))
	restored, err := in.restore("open", "copy", in.backup("k"))
	if err != nil {
		t.Fatal(err)
	}
	tr := restored.Transit
	if tr.MinDecryptionVersion != 3 || tr.MinEncryptionVersion != 4 || tr.MinAvailableVersion != 3 || !tr.DeletionAllowed ||
		!restored.Exportable || !tr.PlaintextBackup || restored.Rotation.Period != 48*time.Hour || restored.PrimaryVersion != 5 {
		t.Fatalf("restored as %+v %+v", restored, tr)
	}
	// What was trimmed before is gone, not damaged.
	text := []byte("vault:v1:" + base64.StdEncoding.EncodeToString(make([]byte, 40)))
	_, err = in.TransitDecrypt(ctx, admin(), &TransitDecryptRequest{Namespace: "open", Key: "copy", Ciphertext: text})
	wantReason(t, err, FailedPrecondition, "VERSION_DESTROYED")
	_, err = in.GetVersion(ctx, admin(), VersionRef{Namespace: "open", Key: "copy", Version: 1})
	wantReason(t, err, NotFound, "VERSION_NOT_FOUND")
	must[string](t)(in.BackupTransitKey(ctx, admin(), BackupTransitRequest{Namespace: "open", Key: "copy", HashiCorp: true}))
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.openNamespace()
	in.openKey("k", TransitOptions{})
	backup := in.backup("k")
	_, err := in.restore("open", "", backup)
	wantReason(t, err, AlreadyExists, "KEY_EXISTS")
	_, err = in.restore("open", "new", "%%%")
	wantField(t, err, "backup")
	_, err = in.restore("open", "bad name", backup)
	wantField(t, err, "key")
	_, err = in.restore("nowhere", "", backup)
	wantReason(t, err, NotFound, "NAMESPACE_NOT_FOUND")

	dry, err := in.RestoreTransitKey(context.Background(), admin(), RestoreTransitRequest{Namespace: "open", Key: "dry", Backup: backup, ValidateOnly: true})
	if err != nil || dry.Name != "dry" {
		t.Fatalf("validated as %+v, %v", dry, err)
	}
	_, err = in.GetKey(context.Background(), admin(), KeyRef{Namespace: "open", Key: "dry"})
	wantReason(t, err, NotFound, "KEY_NOT_FOUND")
}

func TestPlaintextLeavesOnlyWhereItMay(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.openNamespace()
	ctx := context.Background()
	in.transitKey("kept", TransitOptions{Type: "ecdsa-p256"})
	in.openKey("k", TransitOptions{Type: "ecdsa-p256"})
	must[Key](t)(in.CreateKey(ctx, admin(), CreateKeyRequest{Namespace: "open", Key: "nobackup", Exportable: true, Transit: &TransitOptions{}}))
	must[Key](t)(in.CreateKey(ctx, admin(), CreateKeyRequest{Namespace: "open", Key: "derived", Transit: &TransitOptions{Type: "ed25519", Derived: true}}))

	export := func(namespace, name string, kind transit.ExportKind) error {
		_, err := in.ExportTransitKey(ctx, admin(), ExportTransitRequest{Namespace: namespace, Key: name, Kind: kind})
		return err
	}
	wantReason(t, export("pay", "kept", transit.SigningKey), FailedPrecondition, "NOT_EXPORTABLE")
	wantReason(t, export("open", "derived", transit.SigningKey), FailedPrecondition, "NOT_EXPORTABLE")
	wantField(t, export("open", "derived", transit.PublicKey), "type")
	wantField(t, export("open", "nobackup", transit.PublicKey), "type")
	wantField(t, export("open", "k", transit.EncryptionKey), "type")
	for _, err := range []error{export("pay", "kept", transit.PublicKey), export("open", "k", transit.SigningKey), export("open", "k", transit.HMACKey)} {
		if err != nil {
			t.Error(err)
		}
	}
	_, err := in.BackupTransitKey(ctx, admin(), BackupTransitRequest{Namespace: "open", Key: "nobackup"})
	wantReason(t, err, FailedPrecondition, "NO_PLAINTEXT_BACKUP")
	_, err = in.BackupTransitKey(ctx, admin(), BackupTransitRequest{Namespace: "pay", Key: "kept"})
	wantReason(t, err, FailedPrecondition, "NOT_EXPORTABLE")
	_, err = in.BackupTransitKey(ctx, callerWithout(t, in), BackupTransitRequest{Namespace: "open", Key: "k"})
	wantReason(t, err, PermissionDenied, "POLICY_DENIED")

	// Each is in the log, as what left in plaintext.
	in.backup("k")
	found := 0
	for _, e := range must[[]audit.Entry](t)(in.ListAudit(ctx, admin(), audit.Filter{Action: string(policy.ExportKey)})) {
		if e.Outcome == string(OK) && e.Details["form"] == "plaintext" {
			found++
		}
	}
	if found != 3 {
		t.Errorf("%d lines tell of plaintext that left, want 3", found)
	}
}

// callerWithout is somebody whom no policy permits anything.
func callerWithout(t *testing.T, _ *testInstallation) Call {
	t.Helper()
	return Call{Caller: &policy.Caller{Type: policy.User, ID: "local:CN=nobody", Method: "mtls"}, RequestID: "nobody"}
}

func TestTransitImport(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	ctx := context.Background()
	pem := must[string](t)(in.TransitWrappingKey(ctx, admin(), "pay"))
	if again := must[string](t)(in.TransitWrappingKey(ctx, admin(), "pay")); again != pem {
		t.Fatal("another wrapping key each time")
	}
	to := must[*rsa.PublicKey](t)(keywrap.ParsePublicKey([]byte(pem)))
	wrap := func(h crypto.Hash, material []byte) []byte {
		return must[[]byte](t)(keywrap.Wrap(to, h, material))
	}
	ec := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(ec))
	aes := make([]byte, 32)
	_, _ = rand.Read(aes)

	k, err := in.ImportTransitKey(ctx, admin(), ImportTransitRequest{Namespace: "pay", Key: "aes", Ciphertext: wrap(crypto.SHA1, aes), Hash: "SHA1"})
	if err != nil || !k.Transit.Imported {
		t.Fatalf("%+v, %v", k, err)
	}
	in.wantTransitOpens("aes", in.transitSeal("aes", 0, "x", transit.Params{}), "x", transit.Params{})
	_, err = in.RotateKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "aes"})
	wantReason(t, err, FailedPrecondition, "ROTATION_NOT_ALLOWED")
	k, err = in.ImportTransitKey(ctx, admin(), ImportTransitRequest{Namespace: "pay", Key: "aes", Version: true, Ciphertext: wrap(crypto.SHA256, aes)})
	if err != nil || k.LatestVersion != 2 || k.PrimaryVersion != 2 {
		t.Fatalf("%+v, %v", k, err)
	}
	if text := string(in.transitSeal("aes", 0, "x", transit.Params{})); !strings.HasPrefix(text, "vault:v2:") {
		t.Fatal(text)
	}
	_, err = in.ImportTransitKey(ctx, admin(), ImportTransitRequest{Namespace: "pay", Key: "ec", Ciphertext: wrap(crypto.SHA512, der), Hash: "SHA512",
		Options: TransitOptions{Type: "ecdsa-p256"}, AllowRotation: true})
	if err != nil {
		t.Fatal(err)
	}
	in.rotate("ec")

	in.transitKey("own", TransitOptions{})
	for name, q := range map[string]ImportTransitRequest{
		"another hash":     {Key: "a", Ciphertext: wrap(crypto.SHA1, aes)},
		"unknown hash":     {Key: "a", Ciphertext: wrap(crypto.SHA1, aes), Hash: "MD5"},
		"nothing":          {Key: "a"},
		"short":            {Key: "a", Ciphertext: []byte("short")},
		"wrong size":       {Key: "a", Ciphertext: wrap(crypto.SHA256, aes[:31])},
		"wrong type":       {Key: "a", Ciphertext: wrap(crypto.SHA256, der), Options: TransitOptions{Type: "ed25519"}},
		"there is one":     {Key: "own", Ciphertext: wrap(crypto.SHA256, aes)},
		"no imported key":  {Key: "own", Version: true, Ciphertext: wrap(crypto.SHA256, aes)},
		"no key":           {Key: "none", Version: true, Ciphertext: wrap(crypto.SHA256, aes)},
		"into the token":   {Key: "a", Ciphertext: wrap(crypto.SHA256, aes), Protection: HSMLevel},
		"exportable here":  {Key: "a", Ciphertext: wrap(crypto.SHA256, aes), Exportable: true},
		"unknown type":     {Key: "a", Ciphertext: wrap(crypto.SHA256, aes), Options: TransitOptions{Type: "des"}},
		"rotation refused": {Key: "a", Ciphertext: wrap(crypto.SHA256, aes), AutoRotate: time.Hour},
	} {
		q.Namespace = "pay"
		if k, err := in.ImportTransitKey(ctx, admin(), q); err == nil || CodeOf(err) == Internal {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

func wantReason(t testing.TB, err error, code Code, reason string) {
	t.Helper()
	if CodeOf(err) != code || reasonOf(err) != reason {
		t.Errorf("error %v (%s), want %s %s", err, reasonOf(err), code, reason)
	}
}

func wantField(t testing.TB, err error, field string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != InvalidArgument || e.Field != field {
		t.Errorf("error %v, want an invalid %s", err, field)
	}
}
