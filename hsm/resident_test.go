package hsm_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
)

// generate makes a key in the token.
func generate(t testing.TB, d *hsm.Device, name string) hsm.Key {
	t.Helper()
	key, err := d.GenerateKey(t.Context(), newID(), name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeyAfterReopening(t *testing.T) {
	d, token, root := withRoot(t)
	keys := []hsm.Key{generate(t, d, "AES_256_GCM"), generate(t, d, "ECDSA_P256_SHA256")}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, configFor(token))
	if _, err := again.FindRoot(t.Context(), root.ID, root.CheckValue); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		_, err := again.UseKey(t.Context(), key.ID, key.Algorithm, usesOf(key.Algorithm)[0], make([]byte, 32), nil)
		want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
		found, err := again.FindKey(t.Context(), key.ID, key.Algorithm)
		if err != nil || !bytes.Equal(found.PublicKey, key.PublicKey) {
			t.Fatalf("FindKey = %+v, %v", found, err)
		}
		works(t, again, found)
	}
}

// A key of another size, type or curve under the id is not the key.
func TestFindKeyOfAnotherAlgorithm(t *testing.T) {
	d, _, _ := withRoot(t)
	for made, others := range map[string][]string{
		"AES_256_GCM":       {"AES_128_GCM", "HMAC_SHA256", "ECDSA_P256_SHA256"},
		"HMAC_SHA256":       {"HMAC_SHA512", "AES_256_GCM"},
		"ECDSA_P256_SHA256": {"ECDSA_P384_SHA384", "ED25519", "RSA_PSS_2048_SHA256", "AES_256_GCM"},
	} {
		key := generate(t, d, made)
		for _, other := range others {
			_, err := d.FindKey(t.Context(), key.ID, other)
			if !errors.Is(err, hsm.ErrKeyNotFound) {
				t.Errorf("key of %s found as %s: %v", made, other, err)
			}
		}
		works(t, d, key)
	}
}

func TestUnprotectedKeyIsRefused(t *testing.T) {
	d, token, _ := withRoot(t)
	id := newID()
	newOutsider(t, token).aes(id, true)
	_, err := d.FindKey(t.Context(), id, "AES_256_GCM")
	want(t, err, hsm.ErrUnprotected, hsm.ClassCaller)
}

func TestTwoKeysOfOneID(t *testing.T) {
	d, token, _ := withRoot(t)
	id := newID()
	o := newOutsider(t, token)
	o.aes(id, false)
	o.aes(id, false)
	_, err := d.FindKey(t.Context(), id, "AES_256_GCM")
	want(t, err, hsm.ErrDuplicateObject, hsm.ClassCaller)
	_, err = d.GenerateKey(t.Context(), id, "ECDSA_P256_SHA256")
	want(t, err, hsm.ErrDuplicateObject, hsm.ClassCaller)
}

// A key carries its id and label, and the attributes of its purpose alone.
func TestAttributesOfKeys(t *testing.T) {
	d, token, _ := withRoot(t)
	o := newOutsider(t, token)
	all := []uint{
		pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY,
		pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE,
	}
	for name, uses := range map[string][]uint{
		"AES_256_GCM":        {pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT},
		"HMAC_SHA256":        {pkcs11.CKA_SIGN},
		"ECDSA_P256_SHA256":  {pkcs11.CKA_SIGN},
		"RSA_OAEP_3072_SHA1": {pkcs11.CKA_DECRYPT},
		"ECDH_P256":          {pkcs11.CKA_DERIVE},
	} {
		key := generate(t, d, name)
		secret := pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true) // no public key has it
		found := o.find(idAttribute(key.ID), secret)
		if len(found) != 1 {
			t.Fatalf("%s: %d secret objects", name, len(found))
		}
		if got := o.text(found[0], pkcs11.CKA_LABEL); got != "keywright key "+key.ID.String() {
			t.Errorf("%s: label %q", name, got)
		}
		for _, attribute := range []uint{pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE} {
			if !o.is(found[0], attribute) {
				t.Errorf("%s: attribute %#x is false", name, attribute)
			}
		}
		if o.is(found[0], pkcs11.CKA_EXTRACTABLE) {
			t.Errorf("%s can be extracted", name)
		}
		for _, attribute := range all {
			if got := o.is(found[0], attribute); got != slices.Contains(uses, attribute) {
				t.Errorf("%s: attribute %#x is %v", name, attribute, got)
			}
		}
	}
}

func (o *outsider) text(object pkcs11.ObjectHandle, attribute uint) string {
	o.Helper()
	values, err := o.p11.GetAttributeValue(o.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	o.must(err)
	return string(values[0].Value)
}

// is tells whether a boolean attribute is there and true.
func (o *outsider) is(object pkcs11.ObjectHandle, attribute uint) bool {
	values, err := o.p11.GetAttributeValue(o.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	return err == nil && bytes.Equal(values[0].Value, []byte{1})
}

func TestListKeysKnowsItsOwn(t *testing.T) {
	d, token, _ := withRoot(t)
	if ids, err := d.ListKeys(t.Context()); err != nil || len(ids) != 0 {
		t.Fatalf("ListKeys = %v, %v on a token with a root alone", ids, err)
	}
	if _, err := d.GenerateSigner(t.Context()); err != nil {
		t.Fatal(err)
	}
	newOutsider(t, token).aes(newID(), false)
	var made []hsm.KeyID
	made = append(made, generate(t, d, "ED25519").ID)
	for range 70 { // more than one piece
		made = append(made, generate(t, d, "HMAC_SHA256").ID)
	}
	ids, err := d.ListKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(made, func(a, b hsm.KeyID) int { return bytes.Compare(a[:], b[:]) })
	if !slices.Equal(ids, made) {
		t.Fatalf("%d keys listed, want %d", len(ids), len(made))
	}
}

// What another has destroyed is not found; what another has put in its place is not
// used. The token is well all the time.
func TestKeyDestroyedOrReplacedElsewhere(t *testing.T) {
	d, token, _ := withRoot(t)
	key, pair := generate(t, d, "AES_256_GCM"), generate(t, d, "ECDSA_P256_SHA256")
	o := newOutsider(t, token)
	generation := d.Status().Generation
	o.destroyAll(key.ID)
	o.destroyAll(pair.ID)
	for range 3 {
		_, err := d.UseKey(t.Context(), key.ID, key.Algorithm, hsm.UseEncrypt, []byte("x"), nil)
		want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
		_, err = d.UseKey(t.Context(), pair.ID, pair.Algorithm, hsm.UseSign, make([]byte, 32), nil)
		want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
	}
	o.aes(key.ID, false)
	for range 3 {
		_, err := d.UseKey(t.Context(), key.ID, key.Algorithm, hsm.UseEncrypt, []byte("x"), nil)
		want(t, err, hsm.ErrKeyNotFound, hsm.ClassCaller)
	}
	if s := d.Status(); !s.Healthy || s.Generation != generation {
		t.Fatalf("status %+v", s)
	}
}

// A token that is away finds no keys, and has none to destroy. It is not believed.
func TestTokenAwayHasNoKeys(t *testing.T) {
	d, token, _ := withRoot(t)
	key := generate(t, d, "AES_256_GCM")
	restore := hide(t, token)
	eventually(t, func() error { // SoftHSM2 serves from memory until something fails
		if err := d.Probe(t.Context()); err == nil {
			return errors.New("probe does not notice")
		}
		return nil
	})
	for name, call := range map[string]func() error{
		"use": func() error {
			_, err := d.UseKey(t.Context(), key.ID, key.Algorithm, hsm.UseEncrypt, []byte("x"), nil)
			return err
		},
		"find":     func() error { _, err := d.FindKey(t.Context(), key.ID, key.Algorithm); return err },
		"list":     func() error { _, err := d.ListKeys(t.Context()); return err },
		"destroy":  func() error { return d.Destroy(t.Context(), key.ID) },
		"generate": func() error { _, err := d.GenerateKey(t.Context(), newID(), "AES_256_GCM"); return err },
	} {
		t.Run(name, func(t *testing.T) { want(t, call(), hsm.ErrUnavailable, hsm.ClassDevice) })
	}
	restore()
	eventually(t, func() error { return d.Probe(t.Context()) })
	works(t, d, key)
}

func TestKeysAfterExternalLogout(t *testing.T) {
	d, token, _ := withRoot(t)
	key := generate(t, d, "ECDSA_P256_SHA256")
	o := newOutsider(t, token)
	generation := d.Status().Generation
	for name, call := range map[string]func() error{
		"use": func() error {
			_, err := d.UseKey(t.Context(), key.ID, key.Algorithm, hsm.UseSign, make([]byte, 32), nil)
			return err
		},
		"find":     func() error { _, err := d.FindKey(t.Context(), key.ID, key.Algorithm); return err },
		"generate": func() error { _, err := d.GenerateKey(t.Context(), newID(), "AES_256_GCM"); return err },
		"import": func() error {
			_, err := d.ImportKey(t.Context(), newID(), "AES_256_GCM", make([]byte, 32))
			return err
		},
		"list": func() error {
			if ids, err := d.ListKeys(t.Context()); err != nil || len(ids) == 0 {
				return fmt.Errorf("%d keys: %w", len(ids), err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			o.must(o.p11.Logout(o.session))
			if err := call(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if got := d.Status().Generation; got != generation {
		t.Errorf("generation %d, was %d", got, generation)
	}
}

// Many goroutines use, make and destroy keys on few sessions.
func TestKeysInParallel(t *testing.T) {
	d, _, root := withRoot(t)
	shared := []hsm.Key{generate(t, d, "AES_256_GCM"), generate(t, d, "ECDSA_P256_SHA256"), generate(t, d, "HMAC_SHA256"), generate(t, d, "ECDH_P256")}
	blob := wrap(t, d, root, "secret")
	var group sync.WaitGroup
	for i := range 24 {
		group.Go(func() {
			works(t, d, shared[i%len(shared)])
			own := generate(t, d, shared[i%len(shared)].Algorithm)
			works(t, d, own)
			unwraps(t, d, blob, "secret")
			if err := d.Destroy(t.Context(), own.ID); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	ids, err := d.ListKeys(t.Context())
	if err != nil || len(ids) != len(shared) {
		t.Fatalf("%d keys left, want %d: %v", len(ids), len(shared), err)
	}
}

// A flood of tampered ciphertexts: memory stays as it is, and the token is neither
// taken for sick nor started anew.
func TestFloodOfTamperedCiphertexts(t *testing.T) {
	size := 40_000   // of 1 KiB: whatever leaked would be more than the process has
	if raceEnabled { // whose memory grows; make test runs this test without it too
		size = 5_000
	}
	d, _, _ := withRoot(t)
	key := generate(t, d, "AES_256_GCM")
	u := user{t, d, key}
	body := u.use(hsm.UseEncrypt, random(1024), nil)
	body[len(body)-1] ^= 1
	generation := d.Status().Generation
	flood := func(n int) {
		for range n {
			if _, err := u.try(hsm.UseDecrypt, body, nil); !errors.Is(err, hsm.ErrDecrypt) {
				t.Fatalf("error = %v, want ErrDecrypt", err)
			}
		}
	}
	flood(size / 20)
	before := residentMemory(t, os.Getpid())
	flood(size)
	after := residentMemory(t, os.Getpid())
	t.Logf("resident memory %d KiB before, %d KiB after", before>>10, after>>10)
	if after > before+before/20 && !raceEnabled {
		t.Errorf("memory grew by %d KiB", (after-before)>>10)
	}
	if s := d.Status(); !s.Healthy || s.Generation != generation || !s.LastErrorAt.IsZero() {
		t.Fatalf("status %+v", s)
	}
	works(t, d, key)
}
