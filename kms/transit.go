package kms

import (
	"context"
	"strconv"

	"github.com/keywright/keywright/keyring/transit"
	"github.com/keywright/keywright/kms/policy"
)

func (q *TransitEncryptRequest) operation() op {
	return bound(policy.Encrypt, q, (*Service).transitEncrypt)
}
func (q *TransitDecryptRequest) operation() op {
	return bound(policy.Decrypt, q, (*Service).transitDecrypt)
}
func (q *TransitRewrapRequest) operation() op {
	return bound(actionReEncrypt, q, (*Service).transitRewrap)
}
func (q *TransitDataKeyRequest) operation() op {
	return bound(policy.GenerateDataKey, q, (*Service).transitDataKey)
}

// TransitEncrypt encrypts with a key of VAULT framing (needs the right to Encrypt).
// What has a random 96-bit nonce is counted, and the key rotated at the limit, as with
// Encrypt; where the request names an older version, that is refused at the limit.
func (s *Service) TransitEncrypt(ctx context.Context, call Call, q *TransitEncryptRequest) (TransitEncryptResponse, error) {
	return perform(ctx, s, call, policy.Encrypt, q, (*Service).transitEncrypt)
}

func (s *Service) transitEncrypt(ctx context.Context, t *trace, q *TransitEncryptRequest) (TransitEncryptResponse, error) {
	k, err := s.admitTransit(ctx, t, policy.Encrypt, q.Namespace, q.Key)
	if err != nil {
		return TransitEncryptResponse{}, err
	}
	ciphertext, version, err := s.sealTransit(ctx, t, k, q.Version, q.Plaintext, &q.Params)
	return TransitEncryptResponse{ciphertext, version}, err
}

// admitTransit is admitUse for a key of VAULT framing. The context that a key is
// derived by is the caller's secret, maybe: neither policies nor the log see it.
func (s *Service) admitTransit(ctx context.Context, t *trace, action policy.Action, namespace, name string) (*key, error) {
	k, err := s.admitUse(ctx, t, action, namespace, name, nil)
	if err != nil {
		return nil, err
	}
	return k, k.framed(FramingVault)
}

// sealTransit encrypts under a version; 0 is the latest.
func (s *Service) sealTransit(ctx context.Context, t *trace, k *key, number uint32, plaintext []byte, p *transit.Params) ([]byte, uint32, error) {
	if !k.settings.Type.Encrypts() {
		return nil, 0, k.unable("encrypt")
	}
	if err := checkParams(p); err != nil {
		return nil, 0, err
	}
	v, err := s.versionToMake(ctx, t, k, number, true)
	if err != nil {
		return nil, 0, err
	}
	ciphertext, err := v.vault.In(ctx).Encrypt(nil, plaintext, *p)
	return ciphertext, v.number, keyringError(err)
}

// unable refuses what a key's type cannot do.
func (k *key) unable(what string) error {
	return precondition("WRONG_PURPOSE", "key %s is of type %s, which does not %s; use a key of another type", k.Name, k.Transit.Type, what)
}

func checkParams(p *transit.Params) error {
	switch {
	case len(p.Context) > MaxAAD:
		return invalid("context", "has %d bytes, the limit is %d; give a hash of it", len(p.Context), MaxAAD)
	case len(p.AAD) > MaxAAD:
		return invalid("associated_data", "has %d bytes, the limit is %d; give a hash of it", len(p.AAD), MaxAAD)
	}
	return nil
}

// TransitDecrypt opens a ciphertext of a key of VAULT framing (Decrypt). That one does
// not open is all that is said of why.
func (s *Service) TransitDecrypt(ctx context.Context, call Call, q *TransitDecryptRequest) (DecryptResponse, error) {
	return perform(ctx, s, call, policy.Decrypt, q, (*Service).transitDecrypt)
}

func (s *Service) transitDecrypt(ctx context.Context, t *trace, q *TransitDecryptRequest) (DecryptResponse, error) {
	k, err := s.admitTransit(ctx, t, policy.Decrypt, q.Namespace, q.Key)
	if err != nil {
		return DecryptResponse{}, err
	}
	plaintext, version, err := s.openSealedTransit(ctx, t, k, q.Ciphertext, &q.Params)
	return DecryptResponse{plaintext, version}, err
}

// openSealedTransit decrypts with the version that the ciphertext names.
func (s *Service) openSealedTransit(ctx context.Context, t *trace, k *key, ciphertext []byte, p *transit.Params) ([]byte, uint32, error) {
	if !k.settings.Type.Decrypts() {
		return nil, 0, k.unable("decrypt")
	}
	if err := checkParams(p); err != nil {
		return nil, 0, err
	}
	v, body, err := s.versionOf(ctx, t, k, "ciphertext", ciphertext)
	if err != nil {
		return nil, 0, err
	}
	plaintext, err := v.vault.In(ctx).Decrypt(nil, body, *p)
	return plaintext, v.number, keyringError(err)
}

// TransitRewrap encrypts a ciphertext anew, under the latest version or another,
// without showing the plaintext (Decrypt and Encrypt).
func (s *Service) TransitRewrap(ctx context.Context, call Call, q *TransitRewrapRequest) (TransitEncryptResponse, error) {
	return perform(ctx, s, call, actionReEncrypt, q, (*Service).transitRewrap)
}

func (s *Service) transitRewrap(ctx context.Context, t *trace, q *TransitRewrapRequest) (TransitEncryptResponse, error) {
	k, err := s.admitUse(ctx, t, policy.Decrypt, q.Namespace, q.Key, nil)
	if err != nil {
		return TransitEncryptResponse{}, err
	}
	if _, err := s.admitDestination(ctx, t, q.Namespace, k.Name, nil); err != nil {
		return TransitEncryptResponse{}, err
	}
	if err := k.framed(FramingVault); err != nil {
		return TransitEncryptResponse{}, err
	}
	plaintext, from, err := s.openSealedTransit(ctx, t, k, q.Ciphertext, &q.Params)
	if err != nil {
		return TransitEncryptResponse{}, err
	}
	defer clear(plaintext)
	params := q.EncryptParams
	if params == nil {
		params = &q.Params
	}
	ciphertext, to, err := s.sealTransit(ctx, t, k, q.Version, plaintext, params)
	if err != nil {
		return TransitEncryptResponse{}, err
	}
	t.entry.Version = from
	t.destination.Version = to
	t.entry.Details["destination_version"] = strconv.FormatUint(uint64(to), 10)
	return TransitEncryptResponse{ciphertext, to}, nil
}

// TransitDataKey makes a data key of 16, 32 or 64 bytes and wraps it (GenerateDataKey).
func (s *Service) TransitDataKey(ctx context.Context, call Call, q *TransitDataKeyRequest) (GenerateDataKeyResponse, error) {
	return perform(ctx, s, call, policy.GenerateDataKey, q, (*Service).transitDataKey)
}

func (s *Service) transitDataKey(ctx context.Context, t *trace, q *TransitDataKeyRequest) (GenerateDataKeyResponse, error) {
	k, err := s.admitTransit(ctx, t, policy.GenerateDataKey, q.Namespace, q.Key)
	if err != nil {
		return GenerateDataKeyResponse{}, err
	}
	if q.Size != 16 && q.Size != 32 && q.Size != 64 {
		return GenerateDataKeyResponse{}, invalid("bits", "is %d; use 128, 256 or 512", 8*q.Size)
	}
	plaintext := make([]byte, q.Size)
	if _, err := s.random.Read(plaintext); err != nil {
		return GenerateDataKeyResponse{}, err
	}
	ciphertext, version, err := s.sealTransit(ctx, t, k, q.Version, plaintext, &q.Params)
	if q.OmitPlaintext || err != nil {
		clear(plaintext)
		plaintext = nil
	}
	return GenerateDataKeyResponse{plaintext, ciphertext, version}, err
}
