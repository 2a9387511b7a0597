// Package cli holds the commands of keywright, a file for each group.
//
// A command checks its arguments, makes a client that lives as long as the
// command, calls, and writes to the streams it was given. Nothing outlives Main.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
	"github.com/keywright/keywright/cmd/keywright/internal/ui"
)

// Streams are the standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// EnvNamespace is the environment variable of the default namespace.
const EnvNamespace = "KEYWRIGHT_NAMESPACE"

const (
	defaultTimeout = 30 * time.Second
	// tidyUp is how long an interrupted command may take to remove what it left unfinished.
	tidyUp = 2 * time.Second
)

// Main runs the command line and returns the exit code. SIGINT and SIGTERM
// interrupt it; a second one ends the process at once.
func Main(args []string, streams Streams, getenv func(string) string, version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	a := &app{Streams: streams, getenv: getenv, version: version}
	code := make(chan int, 1)
	go func() { code <- a.execute(ctx, args) }()
	select {
	case c := <-code:
		return c
	case <-ctx.Done():
	}
	select { // reading standard input cannot be interrupted: do not wait for ever
	case c := <-code:
		return c
	case <-time.After(tidyUp):
		return exitInterrupted
	}
}

// app is one run of the program: its streams and global flags.
type app struct {
	Streams
	getenv    func(string) string
	version   string
	flags     client.Settings
	output    string
	namespace string
	parsed    bool // the command line was understood; errors from here on are no usage errors
}

func (a *app) execute(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.parsed {
		if _, typed := errors.AsType[*usageError](err); !typed {
			err = usagef("%s; see `%s --help`", err, command.CommandPath())
		}
	}
	if errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	_, _ = fmt.Fprintln(a.Err, "keywright:", ui.Line(err.Error())) // nowhere left to report to
	return exitCode(err)
}

func (a *app) rootCommand() *cobra.Command {
	root := a.group("keywright", "Use and manage keys of a Keywright server",
		a.statusCommand(), a.algorithmsCommand(), a.versionCommand(),
		a.namespaceCommand(), a.keyCommand(),
		a.encryptCommand(), a.decryptCommand(), a.reencryptCommand(),
		a.signCommand(), a.verifyCommand(), a.macCommand(),
		a.datakeyCommand(), a.randomCommand(),
		a.policyCommand(), a.tokenCommand(), a.whoamiCommand(), a.auditCommand(),
		exitCodesTopic(), connectionTopic())
	root.Long = "Use and manage keys of a Keywright server.\n\nKeys are named NAMESPACE/KEY, or KEY in the default namespace (--namespace or " + EnvNamespace + ")."
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "table", "what to print: table or json")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "default namespace [$"+EnvNamespace+"]")
	flags.StringVar(&a.flags.Config, "config", "", "profile file [$"+client.EnvConfig+", ~/.config/keywright/config.yaml]")
	flags.StringVar(&a.flags.Addr, "addr", "", "server's gRPC address, host:port [$"+client.EnvAddr+", "+client.DefaultAddr+"]")
	flags.StringVar(&a.flags.CAFile, "ca-file", "", "certificates that vouch for the server, PEM [$"+client.EnvCAFile+"]")
	flags.StringVar(&a.flags.CertFile, "cert-file", "", "client certificate, PEM [$"+client.EnvCertFile+"]")
	flags.StringVar(&a.flags.KeyFile, "key-file", "", "client certificate's key, PEM [$"+client.EnvKeyFile+"]")
	flags.StringVar(&a.flags.TokenFile, "token-file", "", "file that holds a token [$"+client.EnvToken+" (the token), $"+client.EnvTokenFile+"]")
	flags.BoolVar(&a.flags.Plaintext, "plaintext", false, "connect without TLS; loopback addresses only")
	flags.DurationVar(&a.flags.Timeout, "timeout", defaultTimeout, "how long each call may take; 0 is for ever")
	return root
}

// action is what a command does once it is connected.
type action func(ctx context.Context, c *client.Client, args []string) error

// run returns a cobra function that connects and does the action.
func (a *app) run(do action) func(*cobra.Command, []string) error {
	return a.local(func(ctx context.Context, args []string) error {
		settings, err := client.Resolve(a.flags, a.getenv)
		if err != nil {
			return err
		}
		c, err := client.New(settings)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // the answers are there
		return do(ctx, c, args)
	})
}

// local is run without a server.
func (a *app) local(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.parsed = true
		if a.output != "table" && a.output != "json" {
			return usagef("--output must be table or json, not %q", a.output)
		}
		if a.flags.Timeout < 0 {
			return usagef("--timeout must not be negative")
		}
		return do(cmd.Context(), args)
	}
}

func (a *app) json() bool { return a.output == "json" }

// group returns a command that only holds others.
func (a *app) group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no command %q", cmd.CommandPath()+" "+args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// arguments checks the number of arguments and answers with the usage line.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("usage: %s", cmd.UseLine())
		}
		return nil
	}
}
