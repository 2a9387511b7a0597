package transit

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"github.com/keywright/keywright/keyring"
)

// ExportKind names what Export gives: encryption-key, signing-key, hmac-key, public-key.
type ExportKind string

// The kinds of export.
const (
	EncryptionKey ExportKind = "encryption-key"
	SigningKey    ExportKind = "signing-key"
	HMACKey       ExportKind = "hmac-key"
	PublicKey     ExportKind = "public-key"
)

// exporter is a family whose keys are written otherwise than as base64 of their bytes.
type exporter interface {
	export(key []byte) (string, error)
}

// Export writes a version's key as transit's export does: symmetric keys in base64,
// Ed25519 as base64 of seed and public key (64 bytes), ECDSA as PEM (RFC 5915), RSA as PEM
// (PKCS #1), public keys as PEM or for Ed25519 in base64.
// Errors: *keyring.InputError naming "type" where the key has no such key,
// keyring.ErrInvalidMaterial.
func Export(s Settings, kind ExportKind, m keyring.Material) (string, error) {
	v, err := NewVersion(s, 1, m) // which checks the material
	if err != nil {
		return "", err
	}
	o, err := s.open(m)
	if err != nil {
		return "", err
	}
	t := s.Type
	switch {
	case kind == HMACKey && t.name == "hmac":
		return base64.StdEncoding.EncodeToString(o.key), nil
	case kind == HMACKey && len(o.hmacKey) > 0:
		return base64.StdEncoding.EncodeToString(o.hmacKey), nil
	case kind == PublicKey && t.Asymmetric():
		return s.exportPublic(v, o.key), nil
	case kind == EncryptionKey && t.Encrypts(), kind == SigningKey && t.Signs():
		if f, ok := t.family.(exporter); ok {
			return f.export(o.key)
		}
		return base64.StdEncoding.EncodeToString(o.key), nil
	}
	return "", input("type", "a key of type %s has no %q to export; kinds are encryption-key, signing-key, hmac-key and public-key", t, string(kind))
}

// exportPublic differs from PublicKey as transit does: no newline ends ECDSA's, and of a
// derived key there is that of the root.
func (s Settings) exportPublic(v *Version, key []byte) string {
	switch s.Type.family.(type) {
	case ed25519Keys:
		return base64.StdEncoding.EncodeToString(ed25519Key(ed25519.NewKeyFromSeed(key)).public())
	case ecdsaKeys:
		return strings.TrimSpace(v.PublicKey())
	}
	return v.PublicKey()
}

func (ed25519Keys) export(seed []byte) (string, error) {
	return base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(seed)), nil
}

func (f ecdsaKeys) export(scalar []byte) (string, error) {
	key, err := ecdsa.ParseRawPrivateKey(f.curve, scalar)
	if err != nil {
		return "", keyring.ErrInvalidMaterial
	}
	der, err := x509.MarshalECPrivateKey(key)
	return strings.TrimSpace(encodePEM("EC PRIVATE KEY", der)), err
}

func (rsaKeys) export(pkcs8 []byte) (string, error) {
	key, err := parseRSA(pkcs8)
	if err != nil {
		return "", err
	}
	return encodePEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), nil
}

// encodePEM wipes der.
func encodePEM(kind string, der []byte) string {
	defer clear(der)
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
