package kms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
)

var exportTo = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func exportToDER() []byte { return x509.MarshalPKCS1PublicKey(&exportTo().PublicKey) }

// unwrapExported is what the recipient of an exported key does.
func unwrapExported(t *testing.T, wrapped []byte) []byte {
	t.Helper()
	encrypted, rest, err := keywrap.Split(wrapped, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := must[[]byte](t)(rsa.DecryptOAEP(sha256.New(), nil, exportTo(), encrypted, nil))
	return must[[]byte](t)(keywrap.Unwrap(key, rest))
}

func (in *testInstallation) exportable(namespace, name, algorithm string) Key {
	in.t.Helper()
	return must[Key](in.t)(in.CreateKey(in.t.Context(), admin(), CreateKeyRequest{Namespace: namespace, Key: name, Algorithm: algorithm, Exportable: true}))
}

func TestExportedKeyIsTheKey(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.exportable("pay", "signer", "ECDSA_P256_SHA256")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "signer"}))
	for number := uint32(1); number <= 2; number++ {
		exported := must[ExportedKey](t)(in.ExportKey(t.Context(), admin(), ExportKeyRequest{Namespace: "pay", Key: "signer", Version: number, PublicKey: exportToDER()}))
		if exported.Version != number || exported.Method != "RSA_OAEP_2048_SHA256_AES_256" || exported.Algorithm != "ECDSA_P256_SHA256" {
			t.Errorf("%+v", exported)
		}
		key := must[any](t)(x509.ParsePKCS8PrivateKey(unwrapExported(t, exported.Wrapped))).(*ecdsa.PrivateKey)
		signed := must[SignResponse](t)(in.Sign(t.Context(), admin(), &SignRequest{Namespace: "pay", Key: "signer", Version: number, Message: []byte("m")}))
		digest := sha256.Sum256([]byte("m"))
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signed.Signature) {
			t.Errorf("version %d: the exported key is another", number)
		}
	}
}

func TestExportedRawKeyIsTheKey(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.exportable("pay", "mac", "HMAC_SHA256")
	exported := must[ExportedKey](t)(in.ExportKey(t.Context(), admin(), ExportKeyRequest{Namespace: "pay", Key: "mac", PublicKey: exportToDER()}))
	raw := unwrapExported(t, exported.Wrapped)
	if len(raw) != 32 || !bytes.Equal(hmacSHA256(raw, []byte("m")), must[MACResponse](t)(in.GenerateMAC(t.Context(), admin(), &MACRequest{Namespace: "pay", Key: "mac", Message: []byte("m")})).MAC) {
		t.Errorf("the exported key of %d bytes is another", len(raw))
	}
	if bytes.Contains(exported.Wrapped, raw) {
		t.Error("it is not wrapped")
	}
}

func TestExportIsRefused(t *testing.T) {
	in := newInstallation(t)
	ctx := t.Context()
	in.namespace("pay")
	in.key("pay", "kept", "")
	in.exportable("pay", "card", "")
	must[KeyVersion](t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "card"}))
	must[KeyVersion](t)(in.DisableVersion(ctx, admin(), VersionRef{Namespace: "pay", Key: "card", Version: 1}))
	small := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	for name, c := range map[string]struct {
		call   Call
		q      ExportKeyRequest
		code   Code
		expect string
	}{
		"not exportable":    {admin(), ExportKeyRequest{Key: "kept", PublicKey: exportToDER()}, FailedPrecondition, "was not created exportable"},
		"disabled":          {admin(), ExportKeyRequest{Key: "card", Version: 1, PublicKey: exportToDER()}, FailedPrecondition, "DISABLED"},
		"no such version":   {admin(), ExportKeyRequest{Key: "card", Version: 3, PublicKey: exportToDER()}, NotFound, "version 3"},
		"no such key":       {admin(), ExportKeyRequest{Key: "none", PublicKey: exportToDER()}, NotFound, "none"},
		"no public key":     {admin(), ExportKeyRequest{Key: "card"}, InvalidArgument, "public_key is missing"},
		"a short RSA key":   {admin(), ExportKeyRequest{Key: "card", PublicKey: x509.MarshalPKCS1PublicKey(&small.PublicKey)}, InvalidArgument, "2048"},
		"no right":          {appCall(), ExportKeyRequest{Key: "card", PublicKey: exportToDER()}, PermissionDenied, "ExportKey"},
		"an operator":       {as(policy.User, "operator"), ExportKeyRequest{Key: "card", PublicKey: exportToDER()}, PermissionDenied, "ExportKey"},
		"nobody, of no key": {nobody(), ExportKeyRequest{Key: "none", PublicKey: exportToDER()}, PermissionDenied, "ExportKey"},
	} {
		c.q.Namespace = "pay"
		got, err := in.ExportKey(ctx, c.call, c.q)
		t.Run(name, func(t *testing.T) { wantCode(t, err, c.code, c.expect) })
		if len(got.Wrapped) > 0 {
			t.Errorf("%s: wrapped material came with the error", name)
		}
	}
	_, err := in.CreateKey(ctx, admin(), CreateKeyRequest{Namespace: "pay", Key: "hsm", Protection: HSMLevel, Exportable: true})
	wantCode(t, err, InvalidArgument)
}

func hmacSHA256(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

func TestExportIsInTheLog(t *testing.T) {
	in := newInstallation(t)
	in.close()
	in.log.Interval = time.Hour // what is durable before is durable because it was asked for
	in.open()
	in.namespace("pay")
	in.exportable("pay", "card", "")
	exported := must[ExportedKey](t)(in.ExportKey(t.Context(), admin(), ExportKeyRequest{Namespace: "pay", Key: "card", PublicKey: exportToDER()}))
	entries := in.entries(audit.Filter{Action: string(policy.ExportKey)})
	if len(entries) != 1 {
		t.Fatalf("%d entries", len(entries))
	}
	e := entries[0]
	if synced := in.audit.Stats().Synced; synced <= e.Sequence {
		t.Errorf("of %d lines %d are durable", e.Sequence+1, synced)
	}
	if e.Version != 1 || e.Key != "card" || e.Outcome != string(OK) || e.Details["public_key_sha256"] != fingerprint(&exportTo().PublicKey) {
		t.Errorf("%+v", e)
	}
	raw := unwrapExported(t, exported.Wrapped)
	in.wantNowhere(raw)
}

// wantNowhere fails if a secret is in any file.
func (in *testInstallation) wantNowhere(secret []byte) {
	in.t.Helper()
	files := 0
	err := filepath.WalkDir(in.dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a file that was written anew took its place
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files++
		for _, form := range [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret))} {
			if bytes.Contains(content, form) {
				in.t.Errorf("%s holds key material", path)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		in.t.Fatalf("%d files, %v", files, err)
	}
}

func TestExportableIsForEver(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.exportable("pay", "card", "")
	must[Key](t)(in.UpdateKey(t.Context(), admin(), UpdateKeyRequest{Namespace: "pay", Key: "card", Rotation: &Rotation{Period: time.Hour}}))
	in.close()
	in.open()
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})); !k.Exportable {
		t.Errorf("%+v", k)
	}
}
