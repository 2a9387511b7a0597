package kms

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/internal/domain"
)

// defaultTransitType is the type of a key whose creator named none, as in transit.
const defaultTransitType = "aes256-gcm96"

// framed refuses a key of the other framing: neither framing's operations serve the
// other's keys.
func (k *key) framed(want Framing) error {
	switch {
	case k.Framing == want:
		return nil
	case want == FramingNative:
		return precondition("WRONG_FRAMING", "key %s is of VAULT framing, which only the Vault-compatible API serves; use that, or make a key of NATIVE framing for this", k.Name)
	}
	return precondition("WRONG_FRAMING", "key %s is of NATIVE framing, which the Vault-compatible API does not serve; use Keywright's own API, or make a key of VAULT framing for this", k.Name)
}

// settings are those of a key of VAULT framing; ok tells whether this release knows
// how the key is framed.
func (k keyRecord) settings() (settings transit.Settings, ok bool) {
	switch {
	case k.Framing == FramingNative:
		return transit.Settings{}, k.Transit == nil
	case k.Framing != FramingVault || k.Transit == nil:
		return transit.Settings{}, false
	}
	settings = k.Transit.settings()
	return settings, settings.Type != nil && settings.Type.Algorithm().Name() == k.Algorithm
}

// settings has no Type if this release does not know it.
func (k *TransitKey) settings() transit.Settings {
	kind, _ := transit.LookupType(k.Type)
	return transit.Settings{Type: kind, Derived: k.Derived, Convergent: k.Convergent, KeySize: k.KeySize}
}

func (k *TransitKey) generate(random io.Reader) (keyring.Material, error) {
	settings := k.settings()
	material, err := settings.Generate(random)
	if errors.Is(err, keyring.ErrNotFIPS) {
		err = errTransitNotFIPS(settings)
	}
	return material, err
}

func errTransitNotFIPS(settings transit.Settings) error {
	return precondition("NOT_FIPS", "keys that are %s are not allowed while FIPS 140-3 mode is enforced; use another type", settings)
}

// key is what is stored of a key that is made with the options.
func (o *TransitOptions) key(imported *importedMaterial) *TransitKey {
	k := &TransitKey{Type: o.Type, Derived: o.Derived, Convergent: o.Convergent, KeySize: o.KeySize, MinDecryptionVersion: 1, PlaintextBackup: o.PlaintextBackup}
	if k.Type == "" {
		k.Type = defaultTransitType
	}
	if imported != nil {
		k.Imported, k.AllowRotation = true, imported.allowRotation
	}
	return k
}

// check makes sure that the options fit together.
func (o *TransitOptions) check() (transit.Settings, error) {
	settings := o.key(nil).settings()
	if settings.Type == nil {
		var names []string
		for _, t := range transit.Types() {
			names = append(names, t.Name())
		}
		return settings, invalid("type", "%q is unknown; use %s", clip(o.Type), strings.Join(names, ", "))
	}
	return settings, keyringError(settings.Check())
}

// checkCreateTransit is checkCreate for a key of VAULT framing.
func (s *Service) checkCreateTransit(q CreateKeyRequest) (*keyring.Algorithm, error) {
	settings, err := q.Transit.check()
	if err == nil && (q.Purpose != "" || q.Algorithm != "") {
		err = invalid("algorithm", "and purpose of a key of VAULT framing are those of its type; leave both out")
	}
	if err != nil {
		return nil, errors.Join(checkNamespaceName(q.Namespace), checkName("key", q.Key), err)
	}
	algorithm := settings.Type.Algorithm()
	return algorithm, errors.Join(checkNamespaceName(q.Namespace), checkName("key", q.Key), checkLabels(q.Labels),
		checkProtection(q.Protection), checkTransitHeld(q.Protection, q.Exportable, q.Transit.PlaintextBackup), s.checkTransitOnToken(q, settings),
		s.checkAutoRotation(q.Rotation.Period), s.checkRotation(algorithm, q.Rotation))
}

// checkTransitOnToken refuses a key of protection level HSM that no token can hold, or
// this one cannot.
func (s *Service) checkTransitOnToken(q CreateKeyRequest, settings transit.Settings) error {
	if q.protection() != HSMLevel {
		return nil
	}
	if _, err := transit.NewExternalVersion(settings, 1, nil, keyring.Material{}, nil); errors.Is(err, keyring.ErrInput) {
		return keyringError(err)
	}
	a := settings.Type.Algorithm()
	_, err := s.resolveFor(q.Namespace, HSMLevel, a.Purpose(), a.Name())
	return err
}

// checkTransitHeld is checkExportable for a key of VAULT framing.
func checkTransitHeld(p Protection, exportable, backup bool) error {
	if backup && p == HSMLevel {
		return invalid("allow_plaintext_backup", "is not possible with protection level HSM, whose keys never leave the token; leave it out, or use SOFTWARE")
	}
	return checkExportable(p, exportable)
}

// checkPlaintext refuses a key of VAULT framing whose material could leave in
// plaintext, where the namespace was not made for that.
func checkPlaintext(ns *namespace, exportable, backup bool) error {
	if ns.PlaintextExport || !exportable && !backup {
		return nil
	}
	return precondition("NO_PLAINTEXT_EXPORT", "exportable and allow_plaintext_backup let key material leave in plaintext, which namespace %s was not created for; "+
		"leave them out, or make the key in a namespace that was created with plaintext_export", ns.Name)
}

// checkRotatable refuses to make fresh versions of an imported key whose importer did
// not want any.
func checkRotatable(k Key) error {
	if k.Transit == nil || !k.Transit.Imported || k.Transit.AllowRotation {
		return nil
	}
	return precondition("ROTATION_NOT_ALLOWED", "key %s was imported without allow_rotation, so only importing makes versions of it; import a version, or import a key with allow_rotation", k.Name)
}

// checkDeletable refuses to delete a key of VAULT framing until its configuration
// allows it.
func checkDeletable(k Key) error {
	if k.Transit == nil || k.Transit.DeletionAllowed {
		return nil
	}
	return precondition("DELETION_NOT_ALLOWED", "deletion is not allowed for key %s; set deletion_allowed in the key's configuration first", k.Name)
}

// nonceLimit is how many random nonces of a version may be used, 0 for any number. A
// convergent key draws none: it makes its nonces of what they are for.
func (k *key) nonceLimit() uint64 {
	if k.settings.Convergent {
		return 0
	}
	return k.algorithm.RandomNonceLimit()
}

// openTransit is openMaterial for a key of VAULT framing.
func (s *Service) openTransit(ctx context.Context, k *key, d *domain.Domain, record versionRecord) (*transit.Version, error) {
	material, err := s.unsealMaterial(ctx, k, d, record)
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	v, err := s.transitVersion(k, record, material)
	if errors.Is(err, keyring.ErrNotFIPS) {
		return nil, errTransitNotFIPS(k.settings)
	}
	return v, err
}

// transitVersion builds a version of its material, of one on the token the HMAC key.
func (s *Service) transitVersion(k *key, record versionRecord, material keyring.Material) (*transit.Version, error) {
	if k.Protection != HSMLevel {
		return transit.NewVersion(k.settings, record.Version, material)
	}
	held, err := s.tokenKeyOf(k, record)
	if err != nil {
		return nil, err
	}
	return transit.NewExternalVersion(k.settings, record.Version, held.public, material, held)
}

// sealHMACKey makes and seals the HMAC key of a version whose own key is on the token,
// which makes no HMACs with it.
func (s *Service) sealHMACKey(d *domain.Domain, place string) ([]byte, error) {
	material, err := transit.GenerateHMACKey(&s.random)
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	sealed, err := d.Seal(place, material.Bytes())
	return sealed, sealError(err)
}
