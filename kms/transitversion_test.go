package kms

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring/transit"
)

func (in *testInstallation) configure(q ConfigureTransitRequest) (Key, error) {
	q.Namespace = "pay"
	if q.Key == "" {
		q.Key = "card"
	}
	return in.ConfigureTransitKey(in.t.Context(), admin(), q)
}

// minVersions sets both; 0 leaves one as it is.
func (in *testInstallation) minVersions(decryption, encryption uint32) {
	in.t.Helper()
	var q ConfigureTransitRequest
	if decryption > 0 {
		q.MinDecryptionVersion = &decryption
	}
	if encryption > 0 {
		q.MinEncryptionVersion = &encryption
	}
	must[Key](in.t)(in.configure(q))
}

func (in *testInstallation) trim(available uint32) (Key, error) {
	return in.TrimTransitKey(in.t.Context(), admin(), TrimTransitRequest{Namespace: "pay", Key: "card", MinAvailableVersion: available})
}

// cardWithVersions makes key card with n versions and returns a ciphertext of each.
func (in *testInstallation) cardWithVersions(n uint32) (sealed map[uint32][]byte) {
	in.t.Helper()
	in.namespace("pay")
	in.transitKey("card", TransitOptions{})
	sealed = map[uint32][]byte{}
	for v := uint32(1); v <= n; v++ {
		sealed[v] = in.transitSeal("card", 0, "x", transit.Params{})
		if v < n {
			in.rotate("card")
		}
	}
	return sealed
}

func (in *testInstallation) seal(version uint32) ([]byte, error) {
	got, err := in.TransitEncrypt(in.t.Context(), admin(), &TransitEncryptRequest{Namespace: "pay", Key: "card", Version: version, Plaintext: []byte("x")})
	return got.Ciphertext, err
}

func TestTransitVersionBounds(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	sealed := in.cardWithVersions(4)
	for v, ciphertext := range sealed {
		if !bytes.HasPrefix(ciphertext, fmt.Appendf(nil, "vault:v%d:", v)) {
			t.Errorf("version %d made %s", v, ciphertext)
		}
		in.wantTransitOpens("card", ciphertext, "x", transit.Params{})
		in.wantTransitOpens("card", must[[]byte](t)(in.seal(v)), "x", transit.Params{})
	}
	in.minVersions(2, 3)
	for restart := range 2 {
		for v := uint32(1); v <= 4; v++ {
			_, err := in.seal(v)
			if v < 3 {
				wantCode(t, err, InvalidArgument, "key_version is", "use 3 or newer")
			} else {
				wantCode(t, err, OK)
			}
			_, err = in.transitOpen("card", sealed[v], transit.Params{})
			if v < 2 {
				wantCode(t, err, FailedPrecondition, "ciphertext is of version 1", "min_decryption_version")
			} else {
				wantCode(t, err, OK)
			}
		}
		if restart == 0 {
			in.close()
			in.open()
		}
	}
	if k := must[Key](t)(in.configure(ConfigureTransitRequest{MinDecryptionVersion: new(uint32)})); k.Transit.MinDecryptionVersion != 1 {
		t.Errorf("configured %+v", k.Transit)
	}
	in.wantTransitOpens("card", sealed[1], "x", transit.Params{})
	for name, q := range map[string]ConfigureTransitRequest{
		"min_decryption_version is 5, the latest version is 4":         {MinDecryptionVersion: new(uint32(5))},
		"min_encryption_version is 5, the latest version is 4":         {MinEncryptionVersion: new(uint32(5))},
		"min_encryption_version is 3, below min_decryption_version, 4": {MinDecryptionVersion: new(uint32(4))},
		"auto_rotate_period is 1ms":                                    {AutoRotatePeriod: new(time.Millisecond)},
	} {
		_, err := in.configure(q)
		wantCode(t, err, InvalidArgument, name)
	}
}

func TestTransitDisabledVersion(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	sealed := in.cardWithVersions(2)
	must[KeyVersion](t)(in.DisableVersion(t.Context(), admin(), ref("card", 1)))
	_, err := in.transitOpen("card", sealed[1], transit.Params{})
	wantCode(t, err, FailedPrecondition, "DISABLED")
	_, err = in.seal(1)
	wantCode(t, err, FailedPrecondition, "DISABLED")
	if info := must[TransitKeyInfo](t)(in.ReadTransitKey(t.Context(), admin(), ReadTransitRequest{Namespace: "pay", Key: "card"})); len(info.Versions) != 1 || info.Versions[0].Version != 2 {
		t.Errorf("read %+v", info.Versions)
	}
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("card", 1)))
	in.wantTransitOpens("card", sealed[1], "x", transit.Params{})
	_, err = in.DisableVersion(t.Context(), admin(), ref("card", 2))
	wantCode(t, err, FailedPrecondition, "primary")
}

func TestTrim(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	sealed := in.cardWithVersions(4)
	_, err := in.trim(2)
	wantCode(t, err, InvalidArgument, "needs min_encryption_version")
	in.minVersions(3, 4)
	for available, part := range map[uint32]string{0: "missing or 0", 4: "above min_decryption_version, 3", 5: "above min_encryption_version, 4"} {
		_, err := in.trim(available)
		wantCode(t, err, InvalidArgument, part)
	}
	for range 2 { // the second time nothing is left to do
		if k := must[Key](t)(in.trim(3)); k.Transit.MinAvailableVersion != 3 {
			t.Errorf("trimmed %+v", k.Transit)
		}
	}
	_, err = in.trim(2)
	wantCode(t, err, InvalidArgument, "can only grow")
	_, err = in.configure(ConfigureTransitRequest{MinDecryptionVersion: new(uint32(2))})
	wantCode(t, err, InvalidArgument, "below min_available_version, 3")
	_, err = in.configure(ConfigureTransitRequest{MinEncryptionVersion: new(uint32)})
	wantCode(t, err, InvalidArgument, "below min_available_version, 3")
	for v := uint32(1); v <= 2; v++ {
		_, err := in.transitOpen("card", sealed[v], transit.Params{})
		wantCode(t, err, FailedPrecondition, "DESTROY_SCHEDULED")
		if got := must[KeyVersion](t)(in.GetVersion(t.Context(), admin(), ref("card", v))); got.State != DestroyScheduled || got.DestroyTime.Sub(in.now()) < DefaultDestroyDelay-time.Minute {
			t.Errorf("version %d: %+v", v, got)
		}
	}
	if e := in.last("ScheduledUse"); e.Key != "card" {
		t.Errorf("a use of a trimmed version raised no alarm: %+v", e)
	}

	must[KeyVersion](t)(in.RestoreVersion(t.Context(), admin(), ref("card", 2))) // a trim by mistake
	must[KeyVersion](t)(in.EnableVersion(t.Context(), admin(), ref("card", 2)))
	in.minVersions(2, 0)
	in.wantTransitOpens("card", sealed[2], "x", transit.Params{})
	_, err = in.transitOpen("card", sealed[1], transit.Params{})
	wantCode(t, err, FailedPrecondition, "DESTROY_SCHEDULED")

	in.advance(DefaultDestroyDelay + time.Hour)
	in.clock.Add(0)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = in.transitOpen("card", sealed[1], transit.Params{})
	wantCode(t, err, FailedPrecondition, "DESTROYED")
	in.wantTransitOpens("card", sealed[2], "x", transit.Params{})
	in.wantBracketed()
}

// The versions that do not fit into a trim's transaction are refused at once too.
func TestTrimOfManyVersions(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	const n = 2*trimPage + 20
	sealed := in.cardWithVersions(n)
	in.minVersions(n, n)
	must[Key](t)(in.trim(n))
	left := func() (enabled int) {
		versions, _, err := in.ListVersions(t.Context(), admin(), ListVersionsRequest{Namespace: "pay", Key: "card", PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions {
			if v.State == Enabled {
				enabled++
			}
		}
		return enabled
	}
	if got := left(); got != n-trimPage {
		t.Errorf("%d versions are left after a page", got)
	}
	_, err := in.transitOpen("card", sealed[n-1], transit.Params{})
	wantCode(t, err, FailedPrecondition, "DESTROY_SCHEDULED")
	in.close() // a crash between pages loses nothing
	in.open()
	in.advance(2 * time.Second)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != 1 {
		t.Errorf("%d versions are left", got)
	}
	in.wantTransitOpens("card", sealed[n], "x", transit.Params{})
	in.wantBracketed()
}

func TestTransitDeletionMustBeAllowed(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	sealed := in.cardWithVersions(2)
	remove := func() error {
		return second(in.DeleteKey(t.Context(), admin(), DestroyRequest{Namespace: "pay", Key: "card"}))
	}
	err := remove()
	wantCode(t, err, FailedPrecondition, "set deletion_allowed")
	if reasonOf(err) != "DELETION_NOT_ALLOWED" {
		t.Errorf("reason %s", reasonOf(err))
	}
	k := must[Key](t)(in.configure(ConfigureTransitRequest{DeletionAllowed: new(true)}))
	wantCode(t, remove(), OK)
	_, err = in.transitOpen("id:"+k.ID.String(), sealed[1], transit.Params{})
	wantCode(t, err, FailedPrecondition, "can be restored")
	must[Key](t)(in.RestoreKey(t.Context(), admin(), RestoreKeyRequest{Namespace: "pay", ID: k.ID}))
	in.wantTransitOpens("card", sealed[1], "x", transit.Params{})
}

func TestTransitAutoRotation(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	sealed := in.cardWithVersions(1)
	in.freeze()
	k := must[Key](t)(in.configure(ConfigureTransitRequest{AutoRotatePeriod: new(24 * time.Hour)}))
	if k.Rotation.Period != 24*time.Hour || k.NextRotation.IsZero() {
		t.Errorf("configured %+v", k)
	}
	in.advance(24*time.Hour + time.Minute)
	if err := in.runDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := in.transitSeal("card", 0, "x", transit.Params{}); !bytes.HasPrefix(again, []byte("vault:v2:")) {
		t.Errorf("after the period it makes %s", again)
	}
	in.wantTransitOpens("card", sealed[1], "x", transit.Params{})
	if k := must[Key](t)(in.configure(ConfigureTransitRequest{AutoRotatePeriod: new(time.Duration(0))})); !k.NextRotation.IsZero() {
		t.Errorf("it still rotates: %+v", k)
	}
}

// Random nonces are counted for every version: the latest is rotated, an older one
// refused.
func TestTransitNoncesAreCounted(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.close()
	in.config.NonceLimit = 100
	in.open()
	in.cardWithVersions(2)
	in.transitKey("same", TransitOptions{Derived: true, Convergent: true})
	spent := 0
	for ; spent <= 100; spent++ {
		if _, err := in.seal(1); err != nil {
			wantCode(t, err, ResourceExhausted, "rotate the key")
			break
		}
	}
	if spent != 100-1 { // one was used to make it
		t.Errorf("version 1 encrypted %d times more", spent)
	}
	for range 101 {
		in.transitSeal("same", 0, "x", transit.Params{Context: []byte("a")}) // of no random nonces
	}
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})); k.LatestVersion != 2 {
		t.Errorf("uses of an old version rotated the key: %+v", k)
	}
	for range 100 {
		in.transitSeal("card", 0, "x", transit.Params{})
		time.Sleep(time.Millisecond) // the rotation, half way, is made beside
	}
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "card"})); k.LatestVersion < 3 {
		t.Errorf("the key was not rotated: %+v", k)
	}
	if k := must[Key](t)(in.GetKey(t.Context(), admin(), KeyRef{Namespace: "pay", Key: "same"})); k.LatestVersion != 1 {
		t.Errorf("the convergent key was rotated: %+v", k)
	}
}
