package kms

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"sync"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/keywrap"
	"github.com/keywright/keywright/kms/policy"
)

// A namespace's wrapping key for imports is a key of it like any other, as transit's
// clients fetch it once and use it whenever they like.
const (
	transitWrappingKey       = "transit-wrapping-key"
	transitWrappingBits      = 4096
	transitWrappingAlgorithm = "RSA_OAEP_4096_SHA256"
)

// oaepHashes are those that transit's import takes, by its names.
var oaepHashes = map[string]crypto.Hash{"": crypto.SHA256, "SHA1": crypto.SHA1, "SHA224": crypto.SHA224, "SHA256": crypto.SHA256, "SHA384": crypto.SHA384, "SHA512": crypto.SHA512}

// TransitWrappingKey returns, as PEM, the public key (RSA, 4096 bits) that key material is
// wrapped to for ImportTransitKey into the namespace (needs the right to ImportKey). It is
// made on first need, by who may CreateKey.
func (s *Service) TransitWrappingKey(ctx context.Context, call Call, namespace string) (string, error) {
	pem, err := perform(ctx, s, call, policy.ImportKey, namespace, (*Service).transitWrappingKey)
	if reasonOf(err) != "KEY_NOT_FOUND" {
		return pem, err
	}
	_, err = s.CreateKey(ctx, call, CreateKeyRequest{Namespace: namespace, Key: transitWrappingKey, Algorithm: transitWrappingAlgorithm})
	if err != nil && CodeOf(err) != AlreadyExists { // by somebody else, meanwhile
		return "", err
	}
	return perform(ctx, s, call, policy.ImportKey, namespace, (*Service).transitWrappingKey)
}

func (s *Service) transitWrappingKey(ctx context.Context, t *trace, namespace string) (string, error) {
	k, err := s.admitUse(ctx, t, policy.ImportKey, namespace, transitWrappingKey, nil)
	if err == nil {
		err = k.wraps()
	}
	if err != nil {
		return "", err
	}
	v, err := s.versionToUse(ctx, t, k, 0, false)
	if err != nil {
		return "", err
	}
	pem, err := v.ready.PublicKeyPEM()
	return string(pem), keyringError(err)
}

// wraps makes sure that a key of that name is what it is taken for.
func (k *key) wraps() error {
	if k.Framing == FramingNative && k.Protection == Software && k.Algorithm == transitWrappingAlgorithm {
		return nil
	}
	return precondition("WRONG_PURPOSE", "key %s is no wrapping key, which is of algorithm %s and protection level SOFTWARE; delete it, or import into another namespace", k.Name, transitWrappingAlgorithm)
}

// ImportTransitKey makes a key, or a version of one that was imported, from wrapped
// material (needs the right to ImportKey).
func (s *Service) ImportTransitKey(ctx context.Context, call Call, q ImportTransitRequest) (Key, error) {
	if q.Version {
		return s.importTransitVersion(ctx, call, q)
	}
	id := newID()
	create := CreateKeyRequest{Namespace: q.Namespace, Key: q.Key, Exportable: q.Exportable, Protection: q.Protection,
		Rotation: Rotation{Period: q.AutoRotate}, Transit: &q.Options}
	algorithm, check := s.checkCreate(create)
	if check == nil {
		check = checkTransitImport(q)
	}
	c := change{action: policy.ImportKey, namespace: q.Namespace, key: q.Key, idempotency: q.Idempotency, check: check,
		request: q.request(), lock: func() *sync.Mutex { return s.creationLock(q.Namespace, id) }}
	c.resource = func(ctx context.Context) (*policy.Resource, error) {
		_, err := s.findNamespace(ctx, q.Namespace)
		if err == nil {
			err = s.usable(q.Namespace)
		}
		return &policy.Resource{Namespace: q.Namespace, Key: q.Key, Purpose: string(algorithm.Purpose()), Algorithm: algorithm.Name(),
			Protection: string(Software), Exportable: q.Exportable}, err
	}
	c.prepare = func(ctx context.Context, t *trace) (func(), error) {
		return s.prepareTransitImport(ctx, t, q.Options.key(nil).settings(), q)
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		ns, err := s.usableNamespace(ctx, q.Namespace)
		if err != nil {
			return Key{}, err
		}
		tx.detail("origin", "IMPORTED")
		return s.planKey(ctx, t, tx, ns, id, algorithm, create)
	})
}

func (q ImportTransitRequest) request() any {
	return struct{ P, N, K, V, C, H, O, E, A, R any }{"transit", q.Namespace, q.Key, q.Version, sha256.Sum256(q.Ciphertext), q.Hash,
		q.Options, q.Exportable, q.AllowRotation, q.AutoRotate}
}

func checkTransitImport(q ImportTransitRequest) error {
	if _, known := oaepHashes[q.Hash]; !known {
		return invalid("hash_function", "%q is unknown; use SHA1, SHA224, SHA256, SHA384 or SHA512", clip(q.Hash))
	}
	switch {
	case q.Protection == HSMLevel:
		return invalid("protection_level", "HSM is not offered for this import; use SOFTWARE, or import a key of NATIVE framing")
	case len(q.Ciphertext) == 0:
		return invalid("ciphertext", "is missing; give the key, wrapped to the namespace's wrapping key")
	case len(q.Ciphertext) > keywrap.MaxWrapped:
		return invalid("ciphertext", "has %d bytes, the limit is %d; it is no wrapped key", len(q.Ciphertext), keywrap.MaxWrapped)
	}
	return nil
}

// prepareTransitImport unwraps the material, for the plan to write.
func (s *Service) prepareTransitImport(ctx context.Context, t *trace, settings transit.Settings, q ImportTransitRequest) (done func(), err error) {
	portable, err := s.unwrapTransit(ctx, q)
	if err != nil {
		return func() {}, err
	}
	defer clear(portable)
	material, err := settings.Import(&s.random, portable)
	if err != nil {
		return func() {}, importError(err)
	}
	t.imported = &importedMaterial{material: material, time: s.now().UTC(), allowRotation: q.AllowRotation}
	return material.Wipe, nil
}

// importError words an error about imported material: nothing of the material itself.
func importError(err error) error {
	if errors.Is(err, keyring.ErrInvalidMaterial) {
		return invalid("ciphertext", "holds no key that fits: %s; wrap a raw symmetric key, or a private key in PKCS#8, of the key's type", err)
	}
	return keyringError(err)
}

// unwrapTransit opens what was wrapped to the namespace's wrapping key.
func (s *Service) unwrapTransit(ctx context.Context, q ImportTransitRequest) ([]byte, error) {
	_, k, err := s.keyResource(ctx, q.Namespace, transitWrappingKey)
	if CodeOf(err) == NotFound {
		return nil, errUnwrapTransit() // nobody has wrapped anything to it
	}
	if err == nil {
		err = k.wraps()
	}
	if err != nil {
		return nil, err
	}
	material, _, err := s.transitMaterial(ctx, k, k.PrimaryVersion, false)
	if err != nil {
		return nil, err
	}
	defer material.Wipe()
	parsed, err := x509.ParsePKCS8PrivateKey(material.Bytes())
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, dataLoss(pathVersion(k.ns.ID, k.ID, k.PrimaryVersion), keyring.ErrInvalidMaterial)
	}
	encrypted, rest, err := keywrap.Split(q.Ciphertext, transitWrappingBits)
	if err != nil {
		return nil, errUnwrapTransit()
	}
	hash := oaepHashes[q.Hash].New()
	ephemeral, err := rsa.DecryptOAEP(hash, nil, private, encrypted, nil)
	if err != nil {
		return nil, errUnwrapTransit()
	}
	defer clear(ephemeral)
	portable, err := keywrap.Unwrap(ephemeral, rest)
	if err != nil {
		return nil, errUnwrapTransit()
	}
	return portable, nil
}

// errUnwrapTransit is all that is ever said of wrapped material that does not open.
func errUnwrapTransit() *Error {
	return &Error{Code: InvalidArgument, Reason: "UNWRAP_FAILED", Field: "ciphertext",
		Message: "ciphertext cannot be unwrapped; wrap the key to the public key that wrapping_key gives, with this hash_function in OAEP"}
}

func (s *Service) importTransitVersion(ctx context.Context, call Call, q ImportTransitRequest) (Key, error) {
	c, at := s.keyChange(policy.ImportKey, q.Namespace, q.Key, q.Idempotency, q.request())
	c.check = checkTransitImport(q)
	c.prepare = func(ctx context.Context, t *trace) (func(), error) {
		if _, _, err := s.currentTransit(ctx, at); err != nil {
			return func() {}, err
		}
		t.about(at.key)
		if !at.key.Transit.Imported {
			return func() {}, precondition("NOT_IMPORTED", "key %s was not imported, so no version of it can be; import a key under another name", at.key.Name)
		}
		return s.prepareTransitImport(ctx, t, at.key.settings, q)
	}
	return mutate(ctx, s, call, c, func(ctx context.Context, t *trace, tx *transaction) (Key, error) {
		t.about(at.key)
		k, d, err := s.currentTransit(ctx, at)
		if err != nil {
			return Key{}, err
		}
		if _, err := s.planImportedVersion(t, tx, d, at, k, true); err != nil {
			return Key{}, err
		}
		tx.detail("origin", "IMPORTED")
		k.value.LatestVersion++
		k.value.PrimaryVersion = k.value.LatestVersion
		return k.value.Key, nil
	})
}
