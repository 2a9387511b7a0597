package transit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright/keyring"
)

// exported is the answer to an export of a key, which says less than a backup: neither
// whether the key is derived, for which there are fields to add, nor its HMAC keys.
type exported struct {
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Keys       map[string]string `json:"keys"`
	Derived    bool              `json:"derived"`
	Convergent bool              `json:"convergent_encryption"`
}

// isExport tells an export from a backup, which is base64.
func isExport(text string) bool { return len(text) > 0 && text[0] == '{' }

// decodeExport reads an export alone, or as the data of a server's answer.
func decodeExport(text string) (*exported, error) {
	var answer struct {
		Data *exported `json:"data"`
		exported
	}
	if json.Unmarshal([]byte(text), &answer) != nil {
		return nil, errNoBackup()
	}
	e := &answer.exported
	if answer.Data != nil {
		derived, convergent := e.Derived, e.Convergent
		e = answer.Data
		e.Derived, e.Convergent = e.Derived || derived, e.Convergent || convergent
	}
	if e.Type == "" || len(e.Keys) == 0 {
		return nil, errNoBackup()
	}
	return e, nil
}

// outline knows as much as an export tells.
func (e *exported) outline() (*Outline, error) {
	kind, ok := LookupType(e.Type)
	if !ok {
		return nil, refuseBackup("is an export of a key of type %q, which is not served", e.Type)
	}
	s := Settings{Type: kind, Derived: e.Derived || e.Convergent, Convergent: e.Convergent}
	if kind.name == "hmac" {
		for _, key := range e.Keys { // all of one size
			s.KeySize = base64.RawStdEncoding.DecodedLen(len(strings.TrimRight(key, "=")))
		}
	}
	if err := s.usable(); err != nil {
		return nil, err
	}
	return &Outline{Name: e.Name, Settings: s, Versions: len(e.Keys), Exportable: true,
		parse: func() (*Backup, error) { return e.parse(s) }, wipe: func() {}}, nil
}

// parse makes a Backup of an export of encryption or signing keys. Versions have HMAC keys
// of their own then, since those were not exported; they are always the same ones.
func (e *exported) parse(s Settings) (_ *Backup, err error) {
	b := &Backup{Name: e.Name, Settings: s, Versions: map[uint32]BackupVersion{}, Exportable: true}
	defer func() {
		if err != nil {
			b.Wipe()
		}
	}()
	oldest := uint32(0)
	for text, key := range e.Keys {
		number, wrong := strconv.ParseUint(text, 10, 31)
		if wrong != nil || number == 0 {
			return nil, refuseBackup("has a version %q, which is no number", text)
		}
		n := uint32(number)
		m, err := b.Settings.importExported(n, key)
		if err != nil {
			return nil, versionError(n, err)
		}
		b.Versions[n] = BackupVersion{m, time.Now().UTC().Truncate(time.Second)}
		b.LatestVersion = max(b.LatestVersion, n)
		if oldest == 0 || n < oldest {
			oldest = n
		}
	}
	if int(b.LatestVersion-oldest)+1 != len(b.Versions) {
		return nil, refuseBackup("lacks versions between %d and %d; export the key as a whole", oldest, b.LatestVersion)
	}
	b.MinDecryptionVersion = oldest
	if oldest > 1 {
		b.MinAvailableVersion, b.MinEncryptionVersion = oldest, oldest
	}
	return b, nil
}

// importExported makes a version's material of what Export writes.
func (s Settings) importExported(number uint32, text string) (keyring.Material, error) {
	key, err := readExported(s.Type, text)
	if err != nil {
		return keyring.Material{}, err
	}
	defer clear(key)
	hmacKey, err := hkdf.Key(sha256.New, key, nil, "HMAC key of an exported version "+strconv.FormatUint(uint64(number), 10), defaultHMACKey)
	if err != nil {
		return keyring.Material{}, err
	}
	defer clear(hmacKey)
	return s.Import(bytes.NewReader(hmacKey), key)
}

// readExported reads a key as Import takes it.
func readExported(t *Type, text string) ([]byte, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, refuseBackup("has a key that is neither base64 nor PEM; send the export as transit returned it")
		}
		if t.name == "ed25519" && len(raw) == 64 { // the seed, and the public key
			return x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(raw[:32]))
		}
		return raw, nil
	}
	defer clear(block.Bytes)
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, refuseBackup("has a PEM block %q, which is no private key; export encryption-key or signing-key", block.Type)
	}
	if err != nil {
		return nil, refuseBackup("has a private key that cannot be read")
	}
	return x509.MarshalPKCS8PrivateKey(key)
}
