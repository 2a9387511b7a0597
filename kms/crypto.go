package kms

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// Encrypt encrypts under a key's primary version.
func (s *Service) Encrypt(ctx context.Context, call Call, q *EncryptRequest) (EncryptResponse, error) {
	return perform(ctx, s, call, policy.Encrypt, q, (*Service).encrypt)
}

func (s *Service) encrypt(ctx context.Context, t *trace, q *EncryptRequest) (EncryptResponse, error) {
	t.bind(q.Binding)
	k, err := s.admitUse(ctx, t, policy.Encrypt, q.Namespace, q.Key, q.Binding.Context)
	if err != nil {
		return EncryptResponse{}, err
	}
	ciphertext, version, err := s.seal(ctx, t, k, "plaintext", q.Plaintext, q.Binding)
	return EncryptResponse{ciphertext, version}, err
}

// seal encrypts under the primary version, rotated first when its uses are spent.
func (s *Service) seal(ctx context.Context, t *trace, k *key, field string, plaintext []byte, b Binding) ([]byte, uint32, error) {
	if err := need(k, keyring.PurposeEncryptDecrypt); err != nil {
		return nil, 0, err
	}
	if len(plaintext) == 0 {
		return nil, 0, invalid(field, "is empty; give at least one byte")
	}
	aad, err := b.aad("aad")
	if err != nil {
		return nil, 0, err
	}
	v, err := s.primaryToUse(ctx, t, k)
	if err != nil {
		return nil, 0, err
	}
	ciphertext, err := v.ready.In(ctx).Seal(nil, plaintext, aad)
	return ciphertext, v.number, keyringError(err)
}

// primaryToUse returns the primary version after counting one more use of it.
func (s *Service) primaryToUse(ctx context.Context, t *trace, k *key) (*version, error) {
	for range maxAttempts {
		v, err := s.primaryOf(ctx, k)
		if err != nil {
			return nil, err
		}
		if v.state != Enabled {
			newer, err := s.findKeyByID(ctx, k.ns, k.ID)
			if err != nil || newer.PrimaryVersion == k.PrimaryVersion {
				return nil, cmp.Or[error](err, errVersionState(v.number, v.state))
			}
			k = newer // another version was made primary, and only then this one disabled
			continue
		}
		switch err := s.spend(ctx, k, v); {
		case err == nil:
			t.entry.Version = v.number
			s.touch(v.usage, t.start)
			return v, nil
		case !errors.Is(err, errUsesSpent):
			return nil, err
		}
		if err := s.rotateSpent(ctx, k); err != nil {
			return nil, err
		}
		if k, err = s.findKeyByID(ctx, k.ns, k.ID); err != nil {
			return nil, err
		}
	}
	return nil, &Error{Code: Aborted, Reason: "CONFLICT", Message: "the key's uses are spent faster than it can be rotated; try again"}
}

// versionToUse returns a version for a use that names it; 0 is the primary one.
// Only uses of the primary version count towards its rotation.
func (s *Service) versionToUse(ctx context.Context, t *trace, k *key, number uint32, counted bool) (*version, error) {
	if counted && (number == 0 || number == k.PrimaryVersion) {
		return s.primaryToUse(ctx, t, k)
	}
	v, err := s.findVersion(ctx, k, number)
	if err != nil {
		return nil, err
	}
	t.entry.Version = v.number
	if v.state != Enabled {
		return nil, s.alarm(t, errVersionState(v.number, v.state))
	}
	s.touch(v.usage, t.start)
	return v, nil
}

// alarm raises an alarm when what was to be used is scheduled for destruction:
// somebody still needs it. It returns err.
func (s *Service) alarm(t *trace, err error) error {
	if !slices.Contains([]string{reasonVersionScheduled, reasonKeyScheduled, reasonNamespaceScheduled}, reasonOf(err)) {
		return err
	}
	s.config.Observer.ScheduledUse(t.action)
	second := t.start.Unix()
	if last := s.alarmed.Load(); second > last && s.alarmed.CompareAndSwap(last, second) { // once a second
		s.log.Warn("use of what is scheduled for destruction: restore it if it is still needed", "action", string(t.action),
			"namespace", t.entry.Namespace, "key", t.entry.Key, "version", t.entry.Version, "request_id", t.entry.RequestID)
		s.auditAlarm(t, reasonOf(err))
	}
	return err
}

// auditAlarm logs an alarm as an event of its own, beside the line of the use
// that raised it: that is what to look for and to alert on.
func (s *Service) auditAlarm(t *trace, reason string) {
	event := audit.Entry{Time: t.start, Phase: audit.PhaseEvent, RequestID: t.entry.RequestID, Principal: t.entry.Principal, Action: "ScheduledUse",
		Namespace: t.entry.Namespace, Key: t.entry.Key, KeyID: t.entry.KeyID, Version: t.entry.Version, Outcome: string(FailedPrecondition),
		Reason: reason, Details: map[string]string{"use": string(t.action)}}
	if _, err := s.audit.Append(&event, audit.Hot); err != nil {
		s.log.Error("an alarm was not logged", "error", err)
	}
}

// Decrypt opens a native ciphertext.
func (s *Service) Decrypt(ctx context.Context, call Call, q *DecryptRequest) (DecryptResponse, error) {
	return perform(ctx, s, call, policy.Decrypt, q, (*Service).decrypt)
}

func (s *Service) decrypt(ctx context.Context, t *trace, q *DecryptRequest) (DecryptResponse, error) {
	t.bind(q.Binding)
	k, err := s.admitCiphertext(ctx, t, q.Namespace, q.Key, q.Ciphertext, q.Binding.Context)
	if err != nil {
		return DecryptResponse{}, err
	}
	plaintext, version, err := s.open(ctx, t, k, q.Ciphertext, q.Binding)
	return DecryptResponse{plaintext, version}, err
}

// admitCiphertext authorises Decrypt on the key that the caller names or, when
// he names none, on the one whose id the ciphertext carries. To whom may not
// decrypt, an id that does not exist looks like one that does.
func (s *Service) admitCiphertext(ctx context.Context, t *trace, namespace, name string, ciphertext []byte, encryptionContext map[string]string) (*key, error) {
	named := name != ""
	if header, err := keyring.ParseHeader(ciphertext); err == nil && !named {
		name = idPrefix + ID(header.KeyID).String()
	} else if !named {
		name = idPrefix + ID(0).String()
	}
	k, err := s.admitUse(ctx, t, policy.Decrypt, namespace, name, encryptionContext)
	if err != nil && !named && reasonOf(err) == "KEY_NOT_FOUND" {
		return nil, errDecrypt()
	}
	return k, err
}

// open decrypts with the version that the ciphertext names.
func (s *Service) open(ctx context.Context, t *trace, k *key, ciphertext []byte, b Binding) ([]byte, uint32, error) {
	if err := need(k, keyring.PurposeEncryptDecrypt); err != nil {
		return nil, 0, err
	}
	aad, err := b.aad("aad")
	if err != nil {
		return nil, 0, err
	}
	header, err := keyring.ParseHeader(ciphertext)
	if err != nil || ID(header.KeyID) != k.ID || header.Version == 0 {
		return nil, 0, errDecrypt()
	}
	v, err := s.versionToUse(ctx, t, k, header.Version, false)
	if CodeOf(err) == NotFound {
		return nil, 0, errDecrypt()
	}
	if err != nil {
		return nil, 0, err
	}
	plaintext, err := v.ready.In(ctx).Open(nil, ciphertext, aad)
	return plaintext, v.number, keyringError(err)
}

// ReEncrypt decrypts with one key and encrypts with another, or with a newer
// version of the same, without showing the plaintext.
func (s *Service) ReEncrypt(ctx context.Context, call Call, q *ReEncryptRequest) (ReEncryptResponse, error) {
	return perform(ctx, s, call, actionReEncrypt, q, (*Service).reEncrypt)
}

// actionReEncrypt is what the audit log calls it; to policies it is Decrypt with
// the source and Encrypt with the destination.
const actionReEncrypt policy.Action = "ReEncrypt"

func (s *Service) reEncrypt(ctx context.Context, t *trace, q *ReEncryptRequest) (ReEncryptResponse, error) {
	t.bind(q.Binding)
	source, err := s.admitCiphertext(ctx, t, q.Namespace, q.Key, q.Ciphertext, q.Binding.Context)
	if err != nil {
		return ReEncryptResponse{}, err
	}
	destination, err := s.admitDestination(ctx, t, cmp.Or(q.DestinationNamespace, q.Namespace), cmp.Or(q.DestinationKey, source.Name), q.DestinationBinding.Context)
	if err != nil {
		return ReEncryptResponse{}, err
	}
	plaintext, from, err := s.open(ctx, t, source, q.Ciphertext, q.Binding)
	if err != nil {
		return ReEncryptResponse{}, err
	}
	defer clear(plaintext)
	ciphertext, to, err := s.seal(ctx, t, destination, "ciphertext", plaintext, q.DestinationBinding)
	if err != nil {
		return ReEncryptResponse{}, err
	}
	t.entry.Version = from
	t.destination.Version = to
	t.entry.Details["destination_version"] = strconv.FormatUint(uint64(to), 10)
	return ReEncryptResponse{Ciphertext: ciphertext, SourceKey: source.Name, SourceVersion: from, DestinationVersion: to}, nil
}

// admitDestination authorises Encrypt on the destination, with its own
// encryption context; the audit entry goes on naming the source.
func (s *Service) admitDestination(ctx context.Context, t *trace, namespace, name string, encryptionContext map[string]string) (*key, error) {
	entry, algorithm := t.entry, t.algorithm
	destination, err := s.admitUse(ctx, t, policy.Encrypt, namespace, name, encryptionContext)
	decided := t.entry
	t.entry, t.algorithm = entry, algorithm
	t.entry.Decision, t.entry.Policies = decided.Decision, append(entry.Policies[:len(entry.Policies):len(entry.Policies)], decided.Policies...)
	t.entry.Details = map[string]string{"destination": namespace + "/" + name}
	t.destination = &audit.BatchCount{Action: string(policy.Encrypt), Namespace: namespace, Key: decided.Key, KeyID: decided.KeyID}
	return destination, err
}

// GenerateDataKey makes a data key and wraps it.
func (s *Service) GenerateDataKey(ctx context.Context, call Call, q *GenerateDataKeyRequest) (GenerateDataKeyResponse, error) {
	return perform(ctx, s, call, policy.GenerateDataKey, q, (*Service).generateDataKey)
}

func (s *Service) generateDataKey(ctx context.Context, t *trace, q *GenerateDataKeyRequest) (GenerateDataKeyResponse, error) {
	t.bind(q.Binding)
	k, err := s.admitUse(ctx, t, policy.GenerateDataKey, q.Namespace, q.Key, q.Binding.Context)
	if err != nil {
		return GenerateDataKeyResponse{}, err
	}
	size := q.Size
	if size == 0 {
		size = DefaultDataKey
	}
	if size < 0 || size > MaxDataKey {
		return GenerateDataKeyResponse{}, invalid("num_bytes", "is %d; use 1 to %d, or 0 for %d", size, MaxDataKey, DefaultDataKey)
	}
	plaintext := make([]byte, size)
	if _, err := s.random.Read(plaintext); err != nil {
		return GenerateDataKeyResponse{}, err
	}
	ciphertext, version, err := s.seal(ctx, t, k, "num_bytes", plaintext, q.Binding)
	if q.OmitPlaintext || err != nil {
		clear(plaintext)
		plaintext = nil
	}
	return GenerateDataKeyResponse{plaintext, ciphertext, version}, err
}

// GenerateDataKeyPair makes an asymmetric key pair and wraps the private key.
func (s *Service) GenerateDataKeyPair(ctx context.Context, call Call, q *GenerateDataKeyPairRequest) (GenerateDataKeyPairResponse, error) {
	return perform(ctx, s, call, policy.GenerateDataKeyPair, q, (*Service).generateDataKeyPair)
}

func (s *Service) generateDataKeyPair(ctx context.Context, t *trace, q *GenerateDataKeyPairRequest) (GenerateDataKeyPairResponse, error) {
	t.bind(q.Binding)
	k, err := s.admitUse(ctx, t, policy.GenerateDataKeyPair, q.Namespace, q.Key, q.Binding.Context)
	if err != nil {
		return GenerateDataKeyPairResponse{}, err
	}
	public, private, err := s.newPair(q.Algorithm)
	if err != nil {
		return GenerateDataKeyPairResponse{}, err
	}
	ciphertext, version, err := s.seal(ctx, t, k, "algorithm", private, q.Binding)
	if q.OmitPlaintext || err != nil {
		clear(private)
		private = nil
	}
	return GenerateDataKeyPairResponse{public, private, ciphertext, version}, err
}

// newPair makes a key pair: SubjectPublicKeyInfo and PKCS#8, both in DER.
func (s *Service) newPair(algorithm string) (public, private []byte, err error) {
	a, ok := keyring.Lookup(algorithm)
	if !ok || !a.Asymmetric() {
		return nil, nil, invalid("algorithm", "%q makes no key pair; use an algorithm to sign, to decrypt asymmetrically or to agree on keys", clip(algorithm))
	}
	material, err := a.Generate(&s.random)
	if err != nil {
		return nil, nil, keyringError(err)
	}
	defer material.Wipe()
	return a.EncodePair(material)
}

// GenerateRandom returns random bytes.
func (s *Service) GenerateRandom(ctx context.Context, call Call, q *GenerateRandomRequest) (GenerateRandomResponse, error) {
	return perform(ctx, s, call, policy.GenerateRandom, q, (*Service).generateRandom)
}

func (s *Service) generateRandom(ctx context.Context, t *trace, q *GenerateRandomRequest) (GenerateRandomResponse, error) {
	t.on(q.Namespace, "")
	resource, _, missing := s.namespaceResource(ctx, q.Namespace)
	if err := s.permit(t, policy.GenerateRandom, resource, nil, missing); err != nil {
		return GenerateRandomResponse{}, err
	}
	if err := s.usable(q.Namespace); err != nil {
		return GenerateRandomResponse{}, s.alarm(t, err)
	}
	if q.Size < 1 || q.Size > MaxRandom {
		return GenerateRandomResponse{}, invalid("num_bytes", "is %d; use 1 to %d", q.Size, MaxRandom)
	}
	data := make([]byte, q.Size)
	_, err := s.random.Read(data)
	return GenerateRandomResponse{data}, err
}

// need refuses a key of another framing or purpose.
func need(k *key, purpose keyring.Purpose) error {
	if err := k.framed(FramingNative); err != nil || k.Purpose == purpose {
		return err
	}
	return precondition("WRONG_PURPOSE", "key %s is for %s, this operation needs one for %s", k.Name, k.Purpose, purpose)
}

// bind notes the encryption context for the audit log.
func (t *trace) bind(b Binding) { t.entry.EncryptionContext = b.Context }

// aad turns a binding into what the cipher authenticates.
func (b Binding) aad(field string) (keyring.AAD, error) {
	switch {
	case len(b.AAD) > 0 && len(b.Context) > 0:
		return keyring.AAD{}, invalid(field, "and encryption_context exclude each other; give one of them")
	case len(b.AAD) > MaxAAD:
		return keyring.AAD{}, invalid(field, "has %d bytes, the limit is %d; give a hash of it", len(b.AAD), MaxAAD)
	case len(b.Context) == 0:
		return keyring.RawAAD(b.AAD), nil
	}
	canonical, err := keyring.CanonicalContext(b.Context)
	return keyring.ContextAAD(canonical), keyringError(err)
}

// keyringError gives the keyring's errors the code that callers see.
func keyringError(err error) error {
	if err == nil {
		return nil
	}
	var input *keyring.InputError
	var external *keyring.ExternalError
	switch {
	case errors.As(err, &external):
		return keyError("", external.Err)
	case errors.Is(err, keyring.ErrDecrypt), errors.Is(err, keyring.ErrWrongKey), errors.Is(err, keyring.ErrFormat):
		return errDecrypt()
	case errors.As(err, &input):
		return &Error{Code: InvalidArgument, Reason: "INVALID_FIELD", Field: input.Field, Message: input.Error()}
	case errors.Is(err, keyring.ErrPurpose):
		return precondition("WRONG_PURPOSE", "the key does not serve this operation; use a key of another type")
	case errors.Is(err, keyring.ErrInvalidPublicKey):
		return invalid("peer_public_key", "is not a public key of this algorithm; give SubjectPublicKeyInfo (DER or PEM) or the raw point")
	case errors.Is(err, keyring.ErrNotFIPS):
		return precondition("NOT_FIPS", "the algorithm is not allowed while FIPS 140-3 mode is enforced")
	}
	return err
}
