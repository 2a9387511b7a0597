package kms

import (
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring/transit"
)

func TestCreateTransitKeyIsChecked(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	for part, q := range map[string]CreateKeyRequest{
		`type "des" is unknown; use aes128-gcm96`: {Transit: &TransitOptions{Type: "des"}},
		"convergent_encryption":                   {Transit: &TransitOptions{Convergent: true}},
		"derived":                                 {Transit: &TransitOptions{Type: "rsa-2048", Derived: true}},
		"key_size":                                {Transit: &TransitOptions{Type: "hmac", KeySize: 7}},
		"leave both out":                          {Transit: &TransitOptions{}, Algorithm: "AES_256_GCM"},
		"auto_rotate_period is 1ms":               {Transit: &TransitOptions{}, Rotation: Rotation{Period: time.Millisecond}},
		"exportable is not possible with":         {Transit: &TransitOptions{}, Exportable: true, Protection: HSMLevel},
	} {
		q.Namespace, q.Key = "pay", "card"
		_, err := in.CreateKey(t.Context(), admin(), q)
		t.Run(part, func(t *testing.T) { wantCode(t, err, InvalidArgument, part) })
	}
	q := CreateKeyRequest{Namespace: "pay", Key: "card", Transit: &TransitOptions{}, Idempotency: "once"}
	made := must[Key](t)(in.CreateKey(t.Context(), admin(), q))
	if again := must[Key](t)(in.CreateKey(t.Context(), admin(), q)); again.ID != made.ID || made.Transit.Type != "aes256-gcm96" || made.Algorithm != "AES_256_GCM" {
		t.Errorf("made %+v, then %+v", made, again)
	}
	q.Transit = &TransitOptions{Derived: true}
	_, err := in.CreateKey(t.Context(), admin(), q)
	wantCode(t, err, AlreadyExists, "another request")
	q.Transit = nil
	_, err = in.CreateKey(t.Context(), admin(), q)
	wantCode(t, err, AlreadyExists, "another request")
}

func TestPlaintextExportIsTheNamespaces(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	open := must[Namespace](t)(in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "open", PlaintextExport: true, Idempotency: "once"}))
	if !open.PlaintextExport || in.last("CreateNamespace").Details["plaintext_export"] != "true" {
		t.Errorf("made %+v, logged %+v", open, in.last("CreateNamespace").Details)
	}
	_, err := in.CreateNamespace(t.Context(), admin(), CreateNamespaceRequest{Namespace: "open", Idempotency: "once"})
	wantCode(t, err, AlreadyExists, "another request")
	create := func(namespace, key string, exportable, backup bool) error {
		return second(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: namespace, Key: key, Exportable: exportable, Transit: &TransitOptions{PlaintextBackup: backup}}))
	}
	for _, backup := range []bool{false, true} {
		err := create("pay", "card", !backup, backup)
		wantCode(t, err, FailedPrecondition, "namespace pay was not created for", "plaintext_export")
		if reasonOf(err) != "NO_PLAINTEXT_EXPORT" {
			t.Errorf("reason %s", reasonOf(err))
		}
	}
	wantCode(t, create("open", "card", true, true), OK)
	wantCode(t, create("pay", "card", false, false), OK)
	wantCode(t, create("open", "later", false, false), OK)
	in.close()
	in.open()
	yes, no := new(true), new(false)
	_, err = in.configure(ConfigureTransitRequest{Exportable: yes})
	wantCode(t, err, FailedPrecondition, "namespace pay was not created for")
	later := ConfigureTransitRequest{Namespace: "open", Key: "later", Exportable: yes, PlaintextBackup: yes}
	if k := must[Key](t)(in.ConfigureTransitKey(t.Context(), admin(), later)); !k.Exportable || !k.Transit.PlaintextBackup {
		t.Errorf("configured %+v", k)
	}
	later.Exportable, later.PlaintextBackup = no, no
	if k := must[Key](t)(in.ConfigureTransitKey(t.Context(), admin(), later)); !k.Exportable || !k.Transit.PlaintextBackup {
		t.Errorf("switched off what is for ever: %+v", k)
	}
	if ns := must[Namespace](t)(in.GetNamespace(t.Context(), admin(), "open")); !ns.PlaintextExport {
		t.Errorf("told %+v", ns)
	}
	if err := in.Service.count(t.Context()); err != nil || in.Health(t.Context()).Keys.PlaintextExport != 1 {
		t.Errorf("counted %+v, %v", in.Health(t.Context()).Keys, err)
	}
	in.exportable("pay", "native", "") // wrapped only
}

func TestReadTransitKey(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	in.transitKey("card", TransitOptions{Type: "ecdsa-p256"})
	in.rotate("card")
	in.rotate("card")
	read := func() TransitKeyInfo {
		return must[TransitKeyInfo](t)(in.ReadTransitKey(t.Context(), admin(), ReadTransitRequest{Namespace: "pay", Key: "card"}))
	}
	info := read()
	if len(info.Versions) != 3 || info.Settings.Type.Name() != "ecdsa-p256" || info.Key.LatestVersion != 3 {
		t.Fatalf("read %+v", info)
	}
	seen := map[string]bool{}
	for i, v := range info.Versions {
		if v.Version != uint32(i+1) || !strings.HasPrefix(v.PublicKey, "-----BEGIN PUBLIC KEY-----") || seen[v.PublicKey] || in.now().Sub(v.Created) > time.Hour {
			t.Errorf("version %+v", v)
		}
		seen[v.PublicKey] = true
	}
	in.minVersions(2, 0)
	if got := read().Versions; len(got) != 2 || got[0].Version != 2 {
		t.Errorf("read %+v", got)
	}
}

// A key on the token makes the same as one in memory.
func TestTransitKeysOnTheToken(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.namespace("pay")
	ctx := t.Context()
	create := func(name string, o TransitOptions) error {
		return second(in.CreateKey(ctx, admin(), CreateKeyRequest{Namespace: "pay", Key: name, Transit: &o, Protection: HSMLevel}))
	}
	kinds := []string{"aes256-gcm96", "aes128-gcm96", "ecdsa-p256", "ed25519"}
	made := map[string][]byte{}
	macs := map[string][]byte{}
	for _, name := range kinds {
		wantCode(t, create(name, TransitOptions{Type: name}), OK)
		if kind, _ := transit.LookupType(name); kind.Encrypts() {
			made[name] = in.transitSeal(name, 0, "x", transit.Params{AAD: []byte("row 7")})
		} else {
			made[name] = must[TransitSignResponse](t)(in.TransitSign(ctx, admin(), &TransitSignRequest{Namespace: "pay", Key: name, Message: []byte("m")})).Signature
		}
		macs[name] = must[TransitHMACResponse](t)(in.TransitHMAC(ctx, admin(), &TransitHMACRequest{Namespace: "pay", Key: name, Message: []byte("m")})).HMAC
	}
	check := func() {
		t.Helper()
		for name, text := range made {
			if kind, _ := transit.LookupType(name); kind.Encrypts() {
				in.wantTransitOpens(name, text, "x", transit.Params{AAD: []byte("row 7")})
			} else if got, err := in.TransitVerify(ctx, admin(), &TransitVerifyRequest{Namespace: "pay", Key: name, Message: []byte("m"), Signature: text}); err != nil || !got.Valid {
				t.Errorf("%s: TransitVerify = %+v, %v", name, got, err)
			}
			if got, err := in.TransitVerifyHMAC(ctx, admin(), &TransitVerifyHMACRequest{Namespace: "pay", Key: name, Message: []byte("m"), HMAC: macs[name]}); err != nil || !got.Valid {
				t.Errorf("%s: TransitVerifyHMAC = %+v, %v", name, got, err)
			}
		}
	}
	check()
	for _, name := range kinds {
		in.rotate(name)
	}
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.wantOnly("pay", 2)
	in.close()
	in.open()
	check()
	if got := len(in.device.keyIDs()); got != 2*len(kinds) {
		t.Errorf("%d keys are on the token", got)
	}
	in.wantObjects()
	in.wantBracketed()

	in.device.setAway(true)
	_, err := in.transitOpen("aes256-gcm96", made["aes256-gcm96"], transit.Params{AAD: []byte("row 7")})
	wantCode(t, err, Unavailable)
	in.device.setAway(false)
	for part, o := range map[string]TransitOptions{
		"derived":                 {Derived: true},
		"hmac cannot be held":     {Type: "hmac"},
		"chacha20-poly1305":       {Type: "chacha20-poly1305"},
		"ECDSA_P384_SHA384 is":    {Type: "ecdsa-p384"},
		"allow_plaintext_backup ": {PlaintextBackup: true},
	} {
		wantCode(t, create("bad", o), InvalidArgument, part)
	}
	in.wantObjects()
}
