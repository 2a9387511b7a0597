package hsm_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// rootDevices are the tokens and mechanisms of roots that are tested, beside
// AES-GCM, with the size of their check values.
var rootDevices = map[string]struct {
	config    func(*testing.T) hsm.Config
	mechanism hsm.Mechanism
	check     int
}{
	"RSA-OAEP on SoftHSM2": {func(t *testing.T) hsm.Config { return configFor(softhsmtest.Token(t)) }, hsm.MechanismRSAOAEP, 19},
	"RSA-OAEP on NSS":      {func(t *testing.T) hsm.Config { return nss(t) }, hsm.MechanismRSAOAEP, 19},
	"AES-KW on NSS":        {func(t *testing.T) hsm.Config { return nss(t) }, hsm.MechanismAESKW, 17},
}

func TestRootsOfOtherKinds(t *testing.T) {
	for name, c := range rootDevices {
		t.Run(name, func(t *testing.T) {
			config := c.config(t)
			d := open(t, hsm.WithRootWrap(config, c.mechanism))
			root, err := d.GenerateRoot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(root.CheckValue) != c.check || root.CheckValue[0] != byte(c.mechanism) {
				t.Errorf("check value %x", root.CheckValue)
			}
			blob := wrapsAs(t, d, root, c.mechanism)
			refusesForgeries(t, d, root, blob)
			if err := d.Probe(t.Context()); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			again := open(t, config) // what is preferred for new roots does not matter
			isFoundAgain(t, again, root, blob)
		})
	}
}

// wrapsAs wraps secrets of all sizes, and returns a blob of the text "secret".
func wrapsAs(t *testing.T, d *hsm.Device, root hsm.Root, m hsm.Mechanism) []byte {
	t.Helper()
	for _, plaintext := range []string{"x", "a domain secret of 32 bytes ....", string(make([]byte, hsm.MaxPlaintext))} {
		blob := wrap(t, d, root, plaintext)
		unwraps(t, d, blob, plaintext)
		info, err := hsm.ParseBlob(blob)
		if err != nil || info.Mechanism != m || info.Root != root.ID || info.RootVersion != 1 {
			t.Fatalf("blob %+v, %v", info, err)
		}
		if len(plaintext) > 8 && bytes.Contains(blob, []byte(plaintext)) {
			t.Fatal("the blob holds the plaintext")
		}
		if bytes.Equal(blob, wrap(t, d, root, plaintext)) {
			t.Fatal("the same blob twice")
		}
	}
	return wrap(t, d, root, "secret")
}

// refusesForgeries tries changed bytes, another context and other lengths.
func refusesForgeries(t *testing.T, d *hsm.Device, root hsm.Root, blob []byte) {
	t.Helper()
	generation := d.Status().Generation
	for i := 0; i < len(blob); i += 1 + i/8 { // every byte at the beginning, fewer later
		forged := bytes.Clone(blob)
		forged[i] ^= 1
		if _, err := d.Unwrap(t.Context(), forged, []byte("aad")); !refusal(err) {
			t.Fatalf("byte %d flipped: error = %v", i, err)
		}
	}
	for _, n := range []int{0, 21, 22, 23, 30, len(blob) / 2, len(blob) - 1} {
		if _, err := d.Unwrap(t.Context(), blob[:n], []byte("aad")); !refusal(err) {
			t.Fatalf("cut to %d bytes: error = %v", n, err)
		}
	}
	_, err := d.Unwrap(t.Context(), blob, []byte("other"))
	want(t, err, hsm.ErrUnwrap, hsm.ClassCaller)
	if s := d.Status(); !s.Healthy || s.Generation != generation {
		t.Fatalf("forgeries made the device look sick: %+v", s)
	}
	unwraps(t, d, blob, "secret")
}

// isFoundAgain finds a root by its check value alone, uses and destroys it.
func isFoundAgain(t *testing.T, d *hsm.Device, root hsm.Root, blob []byte) {
	t.Helper()
	wrong := bytes.Clone(root.CheckValue)
	wrong[len(wrong)-1] ^= 1
	_, err := d.FindRoot(t.Context(), root.ID, wrong)
	want(t, err, hsm.ErrWrongRoot, hsm.ClassCaller)
	_, err = d.FindRoot(t.Context(), hsm.KeyID{1}, root.CheckValue)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	_, err = d.FindRoot(t.Context(), root.ID, append([]byte{0x77}, wrong...))
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	if _, err := d.FindRoot(t.Context(), root.ID, root.CheckValue); err != nil {
		t.Fatal(err)
	}
	unwraps(t, d, blob, "secret")
	if err := d.Destroy(t.Context(), root.ID); err != nil {
		t.Fatal(err)
	}
	_, err = d.FindRoot(t.Context(), root.ID, root.CheckValue)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
}

func TestDestroyRemovesCompanion(t *testing.T) {
	token := softhsmtest.Token(t)
	d := open(t, hsm.WithRootWrap(configFor(token), hsm.MechanismRSAOAEP))
	root, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := newOutsider(t, token)
	if n := len(o.find()); n != 3 {
		t.Fatalf("%d objects, want a pair and its companion", n)
	}
	if err := d.Destroy(t.Context(), root.ID); err != nil {
		t.Fatal(err)
	}
	if n := len(o.find()); n != 0 {
		t.Fatalf("%d objects remain", n)
	}
}

// SoftHSM2 lists AES-KW, but does it with key objects only.
func TestRootThatTokenCannotDo(t *testing.T) {
	token := softhsmtest.Token(t)
	d := open(t, hsm.WithRootWrap(configFor(token), hsm.MechanismAESKW))
	root, err := d.GenerateRoot(t.Context())
	if err == nil {
		t.Fatalf("made %v", root.ID)
	}
	if n := len(newOutsider(t, token).find()); n != 0 {
		t.Fatalf("%d objects remain after %v", n, err)
	}
	if s := d.Status(); !s.Healthy {
		t.Errorf("status %+v", s)
	}
}

func ExampleMechanism() {
	fmt.Println(hsm.MechanismAESGCM, hsm.MechanismAESKW, hsm.MechanismRSAOAEP)
	// Output: aes-gcm aes-kw rsa-oaep
}
