package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/kms"
)

// openTokens opens the further tokens of the configuration. One that is away is
// opened once it is back: namespaces on other tokens need not wait for it.
func (s *stack) openTokens(ctx context.Context, c config.HSM, log *slog.Logger) error {
	s.tokens = map[string]hsm.Service{}
	for _, t := range c.Tokens {
		log := log.With("token", t.Name)
		open := func(ctx context.Context) (hsm.Service, error) { return openDevice(ctx, c.Of(t), log) }
		opened, err := open(ctx)
		if err != nil && away(err) {
			log.Error("the token is away; it is opened when it is back", "error", err)
			opened, err = newLateToken(c.Of(t), open), nil
		}
		if err != nil {
			return fmt.Errorf("hsm.tokens, token %s: %w", t.Name, err)
		}
		s.tokens[t.Name] = opened
	}
	return nil
}

// away tells what may mend itself from a mistake in the configuration, and from a
// PIN that must not be tried again.
func away(err error) bool {
	for _, mistake := range []error{hsm.ErrConfig, hsm.ErrModule, hsm.ErrAmbiguousToken, hsm.ErrPIN} {
		if errors.Is(err, mistake) {
			return false
		}
	}
	return errors.Is(err, hsm.ErrTokenNotFound) || errors.Is(err, hsm.ErrUnavailable)
}

func (s *stack) kmsTokens() map[string]kms.HSM {
	tokens := map[string]kms.HSM{}
	for name, service := range s.tokens {
		tokens[name] = device{service}
	}
	return tokens
}

func (s *stack) closeTokens() (errs []error) {
	for _, service := range s.tokens {
		errs = append(errs, service.Close())
	}
	return errs
}
