package kms

import "context"

// TransitWrappingKey returns, as PEM, the public key (RSA, 4096 bits) that key material is
// wrapped to for ImportTransitKey into the namespace (needs the right to ImportKey).
func (s *Service) TransitWrappingKey(ctx context.Context, call Call, namespace string) (string, error) {
	return "", errStub()
}

// ImportTransitKey makes a key, or a version of one, from wrapped material (ImportKey, ImportKeyVersion).
func (s *Service) ImportTransitKey(ctx context.Context, call Call, q ImportTransitRequest) (Key, error) {
	return Key{}, errStub()
}
