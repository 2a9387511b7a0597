package hsm

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const profileText = `
- name: a
  title: A
  match: [{module: "lib*.so", token_model: M}]
  root_wrap: {is: [aes-gcm, rsa-oaep], from: tested here}
  gcm_iv: {is: ours, from: somewhere}
  value_len: {is: any, from: somewhere}
  uses: {is: explicit, from: somewhere}
  ecdsa: {is: raw, from: somewhere}
  oaep_hashes: {is: [SHA1], from: somewhere}
  pin: {is: digits, from: somewhere}
  max_sessions: {is: 7, from: somewhere}
  init_args: {is: none, from: somewhere}
  changes: {is: beside, from: somewhere}
  notes: [{is: odd, from: somewhere}]
- name: default
  title: D
  match: [{}]
  root_wrap: {is: [], from: f}
  gcm_iv: {is: none, from: f}
  value_len: {is: any, from: f}
  uses: {is: implied, from: f}
  ecdsa: {is: der, from: f}
  oaep_hashes: {is: [], from: f}
  pin: {is: p, from: f}
  max_sessions: {is: 0, from: f}
  init_args: {is: optional, from: f}
  changes: {is: alone, from: f}
  notes: []
`

func TestParseProfiles(t *testing.T) {
	all, err := parseProfiles([]byte(profileText))
	if err != nil {
		t.Fatal(err)
	}
	a := all[0]
	if !slices.Equal(a.RootWrap.Is, []Mechanism{MechanismAESGCM, MechanismRSAOAEP}) || a.MaxSessions.Is != 7 ||
		a.Notes[0].Is != "odd" || !a.RootWrap.TestedHere() || a.GCMIV.TestedHere() {
		t.Errorf("profile = %+v", a)
	}
}

func TestParseProfilesRefuses(t *testing.T) {
	cases := map[string]struct{ old, new string }{
		"no YAML":          {profileText, "\t"},
		"empty":            {profileText, ""},
		"unknown field":    {"  title: A", "  title: A\n  colour: red"},
		"unknown in fact":  {"{is: any, from: somewhere}", "{is: any, from: somewhere, by: me}"},
		"no source":        {"{is: digits, from: somewhere}", "{is: digits}"},
		"no note's source": {"notes: [{is: odd, from: somewhere}]", "notes: [{is: odd}]"},
		"no value":         {"{is: digits, from: somewhere}", "{from: somewhere}"},
		"missing fact":     {"  ecdsa: {is: raw, from: somewhere}\n", ""},
		"no match":         {`match: [{module: "lib*.so", token_model: M}]`, "match: []"},
		"bad pattern":      {"lib*.so", "lib[.so"},
		"no name":          {"- name: a", "- name: ''"},
		"same name":        {"- name: a", "- name: default"},
		"mechanism":        {"[aes-gcm, rsa-oaep]", "[aes-cbc]"},
		"mechanism twice?": {"[SHA1]", "[SHA1, SHA1]"},
		"hash":             {"[SHA1]", "[MD5]"},
		"IV":               {"gcm_iv: {is: ours", "gcm_iv: {is: theirs"},
		"need":             {"value_len: {is: any", "value_len: {is: none"},
		"arguments":        {"init_args: {is: none", "init_args: {is: any"},
		"changes":          {"changes: {is: beside", "changes: {is: now"},
		"uses":             {"uses: {is: explicit", "uses: {is: some"},
		"signatures":       {"ecdsa: {is: raw", "ecdsa: {is: cooked"},
		"sessions":         {"{is: 7,", "{is: -7,"},
		"kind":             {"{is: 7,", "{is: seven,"},
		"no default":       {"match: [{}]", "match: [{module: x}]"},
		"two documents":    {"- name: default", "---\n- name: default"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(profileText, c.old, c.new, 1)
			if text == profileText {
				t.Fatal("the case changes nothing")
			}
			if _, err := parseProfiles([]byte(text)); !errors.Is(err, errProfiles) {
				t.Errorf("error = %v, want errProfiles", err)
			}
		})
	}
}

func TestRecognise(t *testing.T) {
	soft := TokenInfo{Manufacturer: "SoftHSM project", Model: "SoftHSM v2"}
	cases := []struct {
		module  string
		library LibraryInfo
		token   TokenInfo
		want    string
	}{
		{"/usr/lib/softhsm/libsofthsm2.so", LibraryInfo{Manufacturer: "SoftHSM"}, soft, "softhsm2"},
		{"/usr/lib/pkcs11/p11-kit-client.so", LibraryInfo{Manufacturer: "PKCS#11 Kit"}, soft, "softhsm2"},
		{"/usr/lib/libsoftokn3.so", LibraryInfo{Manufacturer: "Mozilla Foundation"}, TokenInfo{Manufacturer: "Mozilla Foundation", Model: "NSS 3"}, "nss"},
		{"/usr/lib/pkcs11/libopencryptoki.so", LibraryInfo{Manufacturer: "IBM"}, TokenInfo{Manufacturer: "IBM Corp.", Model: "IBM SoftTok"}, "opencryptoki"},
		{"/usr/lib/pkcs11/libtpm2_pkcs11.so", LibraryInfo{Manufacturer: "tpm2-software.github.io"}, TokenInfo{Manufacturer: "IBM", Model: "SW   TPM"}, "tpm2-pkcs11"},
		{"/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", LibraryInfo{}, TokenInfo{}, "aws-cloudhsm"},
		{"/usr/safenet/lunaclient/lib/libCryptoki2_64.so", LibraryInfo{}, TokenInfo{}, "luna"},
		{"/opt/nfast/toolkits/pkcs11/libcknfast.so", LibraryInfo{}, TokenInfo{}, "nshield"},
		{"/usr/lib/pkcs11/yubihsm_pkcs11.so", LibraryInfo{Manufacturer: "Yubico (www.yubico.com)"}, TokenInfo{}, "yubihsm2"},
		{"/usr/lib/libcs_pkcs11_R3.so", LibraryInfo{}, TokenInfo{}, "utimaco"},
		{"/opt/libkmsp11.so", LibraryInfo{Manufacturer: "Google"}, TokenInfo{}, "kmsp11"},
		{"/opt/vendor.so", LibraryInfo{Manufacturer: "IBM"}, TokenInfo{Manufacturer: "Vendor"}, "default"},
	}
	for _, c := range cases {
		if got := recognise(c.module, c.library, c.token); got.Name != c.want {
			t.Errorf("%s of %q is %q, want %q", c.module, c.token.Manufacturer, got.Name, c.want)
		}
	}
}

// Every vendor of the house's list has a profile.
func TestProfiles(t *testing.T) {
	var names []string
	for _, p := range Profiles() {
		names = append(names, p.Name)
	}
	want := []string{"softhsm2", "nss", "opencryptoki", "tpm2-pkcs11", "aws-cloudhsm", "luna", "nshield", "yubihsm2", "utimaco", "kmsp11", "default"}
	if !slices.Equal(names, want) {
		t.Errorf("profiles %v, want %v", names, want)
	}
}
