package kms

import (
	"context"

	"github.com/keywright/keywright/keyring"
	"github.com/keywright/keywright/kms/policy"
)

func (q *TransitSignRequest) operation() op { return bound(policy.Sign, q, (*Service).transitSign) }
func (q *TransitVerifyRequest) operation() op {
	return bound(policy.Verify, q, (*Service).transitVerify)
}
func (q *TransitHMACRequest) operation() op {
	return bound(policy.GenerateMac, q, (*Service).transitHMAC)
}
func (q *TransitVerifyHMACRequest) operation() op {
	return bound(policy.VerifyMac, q, (*Service).transitVerifyHMAC)
}

// TransitSign signs with a key of VAULT framing (needs the right to Sign).
func (s *Service) TransitSign(ctx context.Context, call Call, q *TransitSignRequest) (TransitSignResponse, error) {
	return perform(ctx, s, call, policy.Sign, q, (*Service).transitSign)
}

func (s *Service) transitSign(ctx context.Context, t *trace, q *TransitSignRequest) (TransitSignResponse, error) {
	k, err := s.admitSigner(ctx, t, policy.Sign, q.Namespace, q.Key)
	if err != nil {
		return TransitSignResponse{}, err
	}
	v, err := s.versionToMake(ctx, t, k, q.Version, true)
	if err != nil {
		return TransitSignResponse{}, err
	}
	signature, public, err := v.vault.In(ctx).Sign(nil, q.Message, q.Options)
	return TransitSignResponse{signature, public, v.number}, keyringError(err)
}

func (s *Service) admitSigner(ctx context.Context, t *trace, action policy.Action, namespace, name string) (*key, error) {
	k, err := s.admitTransit(ctx, t, action, namespace, name)
	if err == nil && !k.settings.Type.Signs() {
		err = k.unable("sign")
	}
	return k, err
}

// TransitVerify verifies a signature (Verify); one that does not hold is no error.
func (s *Service) TransitVerify(ctx context.Context, call Call, q *TransitVerifyRequest) (VerifyResponse, error) {
	return perform(ctx, s, call, policy.Verify, q, (*Service).transitVerify)
}

func (s *Service) transitVerify(ctx context.Context, t *trace, q *TransitVerifyRequest) (VerifyResponse, error) {
	k, err := s.admitSigner(ctx, t, policy.Verify, q.Namespace, q.Key)
	if err != nil {
		return VerifyResponse{}, err
	}
	v, body, err := s.versionOf(ctx, t, k, "signature", q.Signature)
	if err != nil {
		return VerifyResponse{}, err
	}
	return verified(t, v, v.vault.Verify(q.Message, body, q.Options))
}

// TransitHMAC computes an HMAC with a key of VAULT framing of any type (GenerateMac).
func (s *Service) TransitHMAC(ctx context.Context, call Call, q *TransitHMACRequest) (TransitHMACResponse, error) {
	return perform(ctx, s, call, policy.GenerateMac, q, (*Service).transitHMAC)
}

func (s *Service) transitHMAC(ctx context.Context, t *trace, q *TransitHMACRequest) (TransitHMACResponse, error) {
	k, err := s.admitTransit(ctx, t, policy.GenerateMac, q.Namespace, q.Key)
	if err != nil {
		return TransitHMACResponse{}, err
	}
	// Beside what a key is for, its HMACs draw no nonces and use another key.
	v, err := s.versionToMake(ctx, t, k, q.Version, k.Purpose == keyring.PurposeMAC)
	if err != nil {
		return TransitHMACResponse{}, err
	}
	mac, err := v.vault.HMAC(nil, q.Message, q.Hash)
	return TransitHMACResponse{mac, v.number}, keyringError(err)
}

// TransitVerifyHMAC verifies an HMAC in constant time (VerifyMac); one that does not
// hold is no error.
func (s *Service) TransitVerifyHMAC(ctx context.Context, call Call, q *TransitVerifyHMACRequest) (VerifyResponse, error) {
	return perform(ctx, s, call, policy.VerifyMac, q, (*Service).transitVerifyHMAC)
}

func (s *Service) transitVerifyHMAC(ctx context.Context, t *trace, q *TransitVerifyHMACRequest) (VerifyResponse, error) {
	k, err := s.admitTransit(ctx, t, policy.VerifyMac, q.Namespace, q.Key)
	if err != nil {
		return VerifyResponse{}, err
	}
	v, body, err := s.versionOf(ctx, t, k, "hmac", q.HMAC)
	if err != nil {
		return VerifyResponse{}, err
	}
	return verified(t, v, v.vault.VerifyHMAC(q.Message, body, q.Hash))
}
