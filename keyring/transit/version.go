package transit

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"strconv"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/keyring/internal/redact"
)

// family is how the keys of a type become primitives.
type family interface {
	// build makes the primitive, which keeps no reference to the secret. It implements
	// what it can do: encrypter, signer, publicKey.
	build(s Settings, o secret) (any, error)
	// toEntry writes a key into a backup, of which all was checked before; fromEntry
	// reads one, and may leave its size to build.
	toEntry(key []byte) (keyEntry, error)
	fromEntry(keyEntry) ([]byte, error)
}

// publicKey is implemented by primitives that have a public half to show.
type publicKey interface {
	der() ([]byte, error) // SubjectPublicKeyInfo
}

// Version is one version of a key, ready for use: its cipher or key is built once. It is
// immutable and safe for concurrent use, and prints as [redacted].
type Version struct {
	redact.Redacted
	number   uint32
	settings Settings
	prefix   []byte // vault:v<N>:
	hidden   redact.Hidden[keys]
	bind     func(context.Context) any // makes the primitive for one call; nil unless the key is held elsewhere
}

// keys are the secrets of a version.
type keys struct {
	primitive any
	hmac      []byte
}

// NewVersion builds a version from its material, which may be wiped afterwards. Errors:
// those of Settings.Check, keyring.ErrInvalidMaterial, keyring.ErrNotFIPS.
func NewVersion(s Settings, number uint32, m keyring.Material) (*Version, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	o, err := s.open(m)
	if err != nil {
		return nil, err
	}
	primitive, err := s.Type.family.build(s, o)
	if err != nil {
		return nil, err
	}
	hmacKey := o.hmacKey
	if s.Type.name == "hmac" {
		hmacKey = o.key
	}
	return newVersion(s, number, primitive, hmacKey), nil
}

func newVersion(s Settings, number uint32, primitive any, hmacKey []byte) *Version {
	prefix := append([]byte("vault:v"), strconv.FormatUint(uint64(number), 10)...)
	return &Version{
		number:   number,
		settings: s,
		prefix:   append(prefix, ':'),
		hidden:   redact.Hide(keys{primitive, append([]byte(nil), hmacKey...)}),
	}
}

const versionMemory = 160 // a Version without its primitive

// MemorySize is about how many bytes the version holds, for cache budgets.
func (v *Version) MemorySize() int {
	k := v.hidden.Get()
	size := versionMemory + len(k.hmac)
	if p, ok := k.primitive.(interface{ memory() int }); ok {
		size += p.memory()
	}
	return size
}

// Number is the version's number in its key.
func (v *Version) Number() uint32 { return v.number }

// PublicKey is as transit shows it in a read of the key: PEM (SubjectPublicKeyInfo) of ECDSA and RSA,
// raw base64 of ed25519, and "" of symmetric and derived keys.
func (v *Version) PublicKey() string {
	p, ok := v.hidden.Get().primitive.(publicKey)
	if !ok {
		return ""
	}
	der, err := p.der()
	if err != nil {
		return ""
	}
	if v.settings.Type.name == "ed25519" {
		return base64.StdEncoding.EncodeToString(der[len(der)-ed25519Size:])
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// PublicKeyFor is PublicKey where a read of the key names a context: of a derived ed25519
// key that of the context. An empty context, and one of another key, changes nothing.
func (v *Version) PublicKeyFor(context []byte) (string, error) {
	d, ok := v.hidden.Get().primitive.(ed25519Deriver)
	if !ok || len(context) == 0 {
		return v.PublicKey(), nil
	}
	public, err := d.publicFor(context)
	return base64.StdEncoding.EncodeToString(public), err
}

// ParseVersion reads the version number of a ciphertext, a signature or an HMAC:
// exactly three parts, "vault", "v<N>" with N ≥ 1, and the body, which is not empty and
// shares text's bytes. Error: *keyring.InputError for field.
func ParseVersion(field string, text []byte) (number uint32, body []byte, err error) {
	const start = "vault:v"
	if len(text) < len(start) || string(text[:len(start)]) != start {
		return 0, nil, input(field, "does not begin with vault:v; send it as it was returned")
	}
	rest := text[len(start):]
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' && digits < 10 {
		digits++
	}
	n, err := strconv.ParseUint(string(rest[:digits]), 10, 32)
	if err != nil || n == 0 || rest[0] == '0' || digits == len(rest) || rest[digits] != ':' {
		return 0, nil, input(field, "has no version: after vault:v comes a number from 1 to 4294967295 and a colon")
	}
	body = rest[digits+1:]
	if len(body) == 0 {
		return 0, nil, input(field, "ends after its version; send it as it was returned")
	}
	for _, c := range body {
		if c == ':' {
			return 0, nil, input(field, "has more than three parts between its colons; send it as it was returned")
		}
	}
	return uint32(n), body, nil
}
