package kms

import (
	"context"

	"github.com/keywright/keywright/kms/policy"
)

// ReadTransitKey tells what transit's read of a key tells (needs the right to GetKey).
// Versions are those that can be used: what is disabled or trimmed is left out.
func (s *Service) ReadTransitKey(ctx context.Context, call Call, q ReadTransitRequest) (TransitKeyInfo, error) {
	return perform(ctx, s, call, policy.GetKey, q, (*Service).readTransitKey)
}

func (s *Service) readTransitKey(ctx context.Context, t *trace, q ReadTransitRequest) (TransitKeyInfo, error) {
	if len(q.Context) > MaxAAD {
		return TransitKeyInfo{}, invalid("context", "has %d bytes, the limit is %d; give a hash of it", len(q.Context), MaxAAD)
	}
	k, err := s.admit(ctx, t, policy.GetKey, q.Namespace, q.Key, nil)
	if err == nil {
		err = k.framed(FramingVault)
	}
	if err != nil {
		return TransitKeyInfo{}, err
	}
	info := TransitKeyInfo{Key: s.describeKey(k.keyRecord), Settings: k.settings}
	if k.State != KeyActive {
		return info, nil
	}
	info.Versions, err = s.transitVersions(ctx, k, q.Context)
	return info, err
}

// transitVersions describes the versions of an active key that can be used.
func (s *Service) transitVersions(ctx context.Context, k *key, derivation []byte) ([]TransitVersionInfo, error) {
	d, err := s.domainOf(ctx, k.ns)
	if err != nil {
		return nil, err
	}
	var versions []TransitVersionInfo
	prefix := prefixVersions(k.ns.ID, k.ID)
	for after, more := "", true; more; more = after != "" {
		page, err := s.store.List(ctx, prefix, after, 0)
		if err != nil {
			return nil, storeError(err)
		}
		for _, record := range page.Records {
			v, err := decodeNow[versionRecord](ctx, s, d, record)
			if err != nil {
				return nil, err
			}
			if v.value.State != Enabled || v.value.Version < k.Transit.MinDecryptionVersion {
				continue
			}
			described := TransitVersionInfo{Version: v.value.Version, Created: v.value.Created}
			if described.PublicKey, err = s.transitPublicKey(ctx, k, v.value.Version, derivation); err != nil {
				return nil, err
			}
			versions = append(versions, described)
		}
		after = page.Next
	}
	return versions, nil
}

// transitPublicKey is "" of what has none, for which no version need be opened.
func (s *Service) transitPublicKey(ctx context.Context, k *key, number uint32, derivation []byte) (string, error) {
	if !k.settings.Type.Asymmetric() {
		return "", nil
	}
	v, err := s.findVersion(ctx, k, number)
	if err != nil || v.vault == nil { // disabled just now
		return "", err
	}
	public, err := v.vault.PublicKeyFor(derivation)
	return public, keyringError(err)
}
