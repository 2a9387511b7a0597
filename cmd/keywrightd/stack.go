package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/store/badger"
)

// closeTimeout bounds what a service still has to write when it closes.
const closeTimeout = 10 * time.Second

// stack is what a kms.Service stands on.
type stack struct {
	receivers []kms.Receiver
	store     *badger.Store
	audit     *audit.Log
	device    hsm.Service
	tokens    map[string]hsm.Service // further ones, by name
}

// openStack opens all of it. The data directory comes first: when another
// server has it, the token is left in peace. The audit log comes before the store:
// a store without one beside it has lost it. With rolledBack, a log that is older
// than its checkpoint is opened too.
func openStack(ctx context.Context, c *config.Config, log *slog.Logger, rolledBack bool) (*stack, error) {
	s := &stack{}
	err := s.open(ctx, c, log, rolledBack)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stack) open(ctx context.Context, c *config.Config, log *slog.Logger, rolledBack bool) (err error) {
	if s.receivers, err = receivers(c); err != nil {
		return err
	}
	if s.audit, err = audit.Open(c.AuditDir(), audit.Options{
		Durability:   audit.Mode(c.Audit.Durability),
		Interval:     time.Duration(c.Audit.Interval),
		SegmentBytes: int64(c.Audit.SegmentBytes),
		ReserveBytes: int64(c.Audit.ReserveBytes),
		MaxUnsigned:  c.Audit.MaxUnsigned,
		RolledBack:   rolledBack,
		Logger:       log,
	}); err != nil {
		return err
	}
	if s.store, err = badger.Open(badger.Options{
		Dir:           c.StoreDir(),
		KeepRevisions: c.Store.KeepRevisions,
		MinFree:       uint64(c.Store.MinFreeBytes),
		Logger:        log,
	}); err != nil {
		return err
	}
	if s.device, err = openDevice(ctx, c.HSM, log); err != nil {
		return err
	}
	return s.openTokens(ctx, c.HSM, log)
}

func pinSource(p config.PIN) hsm.PINSource {
	switch {
	case p.File != "":
		return hsm.PINFromFile(p.File)
	case p.Env != "":
		return hsm.PINFromEnv(p.Env)
	default:
		return hsm.PINFromFD(uintptr(p.FD))
	}
}

// close closes what was opened, in the opposite order.
func (s *stack) close() error {
	errs := s.closeTokens()
	if s.device != nil {
		errs = append(errs, s.device.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	return errors.Join(errs...)
}

// config is what kms is to stand on.
func (s *stack) config(c *config.Config, log *slog.Logger, observer kms.Observer) kms.Config {
	return kms.Config{
		Store:        s.store,
		StoreName:    "badger",
		Audit:        s.audit,
		HSM:          device{s.device},
		Tokens:       s.kmsTokens(),
		OnLoss:       kms.OnLoss(c.HSM.OnLoss),
		OnLossAfter:  time.Duration(c.HSM.OnLossAfter),
		Observer:     observer,
		Logger:       log,
		CacheBytes:   int64(c.CacheBytes),
		Receivers:    s.receivers,
		Retention:    time.Duration(c.Audit.Retention),
		HashContexts: c.Audit.Contexts == "hashed",

		CallerRequestsPerSecond: c.Limits.CallerRequestsPerSecond,
	}
}

// withService opens the installation that is there, hands its service to use, and
// closes all of it. Where there is no installation it creates nothing.
func withService(ctx context.Context, c *config.Config, log *slog.Logger, observer kms.Observer,
	use func(*stack, *kms.Service) error) error {
	return withStack(ctx, c, log, false, func(s *stack) (err error) {
		service, err := kms.Open(ctx, s.config(c, log, observer))
		if err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			err = errors.Join(err, service.Close(ctx))
		}()
		return use(s, service)
	})
}

// withStack opens what an installation stands on, hands it to use, and closes it.
func withStack(ctx context.Context, c *config.Config, log *slog.Logger, rolledBack bool, use func(*stack) error) (err error) {
	if err := requireData(c); err != nil {
		return err
	}
	s, err := openStack(ctx, c, log, rolledBack)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return use(s)
}

// requireData makes sure that opening the store and the audit log finds them
// and does not make new ones.
func requireData(c *config.Config) error {
	if err := requireDir(c.StoreDir()); err != nil {
		return fmt.Errorf("%w: %w", kms.ErrNotInitialized, err)
	}
	if err := requireDir(c.AuditDir()); err != nil {
		return fmt.Errorf("the store has no audit log beside it: %w: restore it from a backup; to go on without it, make that directory and start: you will be told how to accept the loss", err)
	}
	return nil
}

func requireDir(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a directory")}
	}
	return err
}
