package kms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
	"github.com/keywright/keywright/kms/store/storetest"
)

// wrapFor is what a client does.
func wrapFor(t testing.TB, p ImportParameters, material []byte) []byte {
	t.Helper()
	to, err := keywrap.ParsePublicKey([]byte(p.PublicKeyPEM))
	if err != nil {
		t.Fatal(err)
	}
	hash, ok := keywrap.ParseHash(p.Hash)
	if !ok {
		t.Fatalf("no hash %q", p.Hash)
	}
	return must[[]byte](t)(keywrap.Wrap(to, hash, material))
}

func importKey(t testing.TB, in *testInstallation, p ImportParameters, name string, material []byte) (Key, error) {
	return in.ImportKey(t.Context(), admin(), ImportKeyRequest{Namespace: p.Namespace, Key: name, Job: p.Job.String(), Wrapped: wrapFor(t, p, material)})
}

func newECKey(t testing.TB, curve elliptic.Curve) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(curve, rand.Reader))
	return key, must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
}

func newRawKey(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestImportedKeySigns(t *testing.T) {
	for _, c := range []struct {
		protection Protection
		oaep256    bool
		method     string
	}{
		{Software, true, "RSA_OAEP_3072_SHA256_AES_256"},
		{Software, false, "RSA_OAEP_3072_SHA1_AES_256"},
		{HSMLevel, true, "RSA_OAEP_3072_SHA256_AES_256"},
	} {
		t.Run(fmt.Sprint(c.protection, " ", c.method), func(t *testing.T) {
			in := newInstallation(t)
			in.device.oaep256 = c.oaep256
			in.namespace("pay")
			key, der := newECKey(t, elliptic.P256())
			p := in.parameters("pay", "ECDSA_P256_SHA256", c.protection)
			if p.Method != c.method || p.Expires.Sub(p.Created) != DefaultImportTTL {
				t.Errorf("%+v", p)
			}
			k := must[Key](t)(importKey(t, in, p, "signer", der))
			if k.Protection != c.protection || k.Algorithm != "ECDSA_P256_SHA256" || k.Imported.IsZero() {
				t.Errorf("%+v", k)
			}
			in.wantSignsAs(key, "signer", 1)
			in.close()
			in.open()
			in.wantSignsAs(key, "signer", 1)
			in.wantNowhere(must[[]byte](t)(key.Bytes()))
			v := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), VersionRef{Namespace: "pay", Key: "signer"}))
			if v.Imported.IsZero() || !v.Primary {
				t.Errorf("%+v", v)
			}
		})
	}
}

// wantSignsAs wants a version of a key of pay to sign as key does.
func (in *testInstallation) wantSignsAs(key *ecdsa.PrivateKey, name string, version uint32) {
	in.t.Helper()
	signed := must[SignResponse](in.t)(in.Sign(in.t.Context(), admin(), &SignRequest{Namespace: "pay", Key: name, Version: version, Message: []byte("m")}))
	digest := sha256.Sum256([]byte("m"))
	if signed.Version != version || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signed.Signature) {
		in.t.Errorf("version %d of %s is another key", version, name)
	}
}

func TestImportedRawKeyEncrypts(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	mac := newRawKey(32)
	must[Key](t)(importKey(t, in, in.parameters("pay", "HMAC_SHA256", Software), "mac", mac))
	got := must[MACResponse](t)(in.GenerateMAC(t.Context(), admin(), &MACRequest{Namespace: "pay", Key: "mac", Message: []byte("m")})).MAC
	if !bytes.Equal(got, hmacSHA256(mac, []byte("m"))) {
		t.Error("the MAC is another key's")
	}
	for _, algorithm := range []string{"XAES_256_GCM", "AES_256_GCM", "AES_256_SIV"} {
		size := map[bool]int{true: 64, false: 32}[algorithm == "AES_256_SIV"]
		must[Key](t)(importKey(t, in, in.parameters("pay", algorithm, Software), algorithm, newRawKey(size)))
		in.wantOpens("pay", in.encrypt("pay", algorithm, "text"), "text")
	}
}

func TestImportAsVersion(t *testing.T) {
	for _, p := range []Protection{Software, HSMLevel} {
		t.Run(string(p), func(t *testing.T) {
			in := newInstallation(t)
			ctx := t.Context()
			in.namespace("pay")
			must[Key](t)(in.CreateKey(ctx, admin(), CreateKeyRequest{Namespace: "pay", Key: "signer", Algorithm: "ECDSA_P256_SHA256", Protection: p}))
			parameters := in.parameters("pay", "ECDSA_P256_SHA256", p)
			second, der2 := newECKey(t, elliptic.P256())
			third, der3 := newECKey(t, elliptic.P256())
			v := must[KeyVersion](t)(in.ImportVersion(ctx, admin(), ImportVersionRequest{Namespace: "pay", Key: "signer", Job: parameters.Job.String(), Wrapped: wrapFor(t, parameters, der2)}))
			if v.Version != 2 || v.Primary || v.Imported.IsZero() || v.State != Enabled {
				t.Errorf("%+v", v)
			}
			v = must[KeyVersion](t)(in.ImportVersion(ctx, admin(), ImportVersionRequest{Namespace: "pay", Key: "signer", Job: parameters.Job.String(), Wrapped: wrapFor(t, parameters, der3), MakePrimary: true}))
			if v.Version != 3 || !v.Primary {
				t.Errorf("%+v", v)
			}
			in.wantSignsAs(second, "signer", 2)
			in.wantSignsAs(third, "signer", 3)
			k := must[Key](t)(in.GetKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "signer"}))
			if k.PrimaryVersion != 3 || k.LatestVersion != 3 || !k.Imported.IsZero() {
				t.Errorf("%+v", k)
			}
			rotated := must[KeyVersion](t)(in.RotateKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "signer"}))
			if rotated.Version != 4 || !rotated.Imported.IsZero() {
				t.Errorf("%+v", rotated)
			}
		})
	}
}

func TestImportIsRefused(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.namespace("ops")
	in.key("pay", "taken", "")
	ec := in.parameters("pay", "ECDSA_P256_SHA256", Software)
	hsm := in.parameters("pay", "ECDSA_P256_SHA256", HSMLevel)
	aes := in.parameters("pay", "AES_256_GCM", Software)
	siv := in.parameters("pay", "AES_256_SIV", Software)
	other := in.parameters("ops", "ECDSA_P256_SHA256", Software)
	one := must[ImportParameters](t)(in.GetImportParameters(t.Context(), admin(), ImportParametersRequest{Namespace: "pay", Key: "one", Algorithm: "ECDSA_P256_SHA256"}))
	_, der := newECKey(t, elliptic.P256())
	_, p384 := newECKey(t, elliptic.P384())
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	edDER := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(ed))
	tampered := wrapFor(t, ec, der)
	tampered[len(tampered)-1] ^= 1
	swapped := wrapFor(t, ec, der)
	swapped[7] ^= 1
	objects, records := len(in.device.keyIDs()), in.countStore()
	for name, c := range map[string]struct {
		call   Call
		q      ImportKeyRequest
		code   Code
		expect string
	}{
		"another curve":         {admin(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: wrapFor(t, ec, p384)}, InvalidArgument, "P-384 instead of P-256"},
		"another type":          {admin(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: wrapFor(t, ec, edDER)}, InvalidArgument, "an Ed25519 key instead of"},
		"another size":          {admin(), ImportKeyRequest{Job: aes.Job.String(), Wrapped: wrapFor(t, aes, newRawKey(16))}, InvalidArgument, "16 bytes instead of the 32"},
		"a pair as raw key":     {admin(), ImportKeyRequest{Job: aes.Job.String(), Wrapped: wrapFor(t, aes, der)}, InvalidArgument, "instead of the 32"},
		"to the token as well":  {admin(), ImportKeyRequest{Job: hsm.Job.String(), Wrapped: wrapFor(t, hsm, p384)}, InvalidArgument, "P-384 instead of P-256"},
		"tampered material":     {admin(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: tampered}, InvalidArgument, "cannot be unwrapped"},
		"tampered key":          {admin(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: swapped}, InvalidArgument, "cannot be unwrapped"},
		"too short":             {admin(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: tampered[:100]}, InvalidArgument, "cannot be unwrapped"},
		"too long":              {admin(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: make([]byte, keywrap.MaxWrapped+1)}, InvalidArgument, "limit"},
		"nothing":               {admin(), ImportKeyRequest{Job: ec.Job.String()}, InvalidArgument, "wrapped_key is missing"},
		"no job":                {admin(), ImportKeyRequest{Wrapped: tampered}, InvalidArgument, "import_job"},
		"an unknown job":        {admin(), ImportKeyRequest{Job: strings.Repeat("ab", 16), Wrapped: tampered}, NotFound, "does not exist"},
		"another namespace's":   {admin(), ImportKeyRequest{Job: other.Job.String(), Wrapped: wrapFor(t, other, der)}, NotFound, "does not exist in namespace pay"},
		"another key's":         {admin(), ImportKeyRequest{Job: one.Job.String(), Wrapped: wrapFor(t, one, der)}, FailedPrecondition, "serves key one only"},
		"a name that is taken":  {admin(), ImportKeyRequest{Key: "taken", Job: ec.Job.String(), Wrapped: wrapFor(t, ec, der)}, AlreadyExists, "taken"},
		"no name":               {admin(), ImportKeyRequest{Key: "a/b", Job: ec.Job.String(), Wrapped: wrapFor(t, ec, der)}, InvalidArgument, "key"},
		"exportable on a token": {admin(), ImportKeyRequest{Job: hsm.Job.String(), Wrapped: wrapFor(t, hsm, der), Exportable: true}, InvalidArgument, "exportable"},
		"rotation of a deterministic key": {admin(), ImportKeyRequest{Job: siv.Job.String(), Wrapped: wrapFor(t, siv, newRawKey(64)), Rotation: Rotation{Period: time.Hour}},
			InvalidArgument, "rotation is not possible with AES_256_SIV"},
		"no right":         {appCall(), ImportKeyRequest{Job: ec.Job.String(), Wrapped: wrapFor(t, ec, der)}, PermissionDenied, "ImportKey"},
		"no right, no job": {appCall(), ImportKeyRequest{Job: strings.Repeat("ab", 16), Wrapped: tampered}, PermissionDenied, "ImportKey"},
	} {
		c.q.Namespace = "pay"
		if c.q.Key == "" {
			c.q.Key = "new"
		}
		t.Run(name, func(t *testing.T) {
			_, err := in.ImportKey(t.Context(), c.call, c.q)
			wantCode(t, err, c.code, c.expect)
		})
	}
	if got := len(in.device.keyIDs()); got != objects {
		t.Errorf("%d objects on the token instead of %d", got, objects)
	}
	if got := in.countStore(); got != records {
		t.Errorf("%d records instead of %d: something is half made", got, records)
	}
	// An operator may, and the job still serves.
	must[Key](t)(in.ImportKey(t.Context(), as(policy.User, "operator"), ImportKeyRequest{Namespace: "pay", Key: "new", Job: ec.Job.String(), Wrapped: wrapFor(t, ec, der)}))
}

// countStore counts the records that are no bookkeeping of the log.
func (in *testInstallation) countStore() (n int) {
	in.t.Helper()
	for _, prefix := range []string{prefixKey, prefixKeyID, prefixKeyName, prefixVersion, prefixObject, prefixOrphan, prefixImport, prefixImportEnd} {
		n += len(must[store.Page](in.t)(in.store.List(in.t.Context(), prefix, "", 0)).Records)
	}
	return n
}

func TestImportAsVersionIsRefused(t *testing.T) {
	in := newInstallation(t)
	ctx := t.Context()
	in.namespace("pay")
	in.key("pay", "signer", "ECDSA_P256_SHA256")
	_, p384 := newECKey(t, elliptic.P384())
	_, p256 := newECKey(t, elliptic.P256())
	wrong := in.parameters("pay", "ECDSA_P384_SHA384", Software)
	token := in.parameters("pay", "ECDSA_P256_SHA256", HSMLevel)
	right := in.parameters("pay", "ECDSA_P256_SHA256", Software)
	for name, c := range map[string]struct {
		q      ImportVersionRequest
		code   Code
		expect string
	}{
		"another algorithm":  {ImportVersionRequest{Job: wrong.Job.String(), Wrapped: wrapFor(t, wrong, p384)}, FailedPrecondition, "algorithm of key signer is ECDSA_P256_SHA256, not ECDSA_P384_SHA384"},
		"another protection": {ImportVersionRequest{Job: token.Job.String(), Wrapped: wrapFor(t, token, p256)}, FailedPrecondition, "protection_level of key signer is SOFTWARE, not HSM"},
		"another curve":      {ImportVersionRequest{Job: right.Job.String(), Wrapped: wrapFor(t, right, p384)}, InvalidArgument, "P-384"},
		"no such key":        {ImportVersionRequest{Key: "none", Job: right.Job.String(), Wrapped: wrapFor(t, right, p256)}, NotFound, "none"},
	} {
		c.q.Namespace = "pay"
		if c.q.Key == "" {
			c.q.Key = "signer"
		}
		t.Run(name, func(t *testing.T) {
			_, err := in.ImportVersion(ctx, admin(), c.q)
			wantCode(t, err, c.code, c.expect)
		})
	}
	for name, q := range map[string]ImportParametersRequest{
		"algorithm":        {Namespace: "pay", Key: "signer", Algorithm: "ECDSA_P384_SHA384"},
		"protection_level": {Namespace: "pay", Key: "signer", Protection: HSMLevel},
	} {
		_, err := in.GetImportParameters(ctx, admin(), q)
		wantCode(t, err, FailedPrecondition, name+" of key signer is")
	}
	if k := must[Key](t)(in.GetKey(ctx, admin(), KeyRef{Namespace: "pay", Key: "signer"})); k.LatestVersion != 1 {
		t.Errorf("%+v", k)
	}
	must[Key](t)(in.DeleteKey(ctx, admin(), DestroyRequest{Namespace: "pay", Key: "signer"}))
	_, err := in.ImportVersion(ctx, admin(), ImportVersionRequest{Namespace: "pay", Key: "signer", Job: right.Job.String(), Wrapped: wrapFor(t, right, p256)})
	wantCode(t, err, NotFound)
}

func TestImportIsIdempotent(t *testing.T) {
	in := newInstallation(t)
	ctx := t.Context()
	in.namespace("pay")
	ask := ImportParametersRequest{Namespace: "pay", Algorithm: "ECDSA_P256_SHA256", Protection: HSMLevel, Idempotency: "p"}
	p := must[ImportParameters](t)(in.GetImportParameters(ctx, admin(), ask))
	if again := must[ImportParameters](t)(in.GetImportParameters(ctx, admin(), ask)); again != p {
		t.Errorf("%+v, then %+v", p, again)
	}
	_, der := newECKey(t, elliptic.P256())
	q := ImportKeyRequest{Namespace: "pay", Key: "signer", Job: p.Job.String(), Wrapped: wrapFor(t, p, der), Idempotency: "k"}
	k := must[Key](t)(in.ImportKey(ctx, admin(), q))
	if again := must[Key](t)(in.ImportKey(ctx, admin(), q)); again.ID != k.ID {
		t.Errorf("%s, then %s", k.ID, again.ID)
	}
	v := ImportVersionRequest{Namespace: "pay", Key: "signer", Job: p.Job.String(), Wrapped: wrapFor(t, p, der), Idempotency: "v"}
	for range 2 {
		if made := must[KeyVersion](t)(in.ImportVersion(ctx, admin(), v)); made.Version != 2 {
			t.Errorf("%+v", made)
		}
	}
	q.Key = "another"
	_, err := in.ImportKey(ctx, admin(), q)
	wantCode(t, err, AlreadyExists, "idempotency_key")
	if n := len(in.device.keyIDs()); n != 3 {
		t.Errorf("%d keys on the token: the wrapping key and two versions are 3", n)
	}
}

func TestImportIsInTheLog(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	raw := newRawKey(32)
	p := in.parameters("pay", "HMAC_SHA256", Software)
	k := must[Key](t)(importKey(t, in, p, "mac", raw))
	entries := in.entries(audit.Filter{Action: string(policy.ImportKey)})
	if len(entries) != 4 {
		t.Fatalf("%d entries, want an intent and an outcome of each", len(entries))
	}
	last := entries[3]
	if last.Key != "mac" || last.Outcome != string(OK) || last.Details["import_job"] != p.Job.String() || last.Details["origin"] != "IMPORTED" || last.Details["key_id"] != k.ID.String() {
		t.Errorf("%+v", last)
	}
	if entries[1].Details["import_job"] != p.Job.String() || entries[1].Details["method"] != p.Method {
		t.Errorf("%+v", entries[1])
	}
	in.close()
	in.wantNowhere(raw)
	if found := in.verifyStore(); len(found.Differences) != 0 {
		t.Errorf("%+v", found.Differences)
	}
	in.open()
}

// While the device is away nothing is half made, and it works when it is back.
func TestImportWhileTheDeviceIsAway(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	p := in.parameters("pay", "HMAC_SHA256", Software)
	before := in.countStore()
	in.device.setAway(true)
	_, err := importKey(t, in, p, "mac", newRawKey(32))
	wantCode(t, err, Unavailable)
	_, err = in.GetImportParameters(t.Context(), admin(), ImportParametersRequest{Namespace: "pay", Algorithm: "ED25519"})
	wantCode(t, err, Unavailable)
	in.device.setAway(false)
	if err := in.removeOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := in.countStore(); after != before {
		t.Errorf("%d records instead of %d", after, before)
	}
	must[Key](t)(importKey(t, in, p, "mac", newRawKey(32)))
}

// A reply that was lost leaves no key on the token that nobody owns.
func TestImportLeavesNoOrphan(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	p := in.parameters("pay", "ECDSA_P256_SHA256", HSMLevel)
	_, der := newECKey(t, elliptic.P256())
	owned := in.device.keyIDs()
	in.store.FailPrefix(prefixKeyName, storetest.Failed)
	_, err := importKey(t, in, p, "signer", der)
	wantCode(t, err, Unavailable)
	in.store.Heal()
	if err := in.removeOrphans(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := in.device.keyIDs(); !slices.Equal(got, owned) {
		t.Errorf("on the token are %v, owned are %v", got, owned)
	}
	in.device.setFault(replyLost)
	_, err = in.GetImportParameters(t.Context(), admin(), ImportParametersRequest{Namespace: "pay", Algorithm: "ED25519"})
	wantCode(t, err, Unavailable)
	in.advance(orphanGrace + time.Minute)
	for range 2 {
		if err := in.removeOrphans(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := in.device.keyIDs(); !slices.Equal(got, owned) {
		t.Errorf("on the token are %v, owned are %v", got, owned)
	}
}
