package kms

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"

	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
)

// ExportKeyRequest asks for a version's material, wrapped to PublicKey as package
// keywrap describes: an RSA key of whom it is for, SubjectPublicKeyInfo or PKCS#1,
// in PEM or DER. Version 0 is the primary version.
type ExportKeyRequest struct {
	Namespace, Key string
	Version        uint32
	PublicKey      []byte
}

// ExportedKey is answered to an ExportKeyRequest. What is wrapped is the raw key of
// symmetric algorithms, of others the private key in PKCS#8, DER.
type ExportedKey struct {
	Wrapped   []byte
	Method    string // as keywrap.Method names it
	Version   uint32
	Algorithm string
}

// exportHash is what OAEP uses to wrap what leaves.
const exportHash = crypto.SHA256

func checkExportable(p Protection, exportable bool) error {
	if exportable && p == HSMLevel {
		return invalid("exportable", "is not possible with protection level HSM, whose keys never leave the token; leave it out, or use SOFTWARE")
	}
	return nil
}

// ExportKey takes the material of an exportable key's version out, wrapped. It is
// logged durably before the answer, as a change is.
func (s *Service) ExportKey(ctx context.Context, call Call, q ExportKeyRequest) (ExportedKey, error) {
	return perform(ctx, s, call, policy.ExportKey, q, (*Service).exportKey)
}

func (s *Service) exportKey(ctx context.Context, t *trace, q ExportKeyRequest) (ExportedKey, error) {
	t.durable = true
	k, err := s.admitUse(ctx, t, policy.ExportKey, q.Namespace, q.Key, nil)
	if err != nil {
		return ExportedKey{}, err
	}
	if err := k.framed(FramingNative); err != nil {
		return ExportedKey{}, err
	}
	if !k.Exportable {
		return ExportedKey{}, precondition("NOT_EXPORTABLE", "key %s was not created exportable, so its material never leaves; make a new key with exportable set", k.Name)
	}
	to, err := exportRecipient(q.PublicKey)
	if err != nil {
		return ExportedKey{}, err
	}
	v, err := s.versionToUse(ctx, t, k, q.Version, false)
	if err != nil {
		return ExportedKey{}, err
	}
	t.entry.Details = map[string]string{"public_key_sha256": fingerprint(to)}
	wrapped, err := s.wrapMaterial(ctx, k, v.number, to)
	return ExportedKey{Wrapped: wrapped, Method: keywrap.Method(to.N.BitLen(), exportHash), Version: v.number, Algorithm: k.Algorithm}, err
}

func exportRecipient(b []byte) (*rsa.PublicKey, error) {
	if len(b) == 0 {
		return nil, invalid("public_key", "is missing; give the RSA public key of whom the key is for")
	}
	to, err := keywrap.ParsePublicKey(b)
	if err != nil {
		return nil, invalid("public_key", "%s", err.Error())
	}
	return to, nil
}

// fingerprint is the SHA-256 of a SubjectPublicKeyInfo, by which the audit log
// names who a key was exported to.
func fingerprint(key *rsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// wrapMaterial wraps an ENABLED version's material.
func (s *Service) wrapMaterial(ctx context.Context, k *key, number uint32, to *rsa.PublicKey) ([]byte, error) {
	d, err := s.domainOf(ctx, k.ns)
	if err != nil {
		return nil, err
	}
	record, err := s.readVersion(ctx, k, number)
	if err != nil {
		return nil, err
	}
	if record.value.State != Enabled { // since it was looked up
		return nil, errVersionState(number, record.value.State)
	}
	material, err := s.unsealMaterial(ctx, k, d, record.value)
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	portable, err := k.algorithm.EncodePortable(material)
	if err != nil {
		return nil, keyringError(err)
	}
	defer clear(portable)
	wrapped, err := keywrap.Wrap(to, exportHash, portable)
	if err != nil {
		return nil, invalid("public_key", "does not serve to wrap a key: its modulus or exponent is not usable; give another")
	}
	return wrapped, err
}
