package kms

import (
	"context"
	"fmt"
	"time"

	"github.com/keywright/keywright/kms/policy"
)

// request is what an idempotency key stands for.
func (q ConfigureTransitRequest) request() any {
	return struct{ N, K, D, E, A, X, B, R any }{q.Namespace, q.Key, q.MinDecryptionVersion, q.MinEncryptionVersion,
		q.DeletionAllowed, q.Exportable, q.PlaintextBackup, q.AutoRotatePeriod}
}

// ConfigureTransitKey changes what transit's config of a key changes (needs the right to
// UpdateKey). Where nothing changes, nothing is written.
func (s *Service) ConfigureTransitKey(ctx context.Context, call Call, q ConfigureTransitRequest) (Key, error) {
	c, at := s.keyChange(policy.UpdateKey, q.Namespace, q.Key, q.Idempotency, q.request())
	if q.AutoRotatePeriod != nil {
		c.check = s.checkAutoRotation(*q.AutoRotatePeriod)
	}
	c.forget = func() {
		s.cache.dropVersion(at.key.ID, at.key.PrimaryVersion) // with its block, as in planRotationPolicy
		s.cache.dropKey(at.key)
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		k, d, err := s.currentTransit(ctx, at)
		if err != nil {
			return Key{}, err
		}
		changed, err := s.configure(tx, at, &k.value, q)
		if err != nil {
			return Key{}, err
		}
		if changed {
			s.putKey(tx, d, at, k)
		}
		return k.value.Key, nil
	})
}

// configure changes a key's record and tells whether there was anything to change.
func (s *Service) configure(tx *transaction, at *target, k *keyRecord, q ConfigureTransitRequest) (changed bool, err error) {
	changes := &transitChanges{tx: tx}
	if v := q.MinDecryptionVersion; v != nil && *v == 0 { // versions begin with 1, and transit takes 0 for that
		q.MinDecryptionVersion = new(uint32(1))
	}
	set(changes, "min_decryption_version", &k.Transit.MinDecryptionVersion, q.MinDecryptionVersion)
	set(changes, "min_encryption_version", &k.Transit.MinEncryptionVersion, q.MinEncryptionVersion)
	set(changes, "deletion_allowed", &k.Transit.DeletionAllowed, q.DeletionAllowed)
	switchOn(changes, "exportable", &k.Exportable, q.Exportable)
	switchOn(changes, "allow_plaintext_backup", &k.Transit.PlaintextBackup, q.PlaintextBackup)
	if err := checkMinVersions(k.Key); err != nil {
		return false, err
	}
	if changes.reveals {
		if err := checkRevealing(at.key.ns, k.Key); err != nil {
			return false, err
		}
	}
	if p := q.AutoRotatePeriod; p != nil && *p != k.Rotation.Period {
		changes.any = true
		return true, s.planRotationPolicy(tx, at, k, Rotation{Period: *p, MaxUses: k.Rotation.MaxUses})
	}
	return changes.any, nil
}

// transitChanges gathers what a configuration changes.
type transitChanges struct {
	tx      *transaction
	any     bool
	reveals bool // lets material leave in plaintext
}

func set[T comparable](c *transitChanges, name string, field *T, value *T) {
	if value == nil || *value == *field {
		return
	}
	c.tx.detail(name, fmt.Sprintf("%v -> %v", *field, *value))
	*field, c.any = *value, true
}

// switchOn is set for what is never switched off again: there may be a copy.
func switchOn(c *transitChanges, name string, field, value *bool) {
	if value != nil && *value && !*field {
		set(c, name, field, value)
		c.reveals = true
	}
}

// checkRevealing refuses to let the material of a key leave in plaintext.
func checkRevealing(ns *namespace, k Key) error {
	if err := checkTransitHeld(k.Protection, k.Exportable, k.Transit.PlaintextBackup); err != nil {
		return err
	}
	return checkPlaintext(ns, k.Exportable, k.Transit.PlaintextBackup)
}

// checkMinVersions makes sure that the versions that a key's configuration names fit
// together and exist.
func checkMinVersions(k Key) error {
	decryption, encryption, available := k.Transit.MinDecryptionVersion, k.Transit.MinEncryptionVersion, k.Transit.MinAvailableVersion
	switch {
	case decryption > k.LatestVersion:
		return invalid("min_decryption_version", "is %d, the latest version is %d; use 1 to that", decryption, k.LatestVersion)
	case encryption > k.LatestVersion:
		return invalid("min_encryption_version", "is %d, the latest version is %d; use 1 to that, or 0 for no bound of its own", encryption, k.LatestVersion)
	case encryption != 0 && encryption < decryption:
		return invalid("min_encryption_version", "is %d, below min_decryption_version, %d; what is encrypted could not be decrypted", encryption, decryption)
	case decryption < available:
		return invalid("min_decryption_version", "is %d, below min_available_version, %d: older versions were trimmed", decryption, available)
	case encryption < available:
		return invalid("min_encryption_version", "is %d, below min_available_version, %d: older versions were trimmed", encryption, available)
	}
	return nil
}

// checkAutoRotation is checkRotation for a period by itself, by the name that transit
// has for it.
func (s *Service) checkAutoRotation(period time.Duration) error {
	shortest := s.shortestRotation()
	if period == 0 || period >= shortest && period <= MaxRotationPeriod {
		return nil
	}
	return invalid("auto_rotate_period", "is %s; use %s to %s, or 0 for never", period, shortest, MaxRotationPeriod)
}
