package hsm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
	"github.com/miekg/pkcs11"
)

func TestRootRoundTrip(t *testing.T) {
	d, _, root := withRoot(t)
	for _, plaintext := range []string{"x", "a domain secret of 32 bytes ....", string(make([]byte, hsm.MaxPlaintext))} {
		blob := wrap(t, d, root, plaintext)
		unwraps(t, d, blob, plaintext)
		info, err := hsm.ParseBlob(blob)
		if err != nil || info.Root != root.ID || info.RootVersion != 1 {
			t.Fatalf("ParseBlob = %+v, %v", info, err)
		}
		if len(plaintext) > 8 && bytes.Contains(blob, []byte(plaintext)) {
			t.Fatal("blob holds the plaintext")
		}
	}
}

func TestWrapNeverRepeatsAnIV(t *testing.T) {
	d, _, root := withRoot(t)
	seen := map[string]bool{}
	for range 100 {
		info, err := hsm.ParseBlob(wrap(t, d, root, "same"))
		if err != nil || seen[string(info.IV)] {
			t.Fatalf("IV %x again (%v)", info.IV, err)
		}
		seen[string(info.IV)] = true
	}
}

func TestRootIsProtectedByToken(t *testing.T) {
	_, token, root := withRoot(t)
	o := newOutsider(t, token)
	found := o.find(idAttribute(root.ID))
	if len(found) != 1 {
		t.Fatalf("%d objects, want 1", len(found))
	}
	yes := []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_ALWAYS_SENSITIVE,
		pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_LOCAL, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}
	no := []uint{pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE}
	for _, a := range yes {
		o.hasAttribute(found[0], a, 1)
	}
	for _, a := range no {
		o.hasAttribute(found[0], a, 0)
	}
	if _, err := o.p11.GetAttributeValue(o.session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)}); err == nil {
		t.Fatal("the token gave the root key away")
	}
}

func (o *outsider) hasAttribute(object pkcs11.ObjectHandle, attribute uint, want byte) {
	o.Helper()
	got, err := o.p11.GetAttributeValue(o.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	o.must(err)
	if !bytes.Equal(got[0].Value, []byte{want}) {
		o.Errorf("attribute %#x is %v, want %d", attribute, got[0].Value, want)
	}
}

func TestFindRoot(t *testing.T) {
	d, token, root := withRoot(t)
	other, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, d, root, "secret")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	again := open(t, configFor(token))
	_, err = again.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller) // not before it was found
	_, err = again.Wrap(t.Context(), root.ID, 1, []byte("x"), nil)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	_, err = again.FindRoot(t.Context(), root.ID, other.CheckValue)
	want(t, err, hsm.ErrWrongRoot, hsm.ClassCaller)
	_, err = again.FindRoot(t.Context(), hsm.KeyID{1}, root.CheckValue)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	_, err = again.FindRoot(t.Context(), root.ID, nil)
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)

	found, err := again.FindRoot(t.Context(), root.ID, root.CheckValue)
	if err != nil || found.ID != root.ID || !bytes.Equal(found.CheckValue, root.CheckValue) {
		t.Fatalf("FindRoot = %v, %v", found, err)
	}
	unwraps(t, again, blob, "secret")
	if n := len(newOutsider(t, token).find()); n != 2 {
		t.Fatalf("%d objects on the token, want the 2 roots", n)
	}
}

// A key of the right id but another value, as on a token that was replaced.
func TestFindRootRefusesImpostor(t *testing.T) {
	d, token, root := withRoot(t)
	if err := d.Destroy(t.Context(), root.ID); err != nil {
		t.Fatal(err)
	}
	o := newOutsider(t, token)
	o.aes(root.ID, false)
	_, err := d.FindRoot(t.Context(), root.ID, root.CheckValue)
	want(t, err, hsm.ErrWrongRoot, hsm.ClassCaller)
}

func TestFindRootRefusesExtractableKey(t *testing.T) {
	d, token, root := withRoot(t)
	id := hsm.KeyID{7}
	newOutsider(t, token).aes(id, true)
	_, err := d.FindRoot(t.Context(), id, root.CheckValue)
	want(t, err, hsm.ErrUnprotected, hsm.ClassCaller)
}

func TestFindRootRefusesDuplicates(t *testing.T) {
	d, token, root := withRoot(t)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, configFor(token))
	newOutsider(t, token).aes(root.ID, false)
	_, err := again.FindRoot(t.Context(), root.ID, root.CheckValue)
	want(t, err, hsm.ErrDuplicateObject, hsm.ClassCaller)
}

func TestRootOfAnotherTokenOfSameLabel(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	hide(t, token)
	if err := mkdir(token); err != nil {
		t.Fatal(err)
	}
	softhsmtest.Another(t, token, token.Label)

	other := open(t, configFor(token))
	_, err := other.FindRoot(t.Context(), root.ID, root.CheckValue)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	_, err = other.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	if n := len(newOutsider(t, token).find()); n != 0 {
		t.Fatalf("%d objects were made on the wrong token", n)
	}
}

func TestUnwrapRefusesEveryFlippedByte(t *testing.T) {
	d, _, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	generation := d.Status().Generation
	for i := range blob {
		tampered := bytes.Clone(blob)
		tampered[i] ^= 0x01
		if _, err := d.Unwrap(t.Context(), tampered, []byte("aad")); !refusal(err) {
			t.Fatalf("byte %d flipped: error = %v", i, err)
		}
	}
	for n := range blob {
		if _, err := d.Unwrap(t.Context(), blob[:n], []byte("aad")); !refusal(err) {
			t.Fatalf("cut to %d bytes: error = %v", n, err)
		}
	}
	if s := d.Status(); !s.Healthy || s.Generation != generation || !s.LastErrorAt.IsZero() {
		t.Fatalf("tampering made the device look sick: %+v", s)
	}
	unwraps(t, d, blob, "secret")
}

// refusal tells whether a blob was refused as the caller's fault.
func refusal(err error) bool {
	var e *hsm.Error
	if !errors.As(err, &e) || e.Class != hsm.ClassCaller {
		return false
	}
	return errors.Is(err, hsm.ErrUnwrap) || errors.Is(err, hsm.ErrBlob) || errors.Is(err, hsm.ErrRootNotFound)
}

func TestUnwrapRefusesOtherContext(t *testing.T) {
	d, _, root := withRoot(t)
	other, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, d, root, "secret")
	_, err = d.Unwrap(t.Context(), blob, []byte("other"))
	want(t, err, hsm.ErrUnwrap, hsm.ClassCaller)
	_, err = d.Unwrap(t.Context(), blob, make([]byte, hsm.MaxAAD+1))
	want(t, err, hsm.ErrUnwrap, hsm.ClassCaller)

	moved := bytes.Clone(blob) // pretend that the other root wrapped it
	copy(moved[2:], other.ID[:])
	_, err = d.Unwrap(t.Context(), moved, []byte("aad"))
	want(t, err, hsm.ErrUnwrap, hsm.ClassCaller)
	if got := err.Error(); got != "hsm: unwrap: caller: unwrap failed" {
		t.Fatalf("error says more than that it failed: %q", got)
	}
}

func TestWrapRefuses(t *testing.T) {
	d, _, root := withRoot(t)
	cases := map[string]struct{ plaintext, aad int }{
		"empty":     {0, 0},
		"too long":  {hsm.MaxPlaintext + 1, 0},
		"large AAD": {1, hsm.MaxAAD + 1},
	}
	for name, c := range cases {
		_, err := d.Wrap(t.Context(), root.ID, 1, make([]byte, c.plaintext), make([]byte, c.aad))
		t.Run(name, func(t *testing.T) { want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller) })
	}
}

func TestDestroyRemovesTheRoot(t *testing.T) {
	d, token, root := withRoot(t)
	blob := wrap(t, d, root, "secret")
	for range 2 { // the second finds nothing, which is as good
		if err := d.Destroy(t.Context(), root.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(newOutsider(t, token).find(idAttribute(root.ID))); n != 0 {
		t.Fatalf("%d objects left", n)
	}
	_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	if err := d.Probe(t.Context()); err != nil {
		t.Fatalf("Probe after Destroy: %v", err)
	}
}

func TestRandom(t *testing.T) {
	d, _ := fresh(t)
	a, errA := d.Random(t.Context(), 32)
	b, errB := d.Random(t.Context(), 32)
	if errA != nil || errB != nil || len(a) != 32 || bytes.Equal(a, b) {
		t.Fatalf("Random = %d bytes, %v; %d bytes, %v", len(a), errA, len(b), errB)
	}
	for _, n := range []int{-1, 0, hsm.MaxRandom + 1} {
		_, err := d.Random(t.Context(), n)
		want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	}
}

// A root is made under the caller's id, and never over an object that is there.
func TestGenerateRootAs(t *testing.T) {
	d, token, _ := withRoot(t)
	id := hsm.KeyID{1, 2, 3}
	made, err := d.GenerateRootAs(t.Context(), id)
	if err != nil || made.ID != id {
		t.Fatalf("GenerateRootAs = %v, %v", made, err)
	}
	blob := wrap(t, d, made, "secret")
	unwraps(t, d, blob, "secret")
	_, err = d.GenerateRootAs(t.Context(), id)
	want(t, err, hsm.ErrDuplicateObject, hsm.ClassCaller)
	unwraps(t, d, blob, "secret")
	if n := len(newOutsider(t, token).find()); n != 2 {
		t.Errorf("%d objects on the token, want 2", n)
	}
	if err := d.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err = d.FindRoot(t.Context(), id, made.CheckValue)
	want(t, err, hsm.ErrRootNotFound, hsm.ClassCaller)
	if err := d.Probe(t.Context()); err != nil { // it is no part of the token's health any more
		t.Error(err)
	}
}
