package kms

import (
	"context"
	"errors"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/policy"
)

// Sign signs a message or a digest.
func (s *Service) Sign(ctx context.Context, call Call, q *SignRequest) (SignResponse, error) {
	return perform(ctx, s, call, policy.Sign, q, (*Service).sign)
}

func (s *Service) sign(ctx context.Context, t *trace, q *SignRequest) (SignResponse, error) {
	v, err := s.admitVersion(ctx, t, policy.Sign, keyring.PurposeSignVerify, q.Namespace, q.Key, q.Version)
	if err != nil {
		return SignResponse{}, err
	}
	message, options, err := signInput(q.Message, q.Digest, q.Format)
	if err != nil {
		return SignResponse{}, err
	}
	signature, err := v.ready.In(ctx).Sign(message, options)
	return SignResponse{signature, v.number}, keyringError(err)
}

// Verify verifies a signature; one that does not match is no error.
func (s *Service) Verify(ctx context.Context, call Call, q *VerifyRequest) (VerifyResponse, error) {
	return perform(ctx, s, call, policy.Verify, q, (*Service).verify)
}

func (s *Service) verify(ctx context.Context, t *trace, q *VerifyRequest) (VerifyResponse, error) {
	v, err := s.admitVersion(ctx, t, policy.Verify, keyring.PurposeSignVerify, q.Namespace, q.Key, q.Version)
	if err != nil {
		return VerifyResponse{}, err
	}
	message, options, err := signInput(q.Message, q.Digest, q.Format)
	if err != nil {
		return VerifyResponse{}, err
	}
	return verified(t, v, v.ready.Verify(message, q.Signature, options))
}

func verified(t *trace, v *version, err error) (VerifyResponse, error) {
	if errors.Is(err, keyring.ErrVerify) {
		t.entry.Details = map[string]string{"valid": "false"}
		return VerifyResponse{Valid: false, Version: v.number}, nil
	}
	return VerifyResponse{Valid: err == nil, Version: v.number}, keyringError(err)
}

// signInput checks that there is either a message or a digest.
func signInput(message, digest []byte, format keyring.Format) ([]byte, keyring.SignOptions, error) {
	options := keyring.SignOptions{Digest: len(digest) > 0, Format: format}
	switch {
	case format > keyring.JWS:
		return nil, options, invalid("format", "is unknown; use DER, RAW or JWS")
	case len(message) > 0 && len(digest) > 0:
		return nil, options, invalid("message", "and digest exclude each other; give one of them")
	case len(digest) > 0:
		return digest, options, nil
	case len(message) == 0:
		return nil, options, invalid("message", "is empty; give a message or a digest")
	}
	return message, options, nil
}

// GenerateMAC computes a MAC.
func (s *Service) GenerateMAC(ctx context.Context, call Call, q *MACRequest) (MACResponse, error) {
	return perform(ctx, s, call, policy.GenerateMac, q, (*Service).generateMAC)
}

func (s *Service) generateMAC(ctx context.Context, t *trace, q *MACRequest) (MACResponse, error) {
	v, err := s.admitVersion(ctx, t, policy.GenerateMac, keyring.PurposeMAC, q.Namespace, q.Key, q.Version)
	if err != nil {
		return MACResponse{}, err
	}
	if len(q.Message) == 0 {
		return MACResponse{}, invalid("message", "is empty; give at least one byte")
	}
	mac, err := v.ready.In(ctx).MAC(q.Message)
	return MACResponse{mac, v.number}, keyringError(err)
}

// VerifyMAC verifies a MAC in constant time; one that does not match is no error.
func (s *Service) VerifyMAC(ctx context.Context, call Call, q *VerifyMACRequest) (VerifyResponse, error) {
	return perform(ctx, s, call, policy.VerifyMac, q, (*Service).verifyMAC)
}

func (s *Service) verifyMAC(ctx context.Context, t *trace, q *VerifyMACRequest) (VerifyResponse, error) {
	v, err := s.admitVersion(ctx, t, policy.VerifyMac, keyring.PurposeMAC, q.Namespace, q.Key, q.Version)
	if err != nil {
		return VerifyResponse{}, err
	}
	if len(q.Message) == 0 {
		return VerifyResponse{}, invalid("message", "is empty; give at least one byte")
	}
	return verified(t, v, v.ready.In(ctx).VerifyMAC(q.Message, q.MAC))
}

// AsymmetricDecrypt opens what was encrypted to a key's public key.
func (s *Service) AsymmetricDecrypt(ctx context.Context, call Call, q *AsymmetricDecryptRequest) (DecryptResponse, error) {
	return perform(ctx, s, call, policy.AsymmetricDecrypt, q, (*Service).asymmetricDecrypt)
}

func (s *Service) asymmetricDecrypt(ctx context.Context, t *trace, q *AsymmetricDecryptRequest) (DecryptResponse, error) {
	v, err := s.admitVersion(ctx, t, policy.AsymmetricDecrypt, keyring.PurposeAsymmetricDecrypt, q.Namespace, q.Key, q.Version)
	if err != nil {
		return DecryptResponse{}, err
	}
	plaintext, err := v.ready.In(ctx).DecryptAsymmetric(q.Ciphertext, q.Label)
	return DecryptResponse{plaintext, v.number}, keyringError(err)
}

// SharedSecret computes the ECDH shared secret with a peer.
func (s *Service) SharedSecret(ctx context.Context, call Call, q *SharedSecretRequest) (SharedSecretResponse, error) {
	return perform(ctx, s, call, policy.DeriveSharedSecret, q, (*Service).sharedSecret)
}

func (s *Service) sharedSecret(ctx context.Context, t *trace, q *SharedSecretRequest) (SharedSecretResponse, error) {
	v, err := s.admitVersion(ctx, t, policy.DeriveSharedSecret, keyring.PurposeKeyAgreement, q.Namespace, q.Key, q.Version)
	if err != nil {
		return SharedSecretResponse{}, err
	}
	secret, err := v.ready.In(ctx).SharedSecret(q.PeerPublicKey)
	return SharedSecretResponse{secret, v.number}, keyringError(err)
}

// PublicKey returns the public key of a version of an asymmetric key.
func (s *Service) PublicKey(ctx context.Context, call Call, q *PublicKeyRequest) (PublicKeyResponse, error) {
	return perform(ctx, s, call, policy.GetPublicKey, q, (*Service).publicKey)
}

func (s *Service) publicKey(ctx context.Context, t *trace, q *PublicKeyRequest) (PublicKeyResponse, error) {
	k, err := s.admitUse(ctx, t, policy.GetPublicKey, q.Namespace, q.Key, nil)
	if err != nil {
		return PublicKeyResponse{}, err
	}
	if err := k.framed(FramingNative); err != nil {
		return PublicKeyResponse{}, err
	}
	if !k.algorithm.Asymmetric() {
		return PublicKeyResponse{}, precondition("WRONG_PURPOSE", "key %s is symmetric (%s) and has no public key", k.Name, k.Algorithm)
	}
	v, err := s.versionToUse(ctx, t, k, q.Version, false)
	if err != nil {
		return PublicKeyResponse{}, err
	}
	pem, err := v.ready.PublicKeyPEM()
	if err != nil {
		return PublicKeyResponse{}, keyringError(err)
	}
	jwk, err := v.ready.PublicKeyJWK(jwkID(k.ID, v.number))
	return PublicKeyResponse{PEM: string(pem), JWK: string(jwk), Algorithm: k.Algorithm, Version: v.number}, keyringError(err)
}

// admitVersion admits a use of a version of a key of that purpose.
func (s *Service) admitVersion(ctx context.Context, t *trace, action policy.Action, purpose keyring.Purpose, namespace, name string, number uint32) (*version, error) {
	k, err := s.admitUse(ctx, t, action, namespace, name, nil)
	if err != nil {
		return nil, err
	}
	if err := need(k, purpose); err != nil {
		return nil, err
	}
	counted := action == policy.Sign || action == policy.GenerateMac
	return s.versionToUse(ctx, t, k, number, counted)
}
