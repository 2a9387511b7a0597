package hsm_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// ownIV makes the rig's module one that makes the IVs of AES-GCM itself.
func ownIV(m *hsmtest.Module, _ *hsm.Config) { m.OwnIV(true) }

// On a token that makes the IVs a root key and AES keys do all that they do elsewhere,
// through a restart.
func TestIVOfTheHSM(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, ownIV)
		r.probes.end()
		r.unclosed = true // twice
		if r.root.CheckValue[0] != byte(hsm.MechanismAESGCMHSMIV) || len(r.root.CheckValue) != 61 {
			t.Errorf("check value %x", r.root.CheckValue)
		}
		info, err := hsm.ParseBlob(r.blob)
		if err != nil || info.Mechanism != hsm.MechanismAESGCMHSMIV || bytes.Equal(info.IV, make([]byte, 12)) {
			t.Errorf("blob %+v, %v", info, err)
		}
		key, material := r.residentKey("AES_256_GCM"), random(32)
		imported, err := r.keysOf().ImportKey(t.Context(), newID(), "AES_256_GCM", material)
		if err != nil {
			t.Fatal(err)
		}
		bodies := map[hsm.KeyID][]byte{}
		for _, k := range []hsm.Key{key, imported} {
			if bodies[k.ID], err = r.use(k, hsm.UseEncrypt, []byte("secret")); err != nil {
				t.Fatal(err)
			}
		}
		forged := bytes.Clone(r.blob)
		forged[len(forged)-1] ^= 1
		_, err = r.Unwrap(t.Context(), forged, []byte("aad"))
		want(t, err, hsm.ErrUnwrap, hsm.ClassCaller)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.open()
		if err := r.findRoot(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.FindSigner(t.Context(), r.signer.ID); err != nil {
			t.Fatal(err)
		}
		if err := r.all(); err != nil {
			t.Error(err)
		}
		for _, k := range []hsm.Key{key, imported} {
			if _, err := r.keysOf().FindKey(t.Context(), k.ID, k.Algorithm); err != nil {
				t.Error(err)
			}
			if opened, err := r.use(k, hsm.UseDecrypt, bodies[k.ID]); err != nil || string(opened) != "secret" {
				t.Errorf("decrypted %q: %v", opened, err)
			}
			bodies[k.ID][20] ^= 1
			_, err := r.use(k, hsm.UseDecrypt, bodies[k.ID])
			want(t, err, hsm.ErrDecrypt, hsm.ClassCaller)
		}
	})
}

// A root is recognised by its key: neither another check value nor another key under
// its id is taken for it.
func TestIVOfTheHSMRecognisesItsRoot(t *testing.T) {
	r := newRig(t, inProcess, ownIV)
	r.probes.end()
	other, err := r.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.FindRoot(t.Context(), r.root.ID, other.CheckValue)
	want(t, err, hsm.ErrWrongRoot, hsm.ClassCaller)
	if s := r.Status(); !s.Healthy {
		t.Errorf("a wrong check value made the token look sick: %+v", s)
	}
	_, err = r.FindRoot(t.Context(), r.root.ID, r.root.CheckValue[:60])
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	if err := r.all(); err != nil {
		t.Error(err)
	}
}

// A token that should make the IVs and leaves zeros would encrypt everything under one
// IV. Nothing that it encrypted is given out.
func TestZeroIVIsRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, ownIV)
		r.probes.end()
		key := r.residentKey("AES_256_GCM")
		r.module.OwnIV(false)
		if _, err := r.Wrap(t.Context(), r.root.ID, 1, []byte("secret"), nil); err == nil || !strings.Contains(err.Error(), "IV of zeros") {
			t.Errorf("Wrap: %v", err)
		}
		if body, err := r.use(key, hsm.UseEncrypt, []byte("secret")); err == nil || body != nil {
			t.Errorf("UseKey: %x, %v", body, err)
		}
		r.module.OwnIV(true)
		eventually(r, r.all)
	})
}

func TestSelfTestFindsTheIVOfTheHSM(t *testing.T) {
	token := softhsmtest.Token(t)
	m := hsmtest.New(t, token.Module)
	m.OwnIV(true)
	config := configFor(token)
	config.Module = m.Path
	report, err := hsm.SelfTest(t.Context(), config, hsm.SelfTestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Profile != "aws-cloudhsm" || report.Found.GCM == nil || report.Found.GCM.IV != "parameter" || report.Use.RootWrap != "aes-gcm-hsm-iv" {
		t.Errorf("profile %s, GCM %+v, use %+v", report.Profile, report.Found.GCM, report.Use)
	}
}
