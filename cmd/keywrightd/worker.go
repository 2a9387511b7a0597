package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/host"
	"github.com/keywright/keywright/hsm"
	"github.com/keywright/keywright/hsm/worker"
)

// newWorkerCommand is the process in which the PKCS#11 module is loaded. The other
// commands start it; people have no use for it.
func newWorkerCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    worker.CommandName,
		Short:  "Serve the HSM to the keywrightd that started this process",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return worker.Run(a.stderr, host.Harden) },
	}
}

// openDevice opens the token: through worker processes, unless the configuration
// wants the module in this one.
func openDevice(ctx context.Context, c config.HSM, log *slog.Logger) (hsm.Service, error) {
	token := hsm.Config{
		Module:      c.Module,
		InitArgs:    c.InitArgs,
		TokenLabel:  c.TokenLabel,
		TokenSerial: c.TokenSerial,
		PIN:         pinSource(c.PIN),
		MaxSessions: c.MaxSessions,
		Timeout:     time.Duration(c.Timeout),
		Logger:      log,
	}
	if !c.InProcess {
		s, err := worker.Open(ctx, worker.Config{HSM: token, Workers: c.Workers, Env: c.Env})
		if err != nil {
			return nil, err // not a nil pointer in the interface
		}
		return s, nil
	}
	d, err := hsm.Open(ctx, token)
	if err != nil {
		return nil, err
	}
	return d, nil
}
