package hsm_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/softhsm/softhsmtest"
)

// probed runs a quick self-test.
func probed(t *testing.T, config hsm.Config, options hsm.SelfTestOptions) hsm.TestReport {
	t.Helper()
	options.Quick = true
	report, err := hsm.SelfTest(t.Context(), config, options)
	if err != nil {
		t.Fatal(err)
	}
	knownAsProfiled(t, report)
	return report
}

// knownAsProfiled fails where the profile says that something was tested here, and
// the token does otherwise.
func knownAsProfiled(t *testing.T, r hsm.TestReport) {
	t.Helper()
	p, f := r.Kind(), r.Found
	if f.GCM != nil && p.GCMIV.TestedHere() && f.GCM.IV != string(p.GCMIV.Is) {
		t.Errorf("profile %s: gcm_iv is %s, and %s on the token", p.Name, p.GCMIV.Is, f.GCM.IV)
	}
	if f.KeyWrap != nil && p.ValueLen.TestedHere() && f.KeyWrap.ValueLen != string(p.ValueLen.Is) {
		t.Errorf("profile %s: value_len is %s, and %s on the token", p.Name, p.ValueLen.Is, f.KeyWrap.ValueLen)
	}
	if p.OAEPHashes.TestedHere() && !slices.Equal(f.OAEPHashes, p.OAEPHashes.Is) {
		t.Errorf("profile %s: oaep_hashes is %v, and %v on the token", p.Name, p.OAEPHashes.Is, f.OAEPHashes)
	}
	if !f.Random.Yes {
		t.Errorf("random numbers: %s", f.Random.Detail)
	}
}

// works tells whether the token does an algorithm.
func (r reported) works(name string) bool { return slices.Contains(r.Use.Keys, name) }

type reported struct{ hsm.TestReport }

func TestSelfTestOfSoftHSM(t *testing.T) {
	token := softhsmtest.Token(t)
	r := probed(t, configFor(token), hsm.SelfTestOptions{})
	if r.Profile != "softhsm2" || r.Token.Label != token.Label || r.Library.Manufacturer != "SoftHSM" {
		t.Errorf("recognised as %s: %+v, %+v", r.Profile, r.Library, r.Token)
	}
	if r.Use.RootWrap != "aes-gcm" || r.Use.Signer != "ED25519" {
		t.Errorf("use %+v", r.Use)
	}
	for name, want := range map[string]bool{"AES_256_GCM": true, "X25519": true, "RSA_PSS_2048_SHA512": true, "RSA_OAEP_2048_SHA256": false, "RSA_PSS_4096_SHA256": false} {
		if (reported{r}).works(name) != want {
			t.Errorf("%s: works is not %v", name, want)
		}
	}
	f := r.Found
	if !strings.Contains(f.GCM.MissingIV, "constant") || f.GCM.BadTag != "CKR_GENERAL_ERROR" || !f.GCM.AskSize.Yes {
		t.Errorf("AES-GCM: %+v", f.GCM)
	}
	if f.KeyWrap.Encrypt.Yes || !f.KeyWrap.Wrap.Yes {
		t.Errorf("AES-KW: %+v", f.KeyWrap)
	}
	if !f.SessionObjects.Yes || !f.DuplicateIDs.Yes || !f.Origin.Local || !f.Origin.NeverExtractable || !f.Origin.AlwaysSensitive {
		t.Errorf("objects: %+v", f)
	}
	if f.Sessions.Opened != 64 || f.Sessions.Detail != "" {
		t.Errorf("sessions: %+v", f.Sessions)
	}
	nothingLeft(t, token.Module, configFor(token))
}

func TestSelfTestOfNSS(t *testing.T) {
	r := probed(t, nss(t), hsm.SelfTestOptions{})
	if r.Profile != "nss" || r.Use.RootWrap != "aes-gcm" || r.Use.Signer != "ECDSA_P256_SHA256" {
		t.Errorf("%s, use %+v", r.Profile, r.Use)
	}
	if !(reported{r}).works("AES_256_GCM") || !(reported{r}).works("RSA_OAEP_2048_SHA256") || (reported{r}).works("ED25519") {
		t.Errorf("keys %v", r.Use.Keys)
	}
	f := r.Found
	if f.GCM.AskSize.Yes || !strings.HasPrefix(f.GCM.MissingIV, "refused") || f.GCM.BadTag != "CKR_ENCRYPTED_DATA_INVALID" {
		t.Errorf("AES-GCM: %+v", f.GCM)
	}
	if !f.KeyWrap.Encrypt.Yes || !f.KeyWrap.Wrap.Yes {
		t.Errorf("AES-KW: %+v", f.KeyWrap)
	}
}

func TestSelfTestWithTokenObjects(t *testing.T) {
	token := softhsmtest.Token(t)
	var heard []string
	r := probed(t, configFor(token), hsm.SelfTestOptions{TokenObjects: true, Progress: func(what string) { heard = append(heard, what) }})
	if r.Found.SessionObjects.Yes || r.Use.RootWrap != "aes-gcm" || !slices.Contains(heard, "AES_256_GCM") {
		t.Errorf("use %+v after %v", r.Use, heard)
	}
	nothingLeft(t, token.Module, configFor(token))
}

// nothingLeft makes sure that a test removed what it made.
func nothingLeft(t *testing.T, module string, config hsm.Config) {
	t.Helper()
	d := open(t, config)
	ids, err := d.ListKeys(t.Context())
	if err != nil || len(ids) > 0 {
		t.Errorf("%s: keys left: %v, %v", module, ids, err)
	}
}

func TestSelfTestRefuses(t *testing.T) {
	token := softhsmtest.Token(t)
	good, logins := configFor(token), 0
	wrong := good
	wrong.PIN = countedPIN("not-the-pin", &logins)
	_, err := hsm.SelfTest(t.Context(), wrong, hsm.SelfTestOptions{})
	want(t, err, hsm.ErrPIN, hsm.ClassPIN)
	if logins != 1 {
		t.Errorf("the PIN was tried %d times", logins)
	}
	missing := good
	missing.Module = filepath.Join(t.TempDir(), "absent.so")
	_, err = hsm.SelfTest(t.Context(), missing, hsm.SelfTestOptions{})
	want(t, err, hsm.ErrModule, hsm.ClassCaller)
	other := good
	other.TokenLabel = "absent"
	_, err = hsm.SelfTest(t.Context(), other, hsm.SelfTestOptions{})
	want(t, err, hsm.ErrTokenNotFound, hsm.ClassCaller)
	softhsmtest.Another(t, token, token.Label)
	_, err = hsm.SelfTest(t.Context(), good, hsm.SelfTestOptions{})
	want(t, err, hsm.ErrAmbiguousToken, hsm.ClassCaller)
	open(t, hsm.Config{Module: token.Module, TokenSerial: serialOf(t, token.Module), PIN: good.PIN}) // the module is let go
}

func serialOf(t *testing.T, module string) string {
	t.Helper()
	tokens, err := hsm.ListTokens(t.Context(), module)
	if err != nil || len(tokens) == 0 {
		t.Fatal(tokens, err)
	}
	return tokens[0].Serial
}
