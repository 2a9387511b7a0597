package transit

import (
	"math/big"
	"strconv"
	"time"
)

// What transit writes as JSON into a backup. A version is in the policy where it may
// still decrypt, and all of them are in the archive.
type keyData struct {
	Policy  *policy  `json:"policy"`
	Archive *archive `json:"archived_keys"`
}

// archive has version ArchiveMinVersion as its first key; where that is 0, the first is
// empty.
type archive struct {
	Keys []keyEntry `json:"keys"`
}

type policy struct {
	Name                 string              `json:"name"`
	OldKey               []byte              `json:"key,omitempty"` // from before there were versions
	KeySize              int                 `json:"key_size,omitempty"`
	Keys                 map[string]keyEntry `json:"keys"`
	Derived              bool                `json:"derived"`
	KDF                  int                 `json:"kdf"`
	Convergent           bool                `json:"convergent_encryption"`
	ConvergentVersion    int                 `json:"convergent_version"` // of versions that say nothing
	Exportable           bool                `json:"exportable"`
	PlaintextBackup      bool                `json:"allow_plaintext_backup"`
	DeletionAllowed      bool                `json:"deletion_allowed"`
	MinDecryptionVersion uint32              `json:"min_decryption_version"`
	MinEncryptionVersion uint32              `json:"min_encryption_version"`
	LatestVersion        uint32              `json:"latest_version"`
	ArchiveVersion       uint32              `json:"archive_version"`
	ArchiveMinVersion    uint32              `json:"archive_min_version"`
	MinAvailableVersion  uint32              `json:"min_available_version"`
	Type                 int                 `json:"type"`
	VersionTemplate      string              `json:"version_template"`
	StoragePrefix        string              `json:"storage_prefix"`
	AutoRotatePeriod     time.Duration       `json:"auto_rotate_period"`
	Imported             bool                `json:"Imported"`
	AllowRotation        bool                `json:"AllowImportedKeyRotation"`
	SoftDeleted          *bool               `json:"soft_deleted,omitempty"` // OpenBao alone
	ParameterSet         *string             `json:"ParameterSet,omitempty"` // Vault alone
	HybridConfig         *struct{}           `json:"HybridConfig,omitempty"` // Vault alone
}

// The policy's numbers of key derivations.
const (
	policyCounterMode = 0
	policyHKDF        = 1
)

type keyEntry struct {
	Key               []byte        `json:"key"`
	HMACKey           []byte        `json:"hmac_key"`
	Time              time.Time     `json:"time"`
	CreationTime      int64         `json:"creation_time"`
	X                 *integer      `json:"ec_x,omitempty"`
	Y                 *integer      `json:"ec_y,omitempty"`
	D                 *integer      `json:"ec_d,omitempty"`
	RSA               *rsaEntry     `json:"rsa_key,omitempty"`
	RSAPublic         *rsaPublicKey `json:"rsa_public_key,omitempty"`
	PublicKey         string        `json:"public_key,omitempty"`
	ConvergentVersion int           `json:"convergent_version,omitempty"`
	CertificateChain  [][]byte      `json:"certificate_chain,omitempty"`
}

type rsaPublicKey struct {
	N *integer `json:"N"`
	E int      `json:"E"`
}

type rsaEntry struct {
	rsaPublicKey
	D      *integer   `json:"D"`
	Primes []*integer `json:"Primes"`
}

// integer is a positive number of at most maxDigits, so that reading one stays cheap.
type integer struct{ big.Int }

const maxDigits = 1300 // RSA of 4096 bits has 1234

// UnmarshalJSON reads decimal digits.
func (i *integer) UnmarshalJSON(b []byte) error {
	if len(b) > maxDigits || b[0] < '0' || b[0] > '9' {
		return strconv.ErrRange
	}
	return i.Int.UnmarshalJSON(b)
}

// check refuses what cannot be, and what is not served.
func (p *policy) check() error {
	switch {
	case p.SoftDeleted != nil && *p.SoftDeleted:
		return refuseBackup("is of a key that is soft-deleted; restore it where it comes from, and back it up again")
	case p.VersionTemplate != "" && p.VersionTemplate != "vault:v{{version}}:":
		return refuseBackup("has the version_template %q, only vault:v{{version}}: is served", p.VersionTemplate)
	case len(p.OldKey) > 0 || p.LatestVersion == 0:
		return refuseBackup("has no versions; a newer transit gives it some when it reads it, so restore it there and back it up again")
	case p.Derived && p.KDF != policyCounterMode && p.KDF != policyHKDF:
		return refuseBackup("has an unknown key derivation, kdf %d", p.KDF)
	case p.AutoRotatePeriod < 0:
		return refuseBackup("has a negative auto_rotate_period")
	}
	return p.checkVersions()
}

// checkVersions wants min_available ≤ min_decryption ≤ min_encryption ≤ latest, of which
// 0 stands for what it may at least or at most be.
func (p *policy) checkVersions() error {
	decrypt, encrypt := max(p.MinDecryptionVersion, 1), p.MinEncryptionVersion
	if encrypt == 0 {
		encrypt = p.LatestVersion
	}
	if p.MinAvailableVersion > decrypt || decrypt > encrypt || encrypt > p.LatestVersion {
		return refuseBackup("has versions out of order: min_available %d, min_decryption %d, min_encryption %d, latest %d",
			p.MinAvailableVersion, p.MinDecryptionVersion, p.MinEncryptionVersion, p.LatestVersion)
	}
	return nil
}

// entry finds version n, in the policy first: the archive may have an older state of it.
func (d *keyData) entry(n uint32) (keyEntry, bool) {
	if e, ok := d.Policy.Keys[strconv.FormatUint(uint64(n), 10)]; ok {
		return e, true
	}
	if d.Archive == nil || n < d.Policy.ArchiveMinVersion || n-d.Policy.ArchiveMinVersion >= uint32(len(d.Archive.Keys)) {
		return keyEntry{}, false
	}
	return d.Archive.Keys[n-d.Policy.ArchiveMinVersion], true
}

// wipe forgets the keys that are bytes; those that are numbers are left to the collector.
func (d *keyData) wipe() {
	if d.Policy != nil {
		for _, e := range d.Policy.Keys {
			e.wipe()
		}
	}
	if d.Archive != nil {
		for _, e := range d.Archive.Keys {
			e.wipe()
		}
	}
}

func (e keyEntry) wipe() {
	clear(e.Key)
	clear(e.HMACKey)
}

// created is when the version was made; old ones say it in seconds only.
func (e keyEntry) created() time.Time {
	if e.Time.IsZero() {
		return time.Unix(e.CreationTime, 0).UTC()
	}
	return e.Time.UTC()
}
