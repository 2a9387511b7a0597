package kms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// hsmKey creates a key of protection level HSM.
func (in *testInstallation) hsmKey(name, algorithm string, r Rotation) Key {
	in.t.Helper()
	return must[Key](in.t)(in.CreateKey(context.Background(), admin(), CreateKeyRequest{Namespace: "pay", Key: name, Algorithm: algorithm,
		Protection: HSMLevel, Rotation: r}))
}

// settle does all background work that needs the token, until nothing is left.
func (in *testInstallation) settle() {
	in.t.Helper()
	in.advance(orphanGrace + time.Second)
	for range 2 { // what was just found waits for the grace
		if err := in.removeOrphans(context.Background()); err != nil {
			in.t.Fatal(err)
		}
		in.advance(orphanGrace + time.Second)
	}
}

// wantObjects checks that the token has exactly the keys of the versions that are
// there, that the store knows of no others, and that the comparison finds the same.
func (in *testInstallation) wantObjects() {
	in.t.Helper()
	in.settle()
	var owned []ObjectID
	for _, prefix := range []string{prefixObject, prefixImport} {
		for id := range must[map[ObjectID]string](in.t)(in.objectsBelow(context.Background(), prefix)) {
			owned = append(owned, id)
		}
	}
	slices.SortFunc(owned, func(a, b ObjectID) int { return bytes.Compare(a[:], b[:]) })
	if there := in.device.keyIDs(); !slices.Equal(there, owned) {
		in.t.Errorf("the token has the keys %v, the versions own %v", there, owned)
	}
	if left := in.list(prefixOrphan); len(left) > 0 {
		in.t.Errorf("%d keys without a version are remembered", len(left))
	}
	if err := in.checkObjects(context.Background()); err != nil {
		in.t.Fatal(err)
	}
	if c := in.Health(context.Background()).Objects; c.Held != int64(len(owned)) || c.Orphans+c.Unknown+c.Missing != 0 || c.Time.IsZero() {
		in.t.Errorf("the comparison found %+v", c)
	}
}

// Keys on the token do what the same keys in memory do, through a restart.
func TestHSMKeyEveryAlgorithm(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for _, name := range in.HSMAlgorithms() {
		k := in.hsmKey(name, name, Rotation{})
		if k.Protection != HSMLevel || k.Algorithm != name {
			t.Errorf("%s: created %+v", name, k)
		}
	}
	if got := len(in.device.keyIDs()); got != len(softAlgorithms) {
		t.Fatalf("%d keys are on the token", got)
	}
	for _, restart := range []bool{false, true} {
		if restart {
			in.close()
			in.open()
			if in.device.finds != 0 {
				t.Errorf("opening asked the token for %d keys", in.device.finds)
			}
		}
		in.useHSMKeys()
		if in.device.finds != len(softAlgorithms) {
			t.Errorf("restart %v: the token was asked %d times for %d keys", restart, in.device.finds, len(softAlgorithms))
		}
		in.device.finds = 0
	}
	in.wantObjects()
}

func (in *testInstallation) useHSMKeys() {
	t, ctx := in.t, context.Background()
	t.Helper()
	for name, b := range bindings {
		sealed := must[EncryptResponse](t)(in.Encrypt(ctx, admin(), &EncryptRequest{"pay", "AES_256_GCM", []byte("secret"), b}))
		for _, key := range []string{"", "AES_256_GCM"} {
			opened, err := in.Decrypt(ctx, admin(), &DecryptRequest{"pay", key, sealed.Ciphertext, b})
			if err != nil || string(opened.Plaintext) != "secret" {
				t.Errorf("%s: Decrypt = %q, %v", name, opened.Plaintext, err)
			}
		}
		sealed.Ciphertext[len(sealed.Ciphertext)-1] ^= 1
		_, err := in.Decrypt(ctx, admin(), &DecryptRequest{"pay", "", sealed.Ciphertext, b})
		wantCode(t, err, InvalidArgument, "decryption failed")
	}
	data := must[GenerateDataKeyResponse](t)(in.GenerateDataKey(ctx, admin(), &GenerateDataKeyRequest{Namespace: "pay", Key: "AES_128_GCM"}))
	in.wantOpens("pay", data.Ciphertext, string(data.Plaintext))
	for _, name := range []string{"ECDSA_P256_SHA256", "ED25519"} {
		for format := keyring.DER; format <= keyring.JWS; format++ {
			signed := must[SignResponse](t)(in.Sign(ctx, admin(), &SignRequest{Namespace: "pay", Key: name, Message: []byte("m"), Format: format}))
			q := &VerifyRequest{Namespace: "pay", Key: name, Message: []byte("m"), Signature: signed.Signature, Format: format}
			if got, err := in.Verify(ctx, admin(), q); err != nil || !got.Valid {
				t.Errorf("%s: Verify = %v, %v", name, got.Valid, err)
			}
		}
	}
	mac := must[MACResponse](t)(in.GenerateMAC(ctx, admin(), &MACRequest{Namespace: "pay", Key: "HMAC_SHA256", Message: []byte("m")}))
	for message, want := range map[string]bool{"m": true, "n": false} {
		got, err := in.VerifyMAC(ctx, admin(), &VerifyMACRequest{Namespace: "pay", Key: "HMAC_SHA256", Message: []byte(message), MAC: mac.MAC})
		if err != nil || got.Valid != want {
			t.Errorf("VerifyMAC of %s = %v, %v", message, got.Valid, err)
		}
	}
	in.useHSMPairs()
}

func (in *testInstallation) useHSMPairs() {
	t, ctx := in.t, context.Background()
	t.Helper()
	public := must[PublicKeyResponse](t)(in.PublicKey(ctx, admin(), &PublicKeyRequest{Namespace: "pay", Key: "RSA_OAEP_2048_SHA256"}))
	block, _ := pem.Decode([]byte(public.PEM))
	key := must[any](t)(x509.ParsePKIXPublicKey(block.Bytes)).(*rsa.PublicKey)
	sealed := must[[]byte](t)(rsa.EncryptOAEP(sha256.New(), rand.Reader, key, []byte("secret"), []byte("label")))
	opened, err := in.AsymmetricDecrypt(ctx, admin(), &AsymmetricDecryptRequest{Namespace: "pay", Key: "RSA_OAEP_2048_SHA256", Ciphertext: sealed, Label: []byte("label")})
	if err != nil || string(opened.Plaintext) != "secret" {
		t.Errorf("AsymmetricDecrypt = %q, %v", opened.Plaintext, err)
	}
	_, err = in.AsymmetricDecrypt(ctx, admin(), &AsymmetricDecryptRequest{Namespace: "pay", Key: "RSA_OAEP_2048_SHA256", Ciphertext: sealed, Label: []byte("other")})
	wantCode(t, err, InvalidArgument, "decryption failed")
	peer := must[PublicKeyResponse](t)(in.PublicKey(ctx, admin(), &PublicKeyRequest{Namespace: "pay", Key: "ECDH_P256"}))
	secret := must[SharedSecretResponse](t)(in.SharedSecret(ctx, admin(), &SharedSecretRequest{Namespace: "pay", Key: "ECDH_P256", PeerPublicKey: []byte(peer.PEM)}))
	if len(secret.SharedSecret) != 32 {
		t.Errorf("the shared secret has %d bytes", len(secret.SharedSecret))
	}
}

// What the token cannot do is said with what it can, and nothing is half-made.
func TestHSMKeyRefusals(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	create := func(q CreateKeyRequest) error {
		q.Namespace, q.Key, q.Protection = "pay", "bad", HSMLevel
		return second(in.CreateKey(t.Context(), admin(), q))
	}
	wantCode(t, create(CreateKeyRequest{Algorithm: "XAES_256_GCM"}), InvalidArgument, "algorithm", "AES_256_GCM, AES_128_GCM")
	wantCode(t, create(CreateKeyRequest{Algorithm: "ECDSA_P384_SHA384"}), InvalidArgument, "ECDSA_P256_SHA256, ED25519")
	wantCode(t, create(CreateKeyRequest{Algorithm: "AES_256_GCM", Rotation: Rotation{MaxUses: 1}}), InvalidArgument, "max_uses")
	wantCode(t, second(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "bad", Protection: "PAPER"})), InvalidArgument, "protection_level", "SOFTWARE or HSM")
	in.key("pay", "taken", "")
	wantCode(t, second(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "taken", Protection: HSMLevel})), AlreadyExists, "taken")
	if in.device.made != 0 {
		t.Errorf("%d keys were made for nothing", in.device.made)
	}
	for purpose, want := range map[keyring.Purpose]string{"": "AES_256_GCM", keyring.PurposeSignVerify: "ECDSA_P256_SHA256", keyring.PurposeAsymmetricDecrypt: "RSA_OAEP_2048_SHA256"} {
		k := must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: want, Purpose: purpose, Protection: HSMLevel}))
		if k.Algorithm != want {
			t.Errorf("for %s without an algorithm: %s, want %s", purpose, k.Algorithm, want)
		}
	}
	in.wantObjects()
}

// Policies see the protection level, of a key that is yet to be created too.
func TestPolicySeesProtection(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	must[Policy](t)(in.PutPolicy(t.Context(), admin(), PutPolicyRequest{Name: "careful", Text: `
		permit (principal == User::"careful", action, resource in Namespace::"pay") when { resource has protection && resource.protection == "HSM" };`}))
	careful := as(policy.User, "careful")
	for level, code := range map[Protection]Code{Software: PermissionDenied, HSMLevel: OK} {
		name := "key-" + string(level)
		wantCode(t, second(in.CreateKey(t.Context(), careful, CreateKeyRequest{Namespace: "pay", Key: name, Algorithm: "AES_256_GCM", Protection: level})), code)
		if level == Software {
			in.key("pay", name, "AES_256_GCM")
		}
		wantCode(t, second(in.Encrypt(t.Context(), careful, &EncryptRequest{Namespace: "pay", Key: name, Plaintext: []byte("x")})), code)
	}
}

func TestHSMKeyRotations(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	day := 24 * time.Hour
	in.hsmKey("hand", "AES_256_GCM", Rotation{})
	in.hsmKey("period", "AES_256_GCM", Rotation{Period: day})
	in.hsmKey("uses", "AES_256_GCM", Rotation{MaxUses: 100})
	sealed := map[string][]byte{}
	for _, key := range []string{"hand", "period", "uses"} {
		sealed[key] = in.encrypt("pay", key, key)
	}
	if v := must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "hand"})); v.Version != 2 || !v.Primary || v.Protection != HSMLevel {
		t.Errorf("rotated to %+v", v)
	}
	in.advance(day + time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "period"})); k.PrimaryVersion != 1 {
		t.Error("a rotation on the token held up the other jobs")
	}
	for range 2 { // the second round must find nothing to do
		if err := in.runTokenDue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	uses := map[uint32]int{1: 1}
	for range 349 {
		uses[must[EncryptResponse](t)(in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "uses", Plaintext: []byte("x")})).Version]++
	}
	if !maps.Equal(uses, map[uint32]int{1: 100, 2: 100, 3: 100, 4: 50}) {
		t.Errorf("uses by version: %v", uses)
	}
	for key, latest := range map[string]uint32{"hand": 2, "period": 2, "uses": 4} {
		k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key}))
		if k.PrimaryVersion != latest || k.LatestVersion != latest {
			t.Errorf("key %s: primary %d, latest %d, want %d", key, k.PrimaryVersion, k.LatestVersion, latest)
		}
		in.wantOpens("pay", sealed[key], key)
	}
	if in.device.made != 2+2+4 {
		t.Errorf("%d keys were made on the token for 8 versions", in.device.made)
	}
	in.wantObjects()
}

// Of many callers that find a key's uses spent, one has the token make a key.
func TestHSMRotationByUseMakesOneKey(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.hsmKey("uses", "AES_256_GCM", Rotation{MaxUses: 100})
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 50 {
				if _, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "uses", Plaintext: []byte("x")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "uses"}))
	if in.device.made != int(k.LatestVersion) || k.LatestVersion < 8 {
		t.Errorf("%d keys were made on the token for %d versions", in.device.made, k.LatestVersion)
	}
	in.wantObjects()
}

// The random nonces of AES-GCM run out on the token as they do in memory.
func TestHSMNonceLimit(t *testing.T) {
	in := newInstallation(t)
	in.close()
	in.config.NonceLimit = 64
	in.open()
	in.namespace("pay")
	in.hsmKey("gcm", "AES_256_GCM", Rotation{})
	uses := map[uint32]int{}
	for range 130 {
		sealed, err := in.Encrypt(t.Context(), admin(), &EncryptRequest{Namespace: "pay", Key: "gcm", Plaintext: []byte("x")})
		if err != nil {
			wantCode(t, err, ResourceExhausted, "rotate")
			must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "gcm"}))
			continue
		}
		uses[sealed.Version]++
	}
	for version, n := range uses {
		if n > 64 {
			t.Errorf("version %d encrypted %d messages", version, n)
		}
	}
	if len(uses) < 2 {
		t.Errorf("uses by version: %v", uses)
	}
}

// A destroyed version's key is removed from the token; until it is, the version
// says so, and nothing is confirmed to be erased.
func TestHSMVersionDestroyed(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	k := in.hsmKey("card", "AES_256_GCM", Rotation{})
	sealed := in.encrypt("pay", "card", "secret")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	first := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if first.Token == nil || first.Token.Origin != (Origin{true, true, true}) || first.Token.Problem != "" || first.Protection != HSMLevel {
		t.Fatalf("described as %+v, %+v", first, first.Token)
	}
	must[KeyVersion](t)(in.DestroyVersion(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Version: 1}))
	in.wantDecrypt(sealed, FailedPrecondition, "DESTROY_SCHEDULED")
	must[KeyVersion](t)(in.RestoreVersion(t.Context(), admin(), ref("card", 1)))
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("card", 1)))
	in.wantOpens("pay", sealed, "secret")

	in.device.setAway(true)
	in.destroy("card", 1)
	gone := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if gone.Token == nil || !gone.Token.Removing || gone.Token.ID != first.Token.ID {
		t.Errorf("the token is away; described as %+v", gone.Token)
	}
	in.wantDecrypt(sealed, FailedPrecondition, "DESTROYED")
	if err := in.removeOrphans(t.Context()); CodeOf(err) != Unavailable || len(in.device.keyIDs()) != 2 {
		t.Errorf("the token is away: %v, it has %d keys", err, len(in.device.keyIDs()))
	}
	if n := in.Health(t.Context()).Objects.Orphans; n != 1 {
		t.Errorf("%d keys wait to be removed", n)
	}
	in.device.setAway(false)
	in.beginRekey("pay")
	in.endRekeying("pay")
	wantCode(t, in.confirm(1), FailedPrecondition, "token still has 1 keys")
	in.wantObjects()
	gone = must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", 1)))
	if gone.Token != nil || !gone.ErasedTime.IsZero() || len(in.device.keyIDs()) != 1 {
		t.Errorf("removed, described as %+v, %+v", gone, gone.Token)
	}
	if err := in.confirm(1); err != nil {
		t.Fatal(err)
	}
	in.wantErased("card", 1, true, "confirmed")
	removed := in.entries(audit.Filter{Action: eventRemoveObject})
	if len(removed) != 1 || removed[0].KeyID != uint64(k.ID) || removed[0].Version != 1 || removed[0].Details["object"] != first.Token.ID.String() {
		t.Errorf("the log says of the removal: %+v", removed)
	}
	in.wantOpens("pay", in.encrypt("pay", "card", "more"), "more")
}

func (in *testInstallation) wantDecrypt(ciphertext []byte, code Code, parts ...string) {
	in.t.Helper()
	wantCode(in.t, second(in.Decrypt(context.Background(), admin(), &DecryptRequest{Namespace: "pay", Ciphertext: ciphertext})), code, parts...)
}

// A deleted key, however many versions it has, and a deleted namespace take their
// keys on the token with them.
func TestHSMKeyAndNamespaceDeleted(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	for _, key := range []string{"card", "other"} {
		in.hsmKey(key, "HMAC_SHA256", Rotation{})
		for range 2*deleteOnToken + 3 {
			must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: key}))
		}
	}
	in.namespace("kept")
	kept := must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "kept", Key: "k", Protection: HSMLevel}))
	delay := time.Duration(0)
	deleted := must[Key](t)(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card", Delay: &delay}))
	in.advance(time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: idPrefix + deleted.ID.String()})); k.State != KeyDeleted {
		t.Errorf("the key is %s", k.State)
	}
	in.wantObjects()
	if got := len(in.device.keyIDs()); got != 2*deleteOnToken+4+1 {
		t.Errorf("%d keys are on the token", got)
	}

	in.deleteNamespace("pay", 0)
	in.advance(time.Second)
	in.device.setAway(true)
	if err := in.runDue(t.Context()); err != nil || !in.tendAll() {
		t.Fatal(err)
	}
	if n := in.describe("pay"); n.State != NamespaceDeleted {
		t.Errorf("with its keys still on the token the namespace is %s", n.State)
	}
	in.device.setAway(false)
	in.settle()
	if !in.tendAll() {
		t.Error("the namespace was not removed")
	}
	_, err := in.GetNamespace(t.Context(), admin(), "pay")
	wantCode(t, err, NotFound)
	in.wantObjects()
	if got := len(in.device.keyIDs()); got != 1 {
		t.Errorf("%d keys are on the token", got)
	}
	in.wantOpens("kept", in.encrypt("kept", kept.Name, "x"), "x")
}

// Rekeying, which seals material anew, leaves keys on the token as they are; the
// store is what the log says.
func TestHSMKeyRekeyedAndVerified(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	in.hsmKey("card", "AES_256_GCM", Rotation{})
	sealed := in.encrypt("pay", "card", "secret")
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	must[KeyVersion](t)(in.RotateKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"}))
	in.destroy("card", 2)
	in.beginRekey("pay")
	in.endRekeying("pay")
	in.wantOpens("pay", sealed, "secret")
	in.wantObjects()
	in.wantOnly("pay", 2)
	in.close()
	if found := in.verifyStore(); len(found.Differences) > 0 {
		t.Errorf("the store is not what the log says: %+v", found.Differences)
	}
	in.open()
	in.wantOpens("pay", sealed, "secret")
}

// Intent, token, store, outcome: the log names the object before it is made.
func TestHSMMutationsAreBracketed(t *testing.T) {
	in := newInstallation(t)
	in.namespace("pay")
	call := admin()
	k := must[Key](t)(in.CreateKey(t.Context(), call, CreateKeyRequest{Namespace: "pay", Key: "card", Protection: HSMLevel, Idempotency: "once"}))
	again := must[Key](t)(in.CreateKey(t.Context(), admin(), CreateKeyRequest{Namespace: "pay", Key: "card", Protection: HSMLevel, Idempotency: "once"}))
	if again.ID != k.ID || in.device.made != 1 {
		t.Errorf("the same request made key %s and %s, %d on the token", k.ID, again.ID, in.device.made)
	}
	entries := in.entries(audit.Filter{RequestID: call.RequestID})
	id := fmt.Sprint(in.device.keyIDs()[0])
	if len(entries) != 2 || entries[0].Phase != audit.PhaseIntent || entries[1].Intent != entries[0].Sequence || entries[1].Outcome != "OK" ||
		entries[0].Details["object"] != id || entries[0].Details["key_id"] != k.ID.String() || entries[1].Details["object"] != id {
		t.Fatalf("entries = %+v", entries)
	}
	in.wantBracketed()
}
