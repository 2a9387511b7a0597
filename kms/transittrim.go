package kms

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keywright/keywright/kms/internal/domain"
	"github.com/keywright/keywright/kms/policy"
	"github.com/keywright/keywright/kms/store"
)

// trimPage is how many versions one transaction of a trim schedules for destruction,
// two records each.
const trimPage = 50

// TrimTransitKey makes all versions below one unusable at once, for good, and schedules
// the destruction of their material after DefaultDestroyDelay (needs the right to
// DestroyVersion). Of very many versions the rest is scheduled in the background.
func (s *Service) TrimTransitKey(ctx context.Context, call Call, q TrimTransitRequest) (Key, error) {
	c, at := s.keyChange(policy.DestroyVersion, q.Namespace, q.Key, q.Idempotency, struct{ N, K, M any }{q.Namespace, q.Key, q.MinAvailableVersion})
	if q.MinAvailableVersion == 0 {
		c.check = invalid("min_available_version", "is missing or 0; say from which version on the key is to be kept")
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		k, d, err := s.currentTransit(ctx, at)
		if err != nil {
			return Key{}, err
		}
		before := k.value.Transit.MinAvailableVersion
		if err := checkTrim(k.value.Key, q.MinAvailableVersion); err != nil || before == q.MinAvailableVersion {
			return k.value.Key, err
		}
		k.value.Transit.MinAvailableVersion = q.MinAvailableVersion
		tx.detail("min_available_version", fmt.Sprintf("%d -> %d", before, q.MinAvailableVersion))
		more, err := s.trimVersions(ctx, tx, d, at, k.value)
		if err != nil {
			return Key{}, err
		}
		if more {
			s.putDue(tx, s.now(), due{Kind: dueTrim, Namespace: k.value.Namespace, Key: k.value.ID, Version: q.MinAvailableVersion})
		}
		s.putKey(tx, d, at, k)
		return k.value.Key, nil
	})
}

// currentTransit is currentActive for a key of VAULT framing.
func (s *Service) currentTransit(ctx context.Context, at *target) (stored[keyRecord], *domain.Domain, error) {
	k, d, err := s.currentActive(ctx, at)
	if err == nil {
		err = at.key.framed(FramingVault)
	}
	return k, d, err
}

// checkTrim refuses to trim what the key's configuration still lets be used.
func checkTrim(k Key, available uint32) error {
	const field = "min_available_version"
	t := k.Transit
	switch {
	case available < t.MinAvailableVersion:
		return invalid(field, "is %d, and older versions than %d were trimmed already; it can only grow", available, t.MinAvailableVersion)
	case t.MinEncryptionVersion == 0:
		return invalid(field, "needs min_encryption_version to be set in the key's configuration first, to %d or more", available)
	case available > t.MinEncryptionVersion:
		return invalid(field, "is %d, above min_encryption_version, %d; raise that first", available, t.MinEncryptionVersion)
	case available > t.MinDecryptionVersion:
		return invalid(field, "is %d, above min_decryption_version, %d; raise that first", available, t.MinDecryptionVersion)
	}
	return nil
}

// trimVersions schedules a page of the trimmed versions for destruction, and tells
// whether there are more.
func (s *Service) trimVersions(ctx context.Context, tx *transaction, d *domain.Domain, at *target, k keyRecord) (more bool, err error) {
	when := s.now().Add(DefaultDestroyDelay).UTC()
	prefix, after, n := prefixVersions(at.key.ns.ID, k.ID), "", 0
	end := pathVersion(at.key.ns.ID, k.ID, k.Transit.MinAvailableVersion)
	for {
		page, err := s.store.List(ctx, prefix, after, 0)
		if err != nil {
			return false, storeError(err)
		}
		for _, record := range page.Records {
			v, err := decodeNow[versionRecord](ctx, s, d, record)
			switch {
			case err != nil:
				return false, err
			case record.Key >= end:
				return false, nil
			case !slices.Contains([]VersionState{Enabled, Disabled}, v.value.State):
				continue
			case n == trimPage:
				return true, nil
			}
			if err := s.putTrimmed(tx, d, at, v, when); err != nil {
				return false, err
			}
			n++
			tx.detail("versions", fmt.Sprint(n))
		}
		if after = page.Next; after == "" {
			return false, nil
		}
	}
}

// putTrimmed schedules the destruction of a version.
func (s *Service) putTrimmed(tx *transaction, d *domain.Domain, at *target, v stored[versionRecord], when time.Time) error {
	v.value.State, v.value.DestroyTime = DestroyScheduled, when
	s.putDue(tx, when, due{Kind: dueDestroyVersion, Namespace: at.key.ns.Name, Key: at.key.ID, Version: v.value.Version})
	return s.putChanged(tx, d, at, v)
}

// untrim makes a version that was trimmed available again, once it is restored.
func (k *keyRecord) untrim(number uint32) bool {
	if k.Transit == nil || number >= k.Transit.MinAvailableVersion {
		return false
	}
	k.Transit.MinAvailableVersion = number
	return true
}

// trimRest goes on with a trim, a page at a time.
func (s *Service) trimRest(ctx context.Context, at *target, _ due, _ *trace, tx *transaction) error {
	k, d, err := s.current(ctx, at)
	if err != nil || k.value.State != KeyActive || k.value.Transit == nil {
		return err // deleted meanwhile, with all its versions
	}
	tx.more, err = s.trimVersions(ctx, tx, d, at, k.value)
	// The key's record, unchanged, orders this against a restored version.
	tx.txn.Expect = append(tx.txn.Expect, store.Expect{Key: pathKey(at.key.ns.ID, k.value.ID), Revision: k.revision})
	return err
}
