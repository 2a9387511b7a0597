// Package cli is the program keywright: its root command and how a run ends.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/command"
	"github.com/keywright/keywright/cmd/keywright/internal/data"
	"github.com/keywright/keywright/cmd/keywright/internal/kube"
	"github.com/keywright/keywright/cmd/keywright/internal/manage"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
	"github.com/keywright/keywright/cmd/keywright/internal/vault"
)

// tidyUp is how long an interrupted command may take to remove what it left unfinished.
const tidyUp = 2 * time.Second

// Main runs the command line and returns the exit code. SIGINT and SIGTERM
// interrupt it; a second one ends the process at once.
func Main(app *command.App, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	code := make(chan int, 1)
	go func() { code <- execute(ctx, app, args) }()
	select {
	case c := <-code:
		return c
	case <-ctx.Done():
	}
	select { // reading standard input cannot be interrupted: do not wait for ever
	case c := <-code:
		return c
	case <-time.After(tidyUp):
		return command.ExitInterrupted
	}
}

func execute(ctx context.Context, app *command.App, args []string) int {
	root := rootCommand(app)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return command.ExitOK
	}
	switch {
	case !app.Parsed:
		err = command.Usagef("%s; see `%s --help`", err, cmd.CommandPath())
	case errors.Is(err, context.Canceled):
		err = command.ErrInterrupted
	}
	_, _ = fmt.Fprintln(app.Err, "keywright:", ui.Line(err.Error())) // nowhere left to report to
	return command.ExitCode(err)
}

func rootCommand(app *command.App) *cobra.Command {
	root := app.Group("keywright", "Use and manage keys of a Keywright server", manage.Commands(app)...)
	root.AddCommand(data.Commands(app)...)
	root.AddCommand(kube.Commands(app)...)
	root.AddCommand(vault.Commands(app)...)
	root.AddCommand(versionCommand(app), exitCodesTopic(), connectionTopic())
	root.Long = "Use and manage keys of a Keywright server.\n\nKeys are named NAMESPACE/KEY, or KEY in the default namespace (--namespace or " + command.EnvNamespace + ")."
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(app.In)
	root.SetOut(app.Out)
	root.SetErr(app.Err)
	app.AddFlags(root.PersistentFlags())
	return root
}

func versionCommand(app *command.App) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version of this program", Args: command.Arguments(0, 0),
		RunE: app.Local(func(context.Context, []string) error {
			if app.JSON() {
				return ui.ValueJSON(app.Out, map[string]string{"version": app.Version})
			}
			_, err := fmt.Fprintln(app.Out, "keywright", app.Version)
			return err
		})}
}
