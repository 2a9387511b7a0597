package main

import (
	"context"

	"github.com/keywright/keywright/hsm"
)

// GenerateKey implements hsm.Service.
func (l *lateToken) GenerateKey(ctx context.Context, id hsm.KeyID, algorithm string) (hsm.Key, error) {
	return late(l, func(s hsm.Service) (hsm.Key, error) { return s.GenerateKey(ctx, id, algorithm) })
}

// ImportKey implements hsm.Service.
func (l *lateToken) ImportKey(ctx context.Context, id hsm.KeyID, algorithm string, material []byte) (hsm.Key, error) {
	return late(l, func(s hsm.Service) (hsm.Key, error) { return s.ImportKey(ctx, id, algorithm, material) })
}

// FindKey implements hsm.Service.
func (l *lateToken) FindKey(ctx context.Context, id hsm.KeyID, algorithm string) (hsm.Key, error) {
	return late(l, func(s hsm.Service) (hsm.Key, error) { return s.FindKey(ctx, id, algorithm) })
}

// UseKey implements hsm.Service.
func (l *lateToken) UseKey(ctx context.Context, id hsm.KeyID, algorithm string, use hsm.Use, data, extra []byte) ([]byte, error) {
	return late(l, func(s hsm.Service) ([]byte, error) { return s.UseKey(ctx, id, algorithm, use, data, extra) })
}

// ListKeys implements hsm.Service.
func (l *lateToken) ListKeys(ctx context.Context) ([]hsm.KeyID, error) {
	return late(l, func(s hsm.Service) ([]hsm.KeyID, error) { return s.ListKeys(ctx) })
}
