package transit

import (
	"errors"
	"time"

	"github.com/keywright/keywright/keyring"
)

var errStub = errors.New("transit: backups are not implemented yet")

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

// ParseBackup reads the base64 text of a backup. Errors: *keyring.InputError for field "backup".
// What transit could hold but this package cannot serve is refused and named.
func ParseBackup(text string) (*Backup, error) { return nil, errStub }

// Encode writes a backup that OpenBao restores, or Vault where HashiCorp is set.
func (b *Backup) Encode() (string, error) { return "", errStub }

// Wipe wipes the material of all versions.
func (b *Backup) Wipe() {}
