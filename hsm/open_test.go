package hsm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

func TestOpenRefuses(t *testing.T) {
	token := softhsmtest.Token(t)
	good := configFor(token)
	notModule := filepath.Join(t.TempDir(), "module.so")
	if err := os.WriteFile(notModule, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		change func(*hsm.Config)
		want   error
		class  hsm.Class
	}{
		"no module":        {func(c *hsm.Config) { c.Module = "" }, hsm.ErrConfig, hsm.ClassCaller},
		"no token":         {func(c *hsm.Config) { c.TokenLabel = "" }, hsm.ErrConfig, hsm.ClassCaller},
		"no PIN":           {func(c *hsm.Config) { c.PIN = nil }, hsm.ErrConfig, hsm.ClassCaller},
		"bad pool":         {func(c *hsm.Config) { c.MaxSessions = -1 }, hsm.ErrConfig, hsm.ClassCaller},
		"bad timeout":      {func(c *hsm.Config) { c.Timeout = -1 }, hsm.ErrConfig, hsm.ClassCaller},
		"missing module":   {func(c *hsm.Config) { c.Module = notModule + ".absent" }, hsm.ErrModule, hsm.ClassCaller},
		"not a module":     {func(c *hsm.Config) { c.Module = notModule }, hsm.ErrModule, hsm.ClassCaller},
		"other library":    {func(c *hsm.Config) { c.Module = "libc.so.6" }, hsm.ErrModule, hsm.ClassCaller},
		"wrong label":      {func(c *hsm.Config) { c.TokenLabel = "absent" }, hsm.ErrTokenNotFound, hsm.ClassCaller},
		"wrong serial":     {func(c *hsm.Config) { c.TokenSerial = "0000" }, hsm.ErrTokenNotFound, hsm.ClassCaller},
		"missing PIN file": {func(c *hsm.Config) { c.PIN = hsm.PINFromFile(notModule + ".absent") }, os.ErrNotExist, hsm.ClassDevice},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config := good
			c.change(&config)
			_, err := hsm.Open(t.Context(), config)
			want(t, err, c.want, c.class)
		})
	}
	open(t, good) // nothing of the above stands in the way
}

func TestOpenNamesTokensPresent(t *testing.T) {
	token := softhsmtest.Token(t)
	config := configFor(token)
	config.TokenLabel = "absent"
	_, err := hsm.Open(t.Context(), config)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", token.Label)) {
		t.Fatalf("error %v does not name the token that is there", err)
	}
}

func TestTwoTokensOfOneLabel(t *testing.T) {
	token := softhsmtest.Token(t)
	softhsmtest.Another(t, token, token.Label)
	_, err := hsm.Open(t.Context(), configFor(token))
	want(t, err, hsm.ErrAmbiguousToken, hsm.ClassCaller)

	tokens, err := hsm.ListTokens(t.Context(), token.Module)
	if err != nil || len(tokens) != 2 {
		t.Fatalf("ListTokens = %v, %v", tokens, err)
	}
	for _, one := range tokens {
		config := configFor(token)
		config.TokenLabel, config.TokenSerial = "ignored beside a serial", one.Serial
		if got := open(t, config).Status().TokenSerial; got != one.Serial {
			t.Errorf("opened token %s, want %s", got, one.Serial)
		}
	}
}

// countedPIN is a source that counts its logins.
func countedPIN(pin string, logins *int) hsm.PINSource {
	return func() (hsm.PIN, error) {
		*logins++
		return hsm.NewPIN([]byte(pin)), nil
	}
}

func TestOpenTriesWrongPINOnce(t *testing.T) {
	token := softhsmtest.Token(t)
	config := configFor(token)
	logins := 0
	config.PIN = countedPIN("not-the-pin", &logins)
	_, err := hsm.Open(t.Context(), config)
	want(t, err, hsm.ErrPIN, hsm.ClassPIN)
	if logins != 1 {
		t.Fatalf("%d attempts, want 1", logins)
	}
	if strings.Contains(err.Error(), "not-the-pin") {
		t.Fatalf("the error shows the PIN: %v", err)
	}
	open(t, configFor(token)) // a new Open may try again
}

// The PIN was changed while the device was in use: it is tried once at the next
// login, and never again.
func TestWrongPINStopsForEver(t *testing.T) {
	token := softhsmtest.Token(t)
	config := configFor(token)
	pin, logins := softhsmtest.PIN(t, token), 0
	config.PIN = func() (hsm.PIN, error) {
		return countedPIN(pin, &logins)()
	}
	d := open(t, config)
	root, err := d.GenerateRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	blob := wrap(t, d, root, "secret")

	pin = "changed"
	o := newOutsider(t, token)
	o.must(o.p11.Logout(o.session))
	for range 5 {
		_, err := d.Unwrap(t.Context(), blob, []byte("aad"))
		want(t, err, hsm.ErrPIN, hsm.ClassPIN)
	}
	want(t, d.Probe(t.Context()), hsm.ErrPIN, hsm.ClassPIN)
	if logins != 2 {
		t.Fatalf("%d logins, want one at Open and one refused", logins)
	}
	if s := d.Status(); s.Healthy || s.LastErrorClass != hsm.ClassPIN {
		t.Fatalf("status hides it: %+v", s)
	}
}

func TestStatus(t *testing.T) {
	d, token := fresh(t)
	s := d.Status()
	if !s.Healthy || s.TokenLabel != token.Label || s.TokenSerial == "" || s.Manufacturer == "" || s.Model == "" {
		t.Errorf("status = %+v", s)
	}
	if s.SessionsMax != hsm.DefaultMaxSessions || s.SessionsInUse != 0 || s.Generation == 0 {
		t.Errorf("status = %+v", s)
	}
}

func TestOpenCreatesNothing(t *testing.T) {
	d, token := fresh(t)
	if err := d.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(newOutsider(t, token).find()); n != 0 {
		t.Fatalf("%d objects on a token that was only opened", n)
	}
}

func TestSeveralDevicesOnOneModule(t *testing.T) {
	token := softhsmtest.Token(t)
	softhsmtest.Another(t, token, "second")
	first := open(t, configFor(token))
	config := configFor(token)
	config.TokenLabel = "second"
	second := open(t, config)
	third := open(t, configFor(token)) // the same token once more
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*hsm.Device{first, second} {
		root, err := d.GenerateRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		unwraps(t, d, wrap(t, d, root, "x"), "x")
	}
}

func TestClosedDeviceRefuses(t *testing.T) {
	d, _, root := withRoot(t)
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.Wrap(t.Context(), root.ID, 1, []byte("x"), nil)
	want(t, err, hsm.ErrClosed, hsm.ClassCaller)
}

func TestEndedContext(t *testing.T) {
	d, _, root := withRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Wrap(ctx, root.ID, 1, []byte("x"), nil)
	want(t, err, context.Canceled, hsm.ClassCaller)
}

func TestInitTokenServesProvision(t *testing.T) {
	helper := softhsmtest.Token(t) // for its directory and the environment
	dir := filepath.Join(helper.Dir, "another")
	token, err := softhsm.Provision(t.Context(), dir, "made-in-process", hsm.InitToken)
	if err != nil {
		t.Fatal(err)
	}
	if d := open(t, configFor(token)); d.Status().TokenLabel != "made-in-process" {
		t.Fatalf("status = %+v", d.Status())
	}
	err = hsm.InitToken(t.Context(), token.Module, "more", "12345678", "12345678")
	if !errors.Is(err, hsm.ErrModuleInUse) {
		t.Fatalf("error = %v, want ErrModuleInUse", err)
	}
}

func TestInitTokenRefusesTakenLabel(t *testing.T) {
	token := softhsmtest.Token(t)
	err := hsm.InitToken(t.Context(), token.Module, token.Label, "12345678", "12345678")
	want(t, err, hsm.ErrTokenExists, hsm.ClassCaller)
	err = hsm.InitToken(t.Context(), token.Module, strings.Repeat("x", 33), "12345678", "12345678")
	want(t, err, hsm.ErrInvalidArgument, hsm.ClassCaller)
	err = hsm.InitToken(t.Context(), token.Module, "short", "1", "1")
	want(t, err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT), hsm.ClassPIN)
}
