package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/hsmtest"
)

// keysOf is the other half of what a token serves.
func (r *rig) keysOf() hsm.Keys {
	r.Helper()
	keys, ok := r.Service.(hsm.Keys)
	if !ok {
		r.Fatalf("%T serves no HSM-resident keys", r.Service)
	}
	return keys
}

// residentKey makes a key; a busy disk may hold it up.
func (r *rig) residentKey(algorithm string) (key hsm.Key) {
	r.Helper()
	eventually(r, func() (err error) {
		key, err = r.keysOf().GenerateKey(r.Context(), newID(), algorithm)
		return err
	})
	return key
}

func (r *rig) use(key hsm.Key, use hsm.Use, data []byte) ([]byte, error) {
	return r.keysOf().UseKey(r.Context(), key.ID, key.Algorithm, use, data, nil)
}

// The reply to the making of an HSM-resident key is lost, once or for good, or the
// token is full: there is one key under the id that the caller chose, or none, and the
// error says which, or that it does not know.
func TestFaultResidentKeyGeneration(t *testing.T) {
	cases := map[string]struct {
		fault  hsmtest.Fault
		sick   bool // nothing can be found after the reply was lost
		deadly bool
		want   error
		made   bool

		prepare func(*hsmtest.Module, *hsm.Config)
	}{
		"one reply lost":         {fault: hsmtest.Fault{Do: hsmtest.Lose, Code: pkcs11.CKR_DEVICE_ERROR, Times: 1}, made: true},
		"every reply lost":       {fault: hsmtest.Fault{Do: hsmtest.Lose, Code: pkcs11.CKR_DEVICE_ERROR}, made: true},
		"reply lost, token away": {fault: hsmtest.Fault{Do: hsmtest.Lose, Code: pkcs11.CKR_DEVICE_ERROR}, sick: true, want: hsm.ErrUnknownOutcome, made: true},
		"token full":             {fault: hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_MEMORY}, want: hsm.ErrExhausted, prepare: hurried},
		"not made":               {fault: hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_ERROR}, want: hsm.ErrUnknownOutcome},
		"SIGKILL before":         {fault: hsmtest.Fault{Do: hsmtest.Kill, Times: 1}, deadly: true, want: hsm.ErrUnknownOutcome},
		"SIGKILL after":          {fault: hsmtest.Fault{Do: hsmtest.KillAfter, Times: 1}, deadly: true, want: hsm.ErrUnknownOutcome, made: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, w way) {
				if c.deadly && !w.worker {
					return
				}
				r := newRig(t, w, c.prepare)
				r.probes.end()
				for algorithm, function := range map[string]string{"AES_256_GCM": "C_GenerateKey", "ECDSA_P256_SHA256": "C_GenerateKeyPair"} {
					eventually(t, r.all)
					before := r.keys()
					r.module.Inject(function, c.fault)
					if c.sick {
						r.module.Inject("C_FindObjectsInit", hsmtest.Fault{Do: hsmtest.Refuse, Code: pkcs11.CKR_DEVICE_ERROR, After: 1})
					}
					id := newID()
					_, err := r.keysOf().GenerateKey(t.Context(), id, algorithm)
					if !errors.Is(err, c.want) || c.want == nil && err != nil {
						t.Errorf("%s: error = %v, want %v", algorithm, err, c.want)
					}
					if c.made && r.module.Fired(function) != 1 {
						t.Errorf("%s: made %d times", algorithm, r.module.Fired(function))
					}
					r.module.Reset()
					eventually(t, r.all)
					r.settled(id, algorithm, c.made, before)
				}
				r.leavesNothing()
				answer := "ok"
				if c.want != nil {
					answer = c.want.Error()
				}
				r.report(observation{fault: "resident key: " + name, callers: answer, health: "truth by the next probe", recovery: "FindKey tells, Destroy clears"})
			})
		})
	}
}

// settled finds out what became of a key, as the server's reconciler does, and
// removes it.
func (r *rig) settled(id hsm.KeyID, algorithm string, made bool, before int) {
	r.Helper()
	found, err := r.keysOf().FindKey(r.Context(), id, algorithm)
	listed, listing := r.keysOf().ListKeys(r.Context())
	if listing != nil || slices.Contains(listed, id) != made {
		r.Errorf("%s: ListKeys = %v, %v; made: %v", algorithm, listed, listing, made)
	}
	if made && (err != nil || found.ID != id) || !made && !errors.Is(err, hsm.ErrKeyNotFound) {
		r.Errorf("%s: FindKey = %v, %v; made: %v", algorithm, found, err, made)
	}
	if err := r.Destroy(r.Context(), id); err != nil {
		r.Error(err)
	}
	if n := r.keys(); n != before {
		r.Errorf("%s: %d objects, %d before", algorithm, n, before)
	}
}

// One error of a moment, in each call of a use, is not noticed, and no ciphertext is
// called bad for it.
func TestFaultResidentKeyUse(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		cipher, signer := r.residentKey("AES_256_GCM"), r.residentKey("ECDSA_P256_SHA256")
		r.before.keys = r.keys()
		ciphertext, err := r.use(cipher, hsm.UseEncrypt, []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		decrypt := func() error {
			got, err := r.use(cipher, hsm.UseDecrypt, ciphertext)
			if err == nil && !bytes.Equal(got, []byte("secret")) {
				err = errors.New("decrypted to something else")
			}
			return err
		}
		encrypt := func() error { _, err := r.use(cipher, hsm.UseEncrypt, []byte("x")); return err }
		sign := func() error { _, err := r.use(signer, hsm.UseSign, make([]byte, 32)); return err }
		for function, call := range map[string]func() error{"C_Decrypt": decrypt, "C_DecryptInit": decrypt, "C_Encrypt": encrypt, "C_EncryptInit": encrypt, "C_Sign": sign, "C_SignInit": sign} {
			for _, code := range []uint{pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID} {
				for _, do := range []hsmtest.Action{hsmtest.Refuse, hsmtest.Lose} {
					r.module.Inject(function, hsmtest.Fault{Do: do, Code: code, Times: 1})
					if err := call(); err != nil || r.module.Fired(function) != 1 {
						t.Errorf("%s with code %#x: %v", function, code, err)
					}
					r.module.Clear(function)
				}
			}
		}
		r.leavesNothing()
		r.report(observation{fault: "resident keys: one error in each call of a use", callers: "ok", health: "well", recovery: "not needed"})
	})
}

// A token that lost its login or its objects is not believed when it finds no key.
func TestFaultResidentKeyNotFoundWhileSick(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		r := newRig(t, w, nil)
		r.probes.end()
		key := r.residentKey("ECDSA_P256_SHA256")
		r.before.keys = r.keys()
		r.module.Inject("C_FindObjects", hsmtest.Fault{Do: hsmtest.Empty})
		forgetHandles(r)
		_, err := r.keysOf().FindKey(t.Context(), newID(), key.Algorithm)
		want(t, err, hsm.ErrUnavailable, hsm.ClassDevice)
		if _, err := r.keysOf().ListKeys(t.Context()); err == nil {
			t.Error("a sick token's empty list was believed")
		}
		r.module.Reset()
		eventually(t, r.all)
		if _, err := r.use(key, hsm.UseSign, make([]byte, 32)); err != nil {
			t.Error(err)
		}
		r.leavesNothing()
		r.report(observation{fault: "resident key: empty find while sick", callers: told(err), health: "sick", recovery: fmt.Sprintf("with the token, %d objects", r.keys())})
	})
}
