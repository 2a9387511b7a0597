package hsm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/miekg/pkcs11"

	"github.com/keywright/keywright/hsm"
)

const nssLabel, nssPIN = "NSS Certificate DB", "nss-test-pin"

// nss is the configuration of a device on NSS's softokn, with a fresh database. A
// module has one database as long as it is open, so close the test's devices.
func nss(t testing.TB) hsm.Config {
	t.Helper()
	dir := t.TempDir()
	arguments := fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=", dir)
	module := nssModule(t)
	setNSSPIN(t, module, arguments)
	return hsm.Config{Module: module, InitArgs: arguments, TokenLabel: nssLabel,
		PIN: func() (hsm.PIN, error) { return hsm.NewPIN([]byte(nssPIN)), nil }}
}

// nssModule finds softokn; without it the test fails where CI is set, and is
// skipped elsewhere.
func nssModule(t testing.TB) string {
	t.Helper()
	places := []string{os.Getenv("NSS_SOFTOKN"), "/usr/lib/*-linux-*/libsoftokn3.so", "/usr/lib/*-linux-*/nss/libsoftokn3.so",
		"/usr/lib64/libsoftokn3.so", "/usr/lib/libsoftokn3.so", "/opt/homebrew/lib/libsoftokn3.dylib"}
	for _, place := range places {
		if found, _ := filepath.Glob(place); len(found) > 0 {
			return found[0]
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatal("NSS softokn is missing: apt-get install libnss3, or set NSS_SOFTOKN to the path of libsoftokn3.so")
	}
	t.Skip("NSS softokn is missing")
	return ""
}

// setNSSPIN gives a new database its PIN, as `certutil -N` does.
func setNSSPIN(t testing.TB, module, arguments string) {
	t.Helper()
	p11 := pkcs11.New(module)
	o := &outsider{TB: t}
	text := append([]byte(arguments), 0)
	o.must(p11.Initialize(pkcs11.InitializeWithReserved(unsafe.Pointer(&text[0]))))
	defer func() { o.must(p11.Finalize()) }()
	slots, err := p11.GetSlotList(true)
	o.must(err)
	for _, slot := range slots {
		info, err := p11.GetTokenInfo(slot)
		o.must(err)
		if info.Label != nssLabel {
			continue
		}
		session, err := p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		o.must(err)
		o.must(p11.Login(session, pkcs11.CKU_SO, ""))
		o.must(p11.InitPIN(session, nssPIN))
		o.must(p11.CloseSession(session))
		return
	}
	t.Fatalf("softokn has no slot %q", nssLabel)
}

func TestModuleTakesInitArgs(t *testing.T) {
	config := nss(t)
	d := open(t, config)
	signer, err := d.GenerateSigner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sign(t.Context(), signer.ID, []byte("message")); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, config) // the same database
	if _, err := again.FindSigner(t.Context(), signer.ID); err != nil {
		t.Fatal(err)
	}
	other := config
	other.InitArgs = "configdir='sql:/elsewhere'"
	_, err = hsm.Open(t.Context(), other)
	want(t, err, hsm.ErrModuleInUse, hsm.ClassCaller)
}

func TestInitArgsAreBounded(t *testing.T) {
	for _, bad := range []string{"a\x00b", strings.Repeat("x", hsm.MaxInitArgs+1)} {
		_, err := hsm.Open(t.Context(), hsm.Config{Module: "m", TokenLabel: "t", InitArgs: bad})
		want(t, err, hsm.ErrConfig, hsm.ClassCaller)
	}
}

// Both tokens of softokn have the serial 0.
func TestTokensOfOneSerial(t *testing.T) {
	config := nss(t)
	config.TokenSerial = "0000000000000000"
	if got := open(t, config).Status().TokenLabel; got != nssLabel {
		t.Errorf("opened %q, want %q", got, nssLabel)
	}
	config.TokenLabel = ""
	_, err := hsm.Open(t.Context(), config)
	want(t, err, hsm.ErrAmbiguousToken, hsm.ClassCaller)
}

// What softokn 3.87 cannot do is known, and no more than that is missing.
func TestNSSSuite(t *testing.T) {
	for _, line := range runSuite(t, nss(t)) {
		known := strings.HasPrefix(line, "ED25519: ") || strings.HasPrefix(line, "X25519: ") || strings.HasPrefix(line, "say where ")
		if !known {
			t.Errorf("softokn can do more: %s", line)
		}
	}
}
