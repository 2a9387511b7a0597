package transit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/keywright/keywright/keyring"
)

// Backup is a key with all its versions, as transit's backup carries it.
type Backup struct {
	Name     string
	Settings Settings
	Versions map[uint32]BackupVersion // from MinAvailableVersion (or 1) to LatestVersion

	LatestVersion                                                         uint32
	MinDecryptionVersion, MinEncryptionVersion, MinAvailableVersion       uint32
	DeletionAllowed, Exportable, PlaintextBackup, Imported, AllowRotation bool
	AutoRotatePeriod                                                      time.Duration
	// HashiCorp says that Vault made it, not OpenBao: types' numbers differ.
	HashiCorp bool
}

// BackupVersion is one version of a Backup. Its material is for NewVersion; it is the
// caller's to wipe.
type BackupVersion struct {
	Material keyring.Material
	Created  time.Time
}

// MaxBackup is the longest backup that is read, in bytes.
const MaxBackup = 32 << 20

// Outline is what a backup says of its key beside the keys themselves, which take time to
// check. It holds them in plaintext until it is wiped.
type Outline struct {
	Name                                                 string
	Settings                                             Settings
	Versions                                             int // how many
	Exportable, PlaintextBackup, Imported, AllowRotation bool
	AutoRotatePeriod                                     time.Duration

	parse func() (*Backup, error)
	wipe  func()
}

// ReadOutline reads the base64 text of a backup, or the JSON of an export of encryption or
// signing keys, which has no HMAC keys, dates and settings, and to which "derived" and
// "convergent_encryption" are to be added where they are true. Unknown fields are ignored.
// What transit could hold but this package cannot serve is refused and named.
// Errors: *keyring.InputError for field "backup"; keyring.ErrNotFIPS.
func ReadOutline(text string) (*Outline, error) {
	if isExport(text) {
		e, err := decodeExport(text)
		if err != nil {
			return nil, err
		}
		return e.outline()
	}
	data := new(keyData)
	o, err := data.outline(text)
	if err != nil {
		data.wipe()
	}
	return o, err
}

// Backup reads the keys too. Each is checked: its size, that its parts belong together, and
// that no version is missing. The result is the caller's to wipe. Errors: as ReadOutline.
func (o *Outline) Backup() (*Backup, error) { return o.parse() }

// Wipe wipes the keys that the outline holds.
func (o *Outline) Wipe() { o.wipe() }

// ParseBackup is ReadOutline and Backup in one.
func ParseBackup(text string) (*Backup, error) {
	o, err := ReadOutline(text)
	if err != nil {
		return nil, err
	}
	defer o.Wipe()
	return o.Backup()
}

func (d *keyData) outline(text string) (*Outline, error) {
	if err := decodeBackup(text, d); err != nil {
		return nil, err
	}
	p := d.Policy
	if p == nil {
		return nil, errNoBackup()
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	s, _, err := d.settings()
	if err != nil {
		return nil, err
	}
	return &Outline{Name: p.Name, Settings: s, Versions: int(p.LatestVersion-max(p.MinAvailableVersion, 1)) + 1,
		Exportable: p.Exportable, PlaintextBackup: p.PlaintextBackup, Imported: p.Imported, AllowRotation: p.AllowRotation,
		AutoRotatePeriod: p.AutoRotatePeriod, parse: d.parse, wipe: d.wipe}, nil
}

// decodeBackup reads the JSON of a backup.
func decodeBackup(text string, into any) error {
	if len(text) > MaxBackup {
		return refuseBackup("has %d bytes, at most %d are read; trim the key's oldest versions first", len(text), MaxBackup)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return refuseBackup("is not base64; send it as transit's backup returned it")
	}
	defer clear(raw)
	if json.Unmarshal(raw, into) != nil {
		return errNoBackup()
	}
	return nil
}

func errNoBackup() error {
	return refuseBackup("is not a backup of a transit key; send it as transit's backup returned it")
}

func refuseBackup(format string, args ...any) error { return input("backup", format, args...) }

// Wipe wipes the material of all versions.
func (b *Backup) Wipe() {
	for _, v := range b.Versions {
		v.Material.Wipe()
	}
}

// first is the first version that is there.
func (b *Backup) first() uint32 { return max(b.MinAvailableVersion, 1) }

// parse makes a Backup of what was checked.
func (d *keyData) parse() (_ *Backup, err error) {
	p := d.Policy
	b := &Backup{
		Name: p.Name, Versions: map[uint32]BackupVersion{},
		LatestVersion: p.LatestVersion, MinDecryptionVersion: max(p.MinDecryptionVersion, 1),
		MinEncryptionVersion: p.MinEncryptionVersion, MinAvailableVersion: p.MinAvailableVersion,
		DeletionAllowed: p.DeletionAllowed, Exportable: p.Exportable, PlaintextBackup: p.PlaintextBackup,
		Imported: p.Imported, AllowRotation: p.AllowRotation, AutoRotatePeriod: p.AutoRotatePeriod,
	}
	defer func() {
		if err != nil {
			b.Wipe()
		}
	}()
	if b.Settings, b.HashiCorp, err = d.settings(); err != nil {
		return nil, err
	}
	for n := b.first(); ; n++ {
		if err := d.parseVersion(b, n); err != nil {
			return nil, err
		}
		if n == b.LatestVersion {
			return b, nil
		}
	}
}

// parseVersion adds version n, and checks that it is ready for use.
func (d *keyData) parseVersion(b *Backup, n uint32) error {
	e, ok := d.entry(n)
	if !ok {
		return refuseBackup("lacks version %d of %d to %d; back the key up again", n, b.first(), b.LatestVersion)
	}
	o, err := d.secret(b.Settings, e)
	if err != nil {
		return versionError(n, err)
	}
	defer clear(o.key)
	m := o.encode()
	b.Versions[n] = BackupVersion{m, e.created()}
	_, err = NewVersion(b.Settings, n, m)
	return versionError(n, err)
}

// versionError names the version that cannot be taken.
func versionError(n uint32, err error) error {
	if err == nil || errors.Is(err, keyring.ErrNotFIPS) {
		return err
	}
	return refuseBackup("has a version %d that cannot be taken: %v", n, err)
}

// settings are the key's, and tell whether Vault made it.
func (d *keyData) settings() (s Settings, hashicorp bool, err error) {
	p := d.Policy
	if s.Type, hashicorp, err = d.keyType(); err != nil {
		return s, false, err
	}
	s.Derived, s.Convergent = p.Derived, p.Convergent
	if s.Type.name == "hmac" {
		if s.KeySize = p.KeySize; s.KeySize == 0 { // imported
			latest, _ := d.entry(p.LatestVersion)
			s.KeySize = len(latest.Key)
		}
	}
	if err := s.Check(); err != nil {
		return s, false, refuseBackup("has a key of settings that do not fit together: %v", err)
	}
	return s, hashicorp, s.usable()
}

// keyType finds the type by its number, of which two mean one thing in Vault and another
// in OpenBao.
func (d *keyData) keyType() (t *Type, hashicorp bool, err error) {
	p := d.Policy
	hashicorp = p.ParameterSet != nil || p.HybridConfig != nil
	if p.Type == vaultHMAC && !hashicorp && p.SoftDeleted == nil {
		latest, _ := d.entry(p.LatestVersion)
		hashicorp = p.KeySize != 0 || string(latest.Key) == string(latest.HMACKey)
	}
	for _, t := range table {
		if n := t.number(hashicorp); n == p.Type && n != none {
			return t, hashicorp, nil
		}
	}
	name, ok := unserved[p.Type]
	if !ok {
		name = "number " + strconv.Itoa(p.Type)
	}
	return nil, false, refuseBackup("has a key of type %s, which is not served; types are %v", name, table)
}

func (t *Type) number(hashicorp bool) int {
	if hashicorp {
		return t.hashicorp
	}
	return t.openbao
}

const vaultHMAC = 11 // OpenBao's xchacha20-poly1305

// unserved are the types of Vault and OpenBao, by number, that are not served.
var unserved = map[int]string{
	10: "managed_key", 12: "aes128-cmac", 13: "aes256-cmac", 14: "ml-dsa", 15: "hybrid", 16: "aes192-cmac",
	17: "slh-dsa", 18: "aes128-cbc", 19: "aes256-cbc", 10000: "external-key",
}

// secret reads a version. The result's key is a copy, its HMAC key is not.
func (d *keyData) secret(s Settings, e keyEntry) (secret, error) {
	if len(e.CertificateChain) > 0 {
		return secret{}, errors.New("it has a certificate chain, which is not kept here; keep it elsewhere, and take it out of the backup")
	}
	var o secret
	if s.Convergent {
		n := e.ConvergentVersion
		if n == 0 {
			n = max(d.Policy.ConvergentVersion, 1) // 0 is from before there were versions
		}
		if n < int(callersNonce) || n > int(currentScheme) || e.ConvergentVersion == 0 && d.Policy.ConvergentVersion < 0 {
			return secret{}, errors.New("its convergent_version is unknown")
		}
		o.scheme = scheme(n)
	}
	if s.Derived && d.Policy.KDF == policyCounterMode {
		o.kdf = counterMode
		if !s.countable(o.scheme) {
			return secret{}, errors.New("its key derivation (kdf 0) never worked with its type")
		}
	}
	if s.Type.name != "hmac" {
		o.hmacKey = e.HMACKey
	}
	var err error
	o.key, err = s.Type.family.fromEntry(e)
	return o, err
}

// Encode writes a backup that OpenBao restores, or Vault where HashiCorp is set. It holds
// the keys in plaintext. Errors: *keyring.InputError for field "backup" where transit
// cannot hold the key: its type, or versions of different key derivations or convergent
// schemes; keyring.ErrInvalidMaterial.
func (b *Backup) Encode() (string, error) {
	p, err := b.policy()
	if err != nil {
		return "", err
	}
	data := keyData{Policy: p, Archive: &archive{}}
	defer data.wipe()
	if b.MinAvailableVersion == 0 {
		data.Archive.Keys = append(data.Archive.Keys, keyEntry{}) // versions count from 1
	}
	var secrets []secret
	for n := b.first(); n <= b.LatestVersion; n++ {
		o, err := b.Settings.open(b.Versions[n].Material)
		if err != nil {
			return "", versionError(n, err)
		}
		e, err := b.entry(o, b.Versions[n].Created)
		if err != nil {
			return "", versionError(n, err)
		}
		secrets = append(secrets, o)
		data.Archive.Keys = append(data.Archive.Keys, e)
		if n >= b.MinDecryptionVersion {
			p.Keys[strconv.FormatUint(uint64(n), 10)] = e
		}
	}
	if err := p.derivation(secrets); err != nil {
		return "", err
	}
	raw, err := json.Marshal(data)
	defer clear(raw)
	return base64.StdEncoding.EncodeToString(raw), err
}

// policy is all but the versions.
func (b *Backup) policy() (*policy, error) {
	number := b.Settings.Type.number(b.HashiCorp)
	if number == none {
		return nil, refuseBackup("cannot be made for Vault, which has no type %s; make it for OpenBao", b.Settings.Type)
	}
	p := &policy{
		Name: b.Name, Type: number, Keys: map[string]keyEntry{},
		Derived: b.Settings.Derived, Convergent: b.Settings.Convergent, KeySize: b.Settings.KeySize,
		LatestVersion: b.LatestVersion, ArchiveVersion: b.LatestVersion, ArchiveMinVersion: b.MinAvailableVersion,
		MinDecryptionVersion: max(b.MinDecryptionVersion, 1), MinEncryptionVersion: b.MinEncryptionVersion, MinAvailableVersion: b.MinAvailableVersion,
		DeletionAllowed: b.DeletionAllowed, Exportable: b.Exportable, PlaintextBackup: b.PlaintextBackup,
		Imported: b.Imported, AllowRotation: b.AllowRotation, AutoRotatePeriod: b.AutoRotatePeriod,
	}
	if b.Settings.Type.name == "hmac" && p.KeySize == 0 {
		p.KeySize = defaultHMACKey
	}
	if b.HashiCorp {
		p.ParameterSet = new(string)
	} else {
		p.SoftDeleted = new(bool)
	}
	return p, p.check()
}

// derivation sets what transit keeps once for all versions, which must therefore agree.
func (p *policy) derivation(versions []secret) error {
	if p.Derived && versions[0].kdf == hkdfSHA256 {
		p.KDF = policyHKDF
	}
	if p.Convergent {
		p.ConvergentVersion = -1 // each version has its own
		if versions[0].scheme == callersNonce {
			p.ConvergentVersion = 1
		}
	}
	for _, o := range versions {
		if o.kdf != versions[0].kdf || (o.scheme == callersNonce) != (versions[0].scheme == callersNonce) {
			return refuseBackup("cannot be made: transit derives keys in one way for all versions of a key, and these differ since an old key was rotated here; trim the old versions first")
		}
	}
	return nil
}

func (b *Backup) entry(o secret, created time.Time) (keyEntry, error) {
	e, err := b.Settings.Type.family.toEntry(o.key)
	e.HMACKey = bytes.Clone(o.hmacKey)
	if b.Settings.Type.name == "hmac" {
		e.HMACKey = bytes.Clone(o.key)
	}
	e.ConvergentVersion = int(o.scheme)
	e.Time = created.UTC()
	e.CreationTime = created.Unix()
	return e, err
}
