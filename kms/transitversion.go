package kms

import (
	"context"

	"github.com/keywright/keywright/keyring/transit"
)

// versionToMake returns the version that a ciphertext, a signature or an HMAC is made
// with; 0 is the latest. Each version's random nonces count, and uses of the latest
// towards its rotation.
func (s *Service) versionToMake(ctx context.Context, t *trace, k *key, number uint32, counted bool) (*version, error) {
	if err := k.mayMake(number); err != nil {
		return nil, err
	}
	v, err := s.versionToUse(ctx, t, k, number, counted)
	if CodeOf(err) == NotFound {
		return nil, invalid("key_version", "is %d, and the latest version of key %s is %d; leave it out for that", number, k.Name, k.LatestVersion)
	}
	if err != nil || !counted || number == 0 || number == k.PrimaryVersion {
		return v, err
	}
	return v, s.spend(ctx, k, v)
}

// mayMake refuses a version that nothing new is made with.
func (k *key) mayMake(number uint32) error {
	if err := k.restored(number); err != nil {
		return err
	}
	least := max(k.Transit.MinEncryptionVersion, k.Transit.MinDecryptionVersion)
	if number == 0 || number >= least {
		return nil
	}
	return invalid("key_version", "is %d, which the configuration of key %s does not let encrypt, sign or MAC; use %d or newer, or leave it out for the latest", number, k.Name, least)
}

// versionOf returns the version that a ciphertext, a signature or an HMAC names, which
// the field of the request holds, and its body.
func (s *Service) versionOf(ctx context.Context, t *trace, k *key, field string, text []byte) (*version, []byte, error) {
	number, body, err := transit.ParseVersion(field, text)
	if err != nil {
		return nil, nil, keyringError(err)
	}
	if err := k.restored(number); err != nil {
		return nil, nil, err
	}
	trimmed := number < k.Transit.MinAvailableVersion
	if number < k.Transit.MinDecryptionVersion && !trimmed {
		t.entry.Version = number
		return nil, nil, precondition("VERSION_TOO_OLD", "%s is of version %d of key %s, which decrypts and verifies nothing from before version %d; an administrator can lower its min_decryption_version",
			field, number, k.Name, k.Transit.MinDecryptionVersion)
	}
	v, err := s.versionToUse(ctx, t, k, number, false)
	switch {
	case CodeOf(err) == NotFound && trimmed: // before the key was restored here
		return nil, nil, errVersionState(number, Destroyed)
	case CodeOf(err) == NotFound:
		return nil, nil, invalid(field, "is of version %d, and the latest version of key %s is %d; it is of another key", number, k.Name, k.LatestVersion)
	case err == nil && trimmed: // and its destruction is about to be scheduled
		return nil, nil, s.alarm(t, errVersionState(number, DestroyScheduled))
	}
	return v, body, err
}

// trimmed tells a version that may never have been here: the key was restored without it,
// or it is still to be restored.
func (k *key) trimmed(number uint32) bool {
	return k.Transit != nil && number < max(k.Transit.MinAvailableVersion, k.Transit.Restoring)
}

// restored refuses a version that is still to be restored.
func (k *key) restored(number uint32) error {
	if number == 0 || number >= k.Transit.Restoring || number < k.Transit.MinAvailableVersion {
		return nil
	}
	return precondition("VERSION_PENDING", "version %d of key %s has not been restored yet; if no restore is under way, restore the key from the same backup again", number, k.Name)
}
