package transit

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/keyring"
)

// newBackup makes a key with its versions from available to 3.
func newBackup(t testing.TB, s Settings, available uint32) *Backup {
	t.Helper()
	b := &Backup{Name: "key", Settings: s, Versions: map[uint32]BackupVersion{}, LatestVersion: 3, MinDecryptionVersion: max(available, 1), MinAvailableVersion: available,
		Exportable: true, PlaintextBackup: true, AutoRotatePeriod: time.Hour, Imported: true, AllowRotation: true, DeletionAllowed: true}
	for n := b.first(); n <= 3; n++ {
		b.Versions[n] = BackupVersion{newMaterial(t, s), time.Unix(1700000000+int64(n), 5).UTC()}
	}
	return b
}

func encodeJSON(t testing.TB, v any) string {
	t.Helper()
	return base64.StdEncoding.EncodeToString(must[[]byte](t)(json.Marshal(v)))
}

func TestBackupRoundTrips(t *testing.T) {
	for _, s := range usable() {
		for _, hashicorp := range []bool{false, true} {
			for _, available := range []uint32{0, 1, 2} {
				b := newBackup(t, s, available)
				b.HashiCorp = hashicorp
				text, err := b.Encode()
				if hashicorp && s.Type.name == "xchacha20-poly1305" {
					wantInput(t, "xchacha for Vault", err, "backup")
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if s.Type.name == "hmac" {
					b.Settings.KeySize = defaultHMACKey // which it says
				}
				if got, want := describe(must[*Backup](t)(ParseBackup(text))), describe(b); got != want {
					t.Errorf("%s from %d: read\n%s\ninstead of\n%s", s, available, got, want)
				}
			}
		}
	}
}

// What the archive holds does not count where the policy has the version.
func TestPolicyBeforeArchive(t *testing.T) {
	b := newBackup(t, Settings{Type: typeOf(t, "aes256-gcm96")}, 0)
	b.MinDecryptionVersion = 2
	d := readKeyData(t, must[string](t)(b.Encode()))
	d.Archive.Keys[3].Key = make([]byte, 5)
	again := must[*Backup](t)(ParseBackup(encodeJSON(t, d)))
	if describe(again) != describe(b) {
		t.Error("another key")
	}
	d.Archive = nil
	d.Policy.MinAvailableVersion = 2
	if again = must[*Backup](t)(ParseBackup(encodeJSON(t, d))); len(again.Versions) != 2 {
		t.Errorf("%d versions", len(again.Versions))
	}
}

// Backups that lack what newer transits write in them.
func TestOldBackups(t *testing.T) {
	s := Settings{Type: typeOf(t, "hmac"), KeySize: 64}
	d := readKeyData(t, must[string](t)(newBackup(t, s, 0).Encode()))
	d.Policy.SoftDeleted = nil
	for number, hashicorp := range map[int]bool{10: false, 11: true} {
		for _, size := range []int{0, 64} {
			d.Policy.Type, d.Policy.KeySize = number, size
			b, err := ParseBackup(encodeJSON(t, d))
			if err != nil || b.Settings != s || b.HashiCorp != hashicorp {
				t.Errorf("hmac as %d: %+v, %v", number, b, err)
			}
		}
	}
	if aes := typeOf(t, "xchacha20-poly1305"); (Settings{Type: aes}).usable() == nil {
		d = readKeyData(t, must[string](t)(newBackup(t, Settings{Type: aes}, 0).Encode()))
		d.Policy.SoftDeleted = nil
		if b, err := ParseBackup(encodeJSON(t, d)); err != nil || b.Settings.Type != aes || b.HashiCorp {
			t.Errorf("xchacha: %+v, %v", b, err)
		}
	}
}

func TestOldVersionsInBackups(t *testing.T) {
	d := readKeyData(t, must[string](t)(newBackup(t, Settings{Type: typeOf(t, "aes256-gcm96")}, 0).Encode()))
	e := d.Policy.Keys["2"]
	e.HMACKey, e.Time, e.CreationTime = nil, time.Time{}, 1600000000
	d.Policy.Keys["2"] = e
	d.Policy.MinDecryptionVersion = 0
	b := must[*Backup](t)(ParseBackup(encodeJSON(t, d)))
	if got := b.Versions[2].Created; !got.Equal(time.Unix(1600000000, 0)) || b.MinDecryptionVersion != 1 {
		t.Errorf("created %s, from %d on", got, b.MinDecryptionVersion)
	}
	v := must[*Version](t)(NewVersion(b.Settings, 2, b.Versions[2].Material))
	_, err := v.HMAC(nil, nil, "")
	wantInput(t, "hmac", err, "key_version")
}

// refusals are backups that were good, and what is wrong with them, with a word of the
// message.
var refusals = []struct {
	typ, word string
	spoil     func(d *keyData)
}{
	{"aes256-gcm96", "soft-deleted", func(d *keyData) { *d.Policy.SoftDeleted = true }},
	{"aes256-gcm96", "version_template", func(d *keyData) { d.Policy.VersionTemplate = "v{{version}}-" }},
	{"aes256-gcm96", "no versions", func(d *keyData) { d.Policy.OldKey = make([]byte, 32) }},
	{"aes256-gcm96", "no versions", func(d *keyData) { d.Policy.LatestVersion = 0 }},
	{"aes256-gcm96", "order", func(d *keyData) { d.Policy.MinDecryptionVersion = 4 }},
	{"aes256-gcm96", "order", func(d *keyData) { d.Policy.MinEncryptionVersion = 4 }},
	{"aes256-gcm96", "order", func(d *keyData) { d.Policy.MinAvailableVersion = 2 }},
	{"aes256-gcm96", "order", func(d *keyData) { d.Policy.MinDecryptionVersion, d.Policy.MinEncryptionVersion = 3, 2 }},
	{"aes256-gcm96", "lacks version 4", func(d *keyData) { d.Policy.LatestVersion = 4 }},
	{"aes256-gcm96", "lacks version 1", func(d *keyData) { delete(d.Policy.Keys, "1"); d.Archive = nil }},
	{"aes256-gcm96", "lacks version 2", func(d *keyData) { delete(d.Policy.Keys, "2"); d.Archive.Keys = d.Archive.Keys[:2] }},
	{"aes256-gcm96", "lacks version 1", func(d *keyData) { delete(d.Policy.Keys, "1"); d.Policy.ArchiveMinVersion = 2 }},
	{"aes256-gcm96", "auto_rotate_period", func(d *keyData) { d.Policy.AutoRotatePeriod = -1 }},
	{"aes256-gcm96", "aes128-cmac", func(d *keyData) { d.Policy.Type = 12 }},
	{"aes256-gcm96", "external-key", func(d *keyData) { d.Policy.Type = 10000 }},
	{"aes256-gcm96", "number -1", func(d *keyData) { d.Policy.Type = -1; d.Policy.ParameterSet = new(string) }},
	{"aes256-gcm96", "managed_key", func(d *keyData) { d.Policy.Type = 10; d.Policy.ParameterSet = new(string) }},
	{"aes256-gcm96", "together", func(d *keyData) { d.Policy.Convergent = true }},
	{"aes256-gcm96", "kdf 2", func(d *keyData) { d.Policy.Derived, d.Policy.KDF = true, 2 }},
	{"aes256-gcm96", "version 2", version("2", func(e *keyEntry) { e.Key = e.Key[:16] })},
	{"aes256-gcm96", "version 2", version("2", func(e *keyEntry) { e.Key = nil })},
	{"aes256-gcm96", "certificate chain", version("2", func(e *keyEntry) { e.CertificateChain = [][]byte{{1}} })},
	{"aes256-gcm96", "HMAC key", version("2", func(e *keyEntry) { e.HMACKey = make([]byte, 513) })},
	{"aes128-gcm96", "never worked", func(d *keyData) { d.Policy.Derived = true }},
	{"ed25519", "never worked", func(d *keyData) { d.Policy.Derived = true }},
	{"ed25519", "no private key", version("2", func(e *keyEntry) { e.Key = nil })},
	{"ed25519", "64 bytes", version("2", func(e *keyEntry) { e.Key = e.Key[:32] })},
	{"ed25519", "not the private key's", version("2", func(e *keyEntry) { e.Key[40] ^= 1 })},
	{"ecdsa-p256", "no private key", version("2", func(e *keyEntry) { e.D = nil })},
	{"ecdsa-p256", "no scalar", version("2", func(e *keyEntry) { e.D = positive(make([]byte, 32)) })},
	{"ecdsa-p256", "no scalar", version("2", func(e *keyEntry) { e.D = &integer{*new(big.Int).Lsh(big.NewInt(1), 256)} })},
	{"ecdsa-p256", "not the private key's", version("2", func(e *keyEntry) { e.D = positive([]byte{1}) })},
	{"ecdsa-p256", "not the private key's", version("2", func(e *keyEntry) { e.X, e.Y = e.Y, e.X })},
	{"ecdsa-p256", "not the private key's", version("2", func(e *keyEntry) { e.X = nil })},
	{"ecdsa-p256", "no scalar", func(d *keyData) { d.Policy.Type = 6; d.Policy.Keys["1"] = keyEntry{D: positive(make([]byte, 1))} }},
	{"rsa-2048", "no private key", version("2", func(e *keyEntry) { e.RSA = nil })},
	{"rsa-2048", "two primes", version("2", func(e *keyEntry) { e.RSA.Primes = e.RSA.Primes[:1] })},
	{"rsa-2048", "not whole", version("2", func(e *keyEntry) { e.RSA.Primes[1] = nil })},
	{"rsa-2048", "not whole", version("2", func(e *keyEntry) { e.RSA.N = nil })},
	{"rsa-2048", "not consistent", version("2", func(e *keyEntry) { e.RSA.D = positive([]byte{3}) })},
	{"rsa-2048", "not consistent", version("2", func(e *keyEntry) { e.RSA.E = 3 })},
	{"rsa-2048", "bits", func(d *keyData) { d.Policy.Type = 9 }},
}

// version spoils a version in the policy.
func version(n string, spoil func(e *keyEntry)) func(d *keyData) {
	return func(d *keyData) {
		e := d.Policy.Keys[n]
		spoil(&e)
		d.Policy.Keys[n] = e
	}
}

func TestRefusedBackups(t *testing.T) {
	good := map[string]string{}
	for _, x := range refusals {
		if good[x.typ] == "" {
			good[x.typ] = must[string](t)(newBackup(t, Settings{Type: typeOf(t, x.typ)}, 0).Encode())
		}
		d := readKeyData(t, good[x.typ])
		x.spoil(d)
		_, err := ParseBackup(encodeJSON(t, d))
		wantInput(t, x.typ+": "+x.word, err, "backup")
		if err != nil && !strings.Contains(err.Error(), x.word) {
			t.Errorf("%s: %q is not in %v", x.typ, x.word, err)
		}
	}
}

func TestTextsThatAreNoBackups(t *testing.T) {
	for what, text := range map[string]string{
		"nothing": "", "no base64": "!", "no JSON": "YQ==", "null": base64.StdEncoding.EncodeToString([]byte("null")),
		"no policy":          base64.StdEncoding.EncodeToString([]byte(`{"archived_keys":{"keys":[]}}`)),
		"two":                base64.StdEncoding.EncodeToString([]byte(`{"policy":{"latest_version":1}} {}`)),
		"a negative version": base64.StdEncoding.EncodeToString([]byte(`{"policy":{"latest_version":-1}}`)),
		"a huge number":      base64.StdEncoding.EncodeToString([]byte(`{"policy":{"latest_version":1,"keys":{"1":{"ec_d":` + strings.Repeat("9", maxDigits+1) + `}}}}`)),
		"a negative number":  base64.StdEncoding.EncodeToString([]byte(`{"policy":{"latest_version":1,"keys":{"1":{"ec_d":-5}}}}`)),
		"a text":             base64.StdEncoding.EncodeToString([]byte(`{"policy":{"latest_version":1,"keys":{"1":{"ec_d":"5"}}}}`)),
		"too much":           strings.Repeat("A", MaxBackup+1),
	} {
		_, err := ParseBackup(text)
		wantInput(t, what, err, "backup")
	}
}

func TestConvergentVersionsInBackups(t *testing.T) {
	s := Settings{Type: typeOf(t, "aes256-gcm96"), Derived: true, Convergent: true}
	if s.usable() != nil {
		t.Skip("FIPS mode has no convergent keys")
	}
	good := must[string](t)(newBackup(t, s, 0).Encode())
	for _, x := range []struct {
		entry, policy int
		want          scheme
	}{{3, -1, 3}, {3, 1, 3}, {0, 2, 2}, {0, 1, 1}, {0, 0, 1}, {2, -1, 2}, {0, -1, 0}, {4, -1, 0}, {-1, 1, 0}, {0, 4, 0}} {
		d := readKeyData(t, good)
		version("2", func(e *keyEntry) { e.ConvergentVersion = x.entry })(d)
		d.Policy.ConvergentVersion = x.policy
		b, err := ParseBackup(encodeJSON(t, d))
		if x.want == 0 {
			wantInput(t, fmt.Sprintf("%+v", x), err, "backup")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if o := must[secret](t)(s.open(b.Versions[2].Material)); o.scheme != x.want {
			t.Errorf("%+v: scheme %d", x, o.scheme)
		}
	}
}

// Transit cannot hold what an old key becomes here by its rotation.
func TestBackupsThatCannotBe(t *testing.T) {
	derived := Settings{Type: typeOf(t, "aes256-gcm96"), Derived: true}
	b := newBackup(t, derived, 0)
	b.Versions[1] = BackupVersion{Material: secret{kdf: counterMode, key: make([]byte, 32), hmacKey: make([]byte, 32)}.encode()}
	_, err := b.Encode()
	wantInput(t, "two derivations", err, "backup")

	delete(b.Versions, 1)
	_, err = b.Encode()
	wantInput(t, "a version less", err, "backup")

	b.MinAvailableVersion = 2
	_, err = b.Encode()
	wantInput(t, "out of order", err, "backup")
}

// Encoding leaves the caller's material alone.
func TestEncodeTwice(t *testing.T) {
	for _, s := range usable() {
		b := newBackup(t, s, 0)
		if first, second := must[string](t)(b.Encode()), must[string](t)(b.Encode()); first != second {
			t.Errorf("%s: twice differs", s)
		}
	}
}

func TestReadOutline(t *testing.T) {
	eachGolden(t, func(t *testing.T, c goldenCase, b *Backup) {
		o := must[*Outline](t)(ReadOutline(c.Backup))
		defer o.Wipe()
		if o.Versions != len(b.Versions) || o.Name != b.Name || o.Settings != b.Settings || o.Exportable != b.Exportable {
			t.Errorf("outlined %+v, of %d versions", o, len(b.Versions))
		}
	})
	for _, text := range []string{"", "!", "e30=", "W10="} {
		_, err := ReadOutline(text)
		var e *keyring.InputError
		if !errors.As(err, &e) || e.Field != "backup" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
