package kms

import "context"

// ExportTransitKey gives a key's material out in plaintext (ExportKey; a public key: GetPublicKey).
func (s *Service) ExportTransitKey(ctx context.Context, call Call, q ExportTransitRequest) (TransitExport, error) {
	return TransitExport{}, errStub()
}

// BackupTransitKey gives a key with all versions out in plaintext (ExportKey).
func (s *Service) BackupTransitKey(ctx context.Context, call Call, q BackupTransitRequest) (string, error) {
	return "", errStub()
}

// RestoreTransitKey makes a key of a backup (ImportKey).
func (s *Service) RestoreTransitKey(ctx context.Context, call Call, q RestoreTransitRequest) (Key, error) {
	return Key{}, errStub()
}
