package hsm_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// configFor is the configuration of a test's device on a token.
func configFor(token *softhsm.Token) hsm.Config {
	return hsm.Config{Module: token.Module, TokenLabel: token.Label, PIN: hsm.PINFromFile(token.PINFile)}
}

// open opens a device that is closed when the test ends.
func open(t testing.TB, config hsm.Config) *hsm.Device {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	d, err := hsm.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(line []byte) (int, error) {
	if w.Context().Err() == nil {
		w.Logf("%s", line)
	}
	return len(line), nil
}

// fresh is a device on a token of its own.
func fresh(t testing.TB) (*hsm.Device, *softhsm.Token) {
	t.Helper()
	token := softhsmtest.Token(t)
	return open(t, configFor(token)), token
}

// withRoot is a device on a token of its own with one root key.
func withRoot(t testing.TB) (*hsm.Device, *softhsm.Token, hsm.Root) {
	t.Helper()
	d, token := fresh(t)
	root, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d, token, root
}

func wrap(t testing.TB, d *hsm.Device, root hsm.Root, plaintext string) []byte {
	t.Helper()
	blob, err := d.Wrap(t.Context(), root.ID, 1, []byte(plaintext), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// unwraps checks that a blob opens to that plaintext.
func unwraps(t testing.TB, d *hsm.Device, blob []byte, want string) {
	t.Helper()
	got, err := d.Unwrap(t.Context(), blob, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Fatal("unwrapped to something else")
	}
}

// want checks an error's sentinel and class.
func want(t testing.TB, err, sentinel error, class hsm.Class) {
	t.Helper()
	var e *hsm.Error
	if !errors.Is(err, sentinel) || !errors.As(err, &e) || e.Class != class {
		t.Fatalf("error = %v; want %v of class %s", err, sentinel, class)
	}
}

// eventually repeats op until it succeeds.
func eventually(t testing.TB, op func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := op()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still failing: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// hide moves the token's keys away; the function that it returns brings them back.
func hide(t testing.TB, token *softhsm.Token) (restore func()) {
	t.Helper()
	tokens := filepath.Join(token.Dir, "tokens")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(tokens, tokens+".away")
	return func() { t.Helper(); move(tokens+".away", tokens) }
}

// outsider is another user of the module in this process, who shares the login and
// the sessions but knows nothing of the device.
type outsider struct {
	testing.TB
	p11     *pkcs11.Ctx
	slot    uint
	session pkcs11.SessionHandle
}

func newOutsider(t testing.TB, token *softhsm.Token) *outsider {
	t.Helper()
	o := &outsider{TB: t, p11: pkcs11.New(token.Module)}
	slots, err := o.p11.GetSlotList(true)
	o.must(err)
	for _, slot := range slots {
		info, err := o.p11.GetTokenInfo(slot)
		o.must(err)
		if info.Label == token.Label {
			o.slot = slot
			o.session, err = o.p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			o.must(err)
			return o
		}
	}
	t.Fatalf("no token %q", token.Label)
	return nil
}

func (o *outsider) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// find returns the objects with that id, of every class if classes is empty.
func (o *outsider) find(template ...*pkcs11.Attribute) []pkcs11.ObjectHandle {
	o.Helper()
	o.must(o.p11.FindObjectsInit(o.session, template))
	found, _, err := o.p11.FindObjects(o.session, 100)
	o.must(err)
	o.must(o.p11.FindObjectsFinal(o.session))
	return found
}

func idAttribute(id hsm.KeyID) *pkcs11.Attribute {
	return pkcs11.NewAttribute(pkcs11.CKA_ID, id[:])
}

// aes makes an AES key under an id, as foreign software would.
func (o *outsider) aes(id hsm.KeyID, extractable bool) {
	o.Helper()
	_, err := o.p11.GenerateKey(o.session,
		[]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)},
		[]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_ID, id[:]),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, !extractable),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, extractable),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		})
	o.must(err)
}

// destroyAll removes every object under an id.
func (o *outsider) destroyAll(id hsm.KeyID) {
	o.Helper()
	for _, handle := range o.find(idAttribute(id)) {
		o.must(o.p11.DestroyObject(o.session, handle))
	}
}

// mkdir makes an empty directory where the token's keys were.
func mkdir(token *softhsm.Token) error {
	return os.Mkdir(filepath.Join(token.Dir, "tokens"), 0o700)
}

// dup returns a descriptor that belongs to nobody yet.
func dup(t testing.TB, f *os.File) uintptr {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return uintptr(fd)
}
