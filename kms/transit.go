package kms

import (
	"context"

	"github.com/keywright/keywright/kms/policy"
)

// CONTRACT STUB: signatures that server/vault builds on. The implementation replaces this.

func errStub() error {
	return &Error{Code: Unavailable, Reason: "NOT_IMPLEMENTED", Message: "not implemented"}
}

func stubOp(a policy.Action) op {
	return op{a, func(*Service, context.Context, *trace) (any, error) { return nil, errStub() }}
}

func (q *TransitEncryptRequest) operation() op    { return stubOp(policy.Encrypt) }
func (q *TransitDecryptRequest) operation() op    { return stubOp(policy.Decrypt) }
func (q *TransitRewrapRequest) operation() op     { return stubOp(actionReEncrypt) }
func (q *TransitDataKeyRequest) operation() op    { return stubOp(policy.GenerateDataKey) }
func (q *TransitSignRequest) operation() op       { return stubOp(policy.Sign) }
func (q *TransitVerifyRequest) operation() op     { return stubOp(policy.Verify) }
func (q *TransitHMACRequest) operation() op       { return stubOp(policy.GenerateMac) }
func (q *TransitVerifyHMACRequest) operation() op { return stubOp(policy.VerifyMac) }

// TransitEncrypt encrypts with a key of VAULT framing. (Needs the right to Encrypt.)
func (s *Service) TransitEncrypt(ctx context.Context, call Call, q *TransitEncryptRequest) (TransitEncryptResponse, error) {
	return TransitEncryptResponse{}, errStub()
}

// TransitDecrypt opens a ciphertext of a key of VAULT framing.
func (s *Service) TransitDecrypt(ctx context.Context, call Call, q *TransitDecryptRequest) (DecryptResponse, error) {
	return DecryptResponse{}, errStub()
}

// TransitRewrap encrypts a ciphertext anew.
func (s *Service) TransitRewrap(ctx context.Context, call Call, q *TransitRewrapRequest) (TransitEncryptResponse, error) {
	return TransitEncryptResponse{}, errStub()
}

// TransitDataKey makes a data key and wraps it.
func (s *Service) TransitDataKey(ctx context.Context, call Call, q *TransitDataKeyRequest) (GenerateDataKeyResponse, error) {
	return GenerateDataKeyResponse{}, errStub()
}

// TransitSign signs.
func (s *Service) TransitSign(ctx context.Context, call Call, q *TransitSignRequest) (TransitSignResponse, error) {
	return TransitSignResponse{}, errStub()
}

// TransitVerify verifies a signature.
func (s *Service) TransitVerify(ctx context.Context, call Call, q *TransitVerifyRequest) (VerifyResponse, error) {
	return VerifyResponse{}, errStub()
}

// TransitHMAC computes an HMAC.
func (s *Service) TransitHMAC(ctx context.Context, call Call, q *TransitHMACRequest) (TransitHMACResponse, error) {
	return TransitHMACResponse{}, errStub()
}

// TransitVerifyHMAC verifies an HMAC.
func (s *Service) TransitVerifyHMAC(ctx context.Context, call Call, q *TransitVerifyHMACRequest) (VerifyResponse, error) {
	return VerifyResponse{}, errStub()
}

// ReadTransitKey tells what transit's read of a key tells (needs the right to GetKey).
func (s *Service) ReadTransitKey(ctx context.Context, call Call, q KeyRef) (TransitKeyInfo, error) {
	return TransitKeyInfo{}, errStub()
}

// ConfigureTransitKey changes what transit's config of a key changes (UpdateKey).
func (s *Service) ConfigureTransitKey(ctx context.Context, call Call, q ConfigureTransitRequest) (Key, error) {
	return Key{}, errStub()
}

// TrimTransitKey schedules the destruction of old versions (DestroyVersion).
func (s *Service) TrimTransitKey(ctx context.Context, call Call, q TrimTransitRequest) (Key, error) {
	return Key{}, errStub()
}
