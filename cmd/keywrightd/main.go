// Command keywrightd is the Keywright server: it reads the configuration, opens
// the store, the audit log and the HSM, and wires them to kms and its transports.
// It does nothing else.
//
// One process serves one data directory. It ends with the first SIGTERM or
// SIGINT, after the requests under way; a second one ends it at once.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/host"
)

// version is set by the linker.
var version = "unreleased"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	a := &app{stderr: stderr}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, stop := untilSignal(context.Background(), stderr)
	defer stop()
	understood := false
	root.PersistentPreRun = func(*cobra.Command, []string) { understood = true }
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case !understood:
		fmt.Fprintf(stderr, "keywrightd: %v: keywrightd --help shows the usage\n", err)
		return exitUsage
	}
	return report(stderr, err)
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "keywrightd",
		Short:         "The Keywright server: HSM-backed key management and encryption",
		Long:          "The Keywright server: HSM-backed key management and encryption.\n\n" + exitCodesHelp(),
		Args:          cobra.NoArgs,
		RunE:          showHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().StringVar(&a.configPath, "config", config.DefaultPath, "the configuration file")
	root.AddCommand(newInitCommand(a), newServeCommand(a), newDevCommand(a), newCheckConfigCommand(a),
		newCertificatesCommand(a), newCompactStoreCommand(a), newVerifyStoreCommand(a), newAcceptRollbackCommand(a), newAuditKeyCommand(a), newHSMCommand(a), newWorkerCommand(a), newVersionCommand())
	return root
}

// showHelp is what a command does that only has others below it; cobra checks the
// arguments of commands that do something, and of no others.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// app is what all commands share.
type app struct {
	configPath string
	stderr     io.Writer
}

// prepare hardens the process, reads the configuration and makes the logger.
func (a *app) prepare() (*config.Config, *slog.Logger, error) {
	c, err := config.Load(a.configPath)
	if err != nil {
		return nil, nil, err
	}
	log := newLogger(c.Log, a.stderr)
	return c, log, host.Harden(log)
}

func newLogger(c config.Log, w io.Writer) *slog.Logger {
	level, _ := c.SlogLevel() // the configuration was checked
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// untilSignal returns a context that ends with the first SIGTERM or SIGINT. The
// second one ends the process: acknowledged work is durable at any time.
func untilSignal(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		cancel()
		<-signals
		fmt.Fprintln(stderr, "keywrightd: ended at once by a second signal")
		os.Exit(exitInterrupted)
	}()
	return ctx, cancel
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "keywrightd", version) },
	}
}
