package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/hsm"
)

// lateToken is a token that was away at the start. Each probe tries to open it, and
// from then on it is what was opened. A PIN that was refused is not tried again.
// Safe for concurrent use.
type lateToken struct {
	config config.HSM
	open   func(context.Context) (hsm.Service, error)
	opened atomic.Pointer[hsm.Service]

	lock   sync.Mutex // one attempt at a time
	stop   error      // why no more attempt is made
	closed bool
}

func newLateToken(c config.HSM, open func(context.Context) (hsm.Service, error)) *lateToken {
	return &lateToken{config: c, open: open}
}

var _ hsm.Service = (*lateToken)(nil)

// now returns the token once it is opened.
func (l *lateToken) now() (hsm.Service, error) {
	if opened := l.opened.Load(); opened != nil {
		return *opened, nil
	}
	return nil, fmt.Errorf("%w: the token was away at the start, and is not back yet", hsm.ErrUnavailable)
}

// Probe implements hsm.Service.
func (l *lateToken) Probe(ctx context.Context) error {
	if opened, err := l.now(); err == nil {
		return opened.Probe(ctx)
	}
	return l.try(ctx)
}

func (l *lateToken) try(ctx context.Context) error {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.closed {
		return hsm.ErrClosed
	}
	if l.stop != nil || l.opened.Load() != nil {
		return l.stop
	}
	opened, err := l.open(ctx)
	if err != nil {
		if !away(err) {
			l.stop = fmt.Errorf("the token is not tried again until a restart: %w", err)
		}
		return err
	}
	l.opened.Store(&opened)
	return nil
}

// late forwards a call.
func late[A any](l *lateToken, call func(hsm.Service) (A, error)) (A, error) {
	opened, err := l.now()
	if err != nil {
		var none A
		return none, err
	}
	return call(opened)
}

// GenerateRoot implements hsm.Service.
func (l *lateToken) GenerateRoot(ctx context.Context) (hsm.Root, error) {
	return late(l, func(s hsm.Service) (hsm.Root, error) { return s.GenerateRoot(ctx) })
}

// GenerateRootAs implements hsm.Service.
func (l *lateToken) GenerateRootAs(ctx context.Context, id hsm.KeyID) (hsm.Root, error) {
	return late(l, func(s hsm.Service) (hsm.Root, error) { return s.GenerateRootAs(ctx, id) })
}

// FindRoot implements hsm.Service.
func (l *lateToken) FindRoot(ctx context.Context, id hsm.KeyID, checkValue []byte) (hsm.Root, error) {
	return late(l, func(s hsm.Service) (hsm.Root, error) { return s.FindRoot(ctx, id, checkValue) })
}

// Wrap implements hsm.Service.
func (l *lateToken) Wrap(ctx context.Context, root hsm.KeyID, version uint32, plaintext, aad []byte) ([]byte, error) {
	return late(l, func(s hsm.Service) ([]byte, error) { return s.Wrap(ctx, root, version, plaintext, aad) })
}

// Unwrap implements hsm.Service.
func (l *lateToken) Unwrap(ctx context.Context, blob, aad []byte) ([]byte, error) {
	return late(l, func(s hsm.Service) ([]byte, error) { return s.Unwrap(ctx, blob, aad) })
}

// Random implements hsm.Service.
func (l *lateToken) Random(ctx context.Context, n int) ([]byte, error) {
	return late(l, func(s hsm.Service) ([]byte, error) { return s.Random(ctx, n) })
}

// GenerateSigner implements hsm.Service.
func (l *lateToken) GenerateSigner(ctx context.Context) (hsm.Signer, error) {
	return late(l, func(s hsm.Service) (hsm.Signer, error) { return s.GenerateSigner(ctx) })
}

// FindSigner implements hsm.Service.
func (l *lateToken) FindSigner(ctx context.Context, id hsm.KeyID) (hsm.Signer, error) {
	return late(l, func(s hsm.Service) (hsm.Signer, error) { return s.FindSigner(ctx, id) })
}

// Sign implements hsm.Service.
func (l *lateToken) Sign(ctx context.Context, signer hsm.KeyID, message []byte) ([]byte, error) {
	return late(l, func(s hsm.Service) ([]byte, error) { return s.Sign(ctx, signer, message) })
}

// Destroy implements hsm.Service.
func (l *lateToken) Destroy(ctx context.Context, id hsm.KeyID) error {
	_, err := late(l, func(s hsm.Service) (struct{}, error) { return struct{}{}, s.Destroy(ctx, id) })
	return err
}

// Status implements hsm.Service.
func (l *lateToken) Status() hsm.Status {
	if opened, err := l.now(); err == nil {
		return opened.Status()
	}
	return hsm.Status{Module: l.config.Module, TokenLabel: l.config.TokenLabel, LastErrorClass: hsm.ClassDevice}
}

// Close implements hsm.Service.
func (l *lateToken) Close() error {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.closed = true
	if opened := l.opened.Load(); opened != nil {
		return (*opened).Close()
	}
	return nil
}
