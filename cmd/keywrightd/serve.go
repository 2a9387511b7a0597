package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server"
)

func newServeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve an installation that init has made",
		Long: `Serve an installation that init has made. It prints one line when it is ready.
Nothing is created: a missing store, a missing root key or another token is an
error.

SIGTERM and SIGINT let the requests under way finish, for at most
limits.drain_timeout; a second signal ends the process at once. Certificates are
read again when their files change.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, log, func(s *server.Server) error { return printReady(cmd.OutOrStdout(), s) })
		},
	}
}

// serve serves until ctx ends, and then drains. It calls ready once it listens.
func serve(ctx context.Context, c *config.Config, log *slog.Logger, ready func(*server.Server) error) error {
	relaxGC()
	metrics := server.NewMetrics()
	return withService(ctx, c, log, metrics, func(_ *stack, service *kms.Service) error {
		s, err := server.New(serverConfig(c, log, service, metrics))
		if err != nil {
			return err
		}
		if err := ready(s); err != nil {
			return err
		}
		return s.Serve(ctx)
	})
}

// gcPercent lets the heap grow fivefold between collections: it is small, and
// most of it is the short-lived data of calls. The environment variable GOGC, if
// set, wins.
const gcPercent = 400

func relaxGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

func serverConfig(c *config.Config, log *slog.Logger, service *kms.Service, metrics *server.Metrics) server.Config {
	return server.Config{
		Service:         service,
		GRPCAddress:     c.Listen.GRPC,
		RESTAddress:     c.Listen.REST,
		MetricsAddress:  c.Listen.Metrics,
		TLS:             tlsOf(c),
		Plaintext:       c.TLS.Plaintext,
		MaxMessageBytes: int(c.Limits.MaxMessageBytes),
		MaxInFlight:     c.Limits.MaxInFlight,
		CallTimeout:     time.Duration(c.Limits.CallTimeout),
		DrainTimeout:    time.Duration(c.Limits.DrainTimeout),
		Sockets:         socketsOf(c),
		Kubernetes:      kubernetesOf(c),
		Vault:           c.Vault.Of(),
		ConnectionAge:   time.Duration(c.Limits.ConnectionAge),
		Logger:          log,
		Metrics:         metrics,
		Version:         version,

		FailedAuthentications: c.Limits.FailedAuthentications,
	}
}

func socketsOf(c *config.Config) (sockets []server.Socket) {
	for _, s := range c.Listen.Unix {
		socket := server.Socket{Path: s.Path, Mode: fs.FileMode(s.Mode)}
		for _, p := range s.Peers {
			socket.Peers = append(socket.Peers, server.Peer{UID: *p.UID, Principal: p.Principal, Groups: p.Groups})
		}
		sockets = append(sockets, socket)
	}
	return sockets
}

func kubernetesOf(c *config.Config) (sockets []server.KubernetesSocket) {
	for _, s := range c.Listen.Kubernetes {
		sockets = append(sockets, s.Of())
	}
	return sockets
}

// printReady says in one line where the server listens. Connections are accepted
// from here on.
func printReady(out io.Writer, s *server.Server) error {
	vault := ""
	if address := s.VaultAddr(); address != nil {
		vault = ", vault " + address.String()
	}
	_, err := fmt.Fprintf(out, "keywrightd %s is ready: grpc %s, rest %s, metrics %s%s\n", version, s.GRPCAddr(), s.RESTAddr(), s.MetricsAddr(), vault)
	return err
}
