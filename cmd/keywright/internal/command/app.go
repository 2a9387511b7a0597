// Package command is what all commands of keywright stand on: the streams and
// global flags of a run, how a command connects and asks, its errors and exit codes.
//
// Nothing outlives the run; an App belongs to one goroutine.
package command

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keywright/keywright/cmd/keywright/internal/client"
)

// EnvNamespace is the environment variable of the default namespace.
const EnvNamespace = "KEYWRIGHT_NAMESPACE"

const defaultTimeout = 30 * time.Second

// App is one run of the program: its streams and global flags.
type App struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Version  string // of the program

	// Namespace is what --namespace says; KeyName and NamespaceArgument know the
	// environment too.
	Namespace string
	// Parsed tells that the command line was understood: errors from here on are
	// no usage errors unless they say so.
	Parsed bool

	output     string
	connection client.Settings
}

// AddFlags adds the global flags.
func (a *App) AddFlags(flags *pflag.FlagSet) {
	c := &a.connection
	flags.StringVarP(&a.output, "output", "o", "table", "what to print: table or json")
	flags.StringVarP(&a.Namespace, "namespace", "n", "", "default namespace [$"+EnvNamespace+"]")
	flags.StringVar(&c.Config, "config", "", "profile file [$"+client.EnvConfig+", ~/.config/keywright/config.yaml]")
	flags.StringVar(&c.Addr, "addr", "", "server's gRPC address, host:port or unix:PATH [$"+client.EnvAddr+", "+client.DefaultAddr+"]")
	flags.StringVar(&c.CAFile, "ca-file", "", "certificates that vouch for the server, PEM [$"+client.EnvCAFile+"]")
	flags.StringVar(&c.CertFile, "cert-file", "", "client certificate, PEM [$"+client.EnvCertFile+"]")
	flags.StringVar(&c.KeyFile, "key-file", "", "client certificate's key, PEM [$"+client.EnvKeyFile+"]")
	flags.StringVar(&c.TokenFile, "token-file", "", "file that holds a token [$"+client.EnvToken+" (the token), $"+client.EnvTokenFile+"]")
	flags.BoolVar(&c.Plaintext, "plaintext", false, "connect without TLS; loopback addresses only")
	flags.DurationVar(&c.Timeout, "timeout", defaultTimeout, "how long each call may take; 0 is for ever")
}

// JSON reports whether to print JSON.
func (a *App) JSON() bool { return a.output == "json" }

// Action is what a command does once it is connected.
type Action func(ctx context.Context, c *client.Client, args []string) error

// RunE is the type of cobra's functions.
type RunE func(*cobra.Command, []string) error

// Run returns a function that connects and does the action.
func (a *App) Run(do Action) RunE {
	return a.Local(func(ctx context.Context, args []string) error {
		c, err := a.Connect()
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // the answers are there
		return do(ctx, c, args)
	})
}

// Connect makes a client as the flags, the environment and the profile say now. Most
// commands have Run do it.
func (a *App) Connect() (*client.Client, error) {
	settings, err := client.Resolve(a.connection, a.Getenv)
	if err != nil {
		return nil, err
	}
	return client.New(settings)
}

// KeyAction is an action on the key that the first argument names.
type KeyAction func(ctx context.Context, c *client.Client, namespace, key string) error

// RunKey is Run for a KeyAction.
func (a *App) RunKey(do KeyAction) RunE {
	return a.Run(func(ctx context.Context, c *client.Client, args []string) error {
		namespace, key, err := a.KeyName(args[0])
		if err != nil {
			return err
		}
		return do(ctx, c, namespace, key)
	})
}

// Local is Run without a server.
func (a *App) Local(do func(ctx context.Context, args []string) error) RunE {
	return func(cmd *cobra.Command, args []string) error {
		a.Parsed = true
		if a.output != "table" && a.output != "json" {
			return Usagef("--output must be table or json, not %q", a.output)
		}
		if a.connection.Timeout < 0 {
			return Usagef("--timeout must not be negative")
		}
		return do(cmd.Context(), args)
	}
}

// Group returns a command that only holds others.
func (a *App) Group(use, short string, commands ...*cobra.Command) *cobra.Command {
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

// Arguments checks the number of arguments and answers with the usage line.
func Arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

// AddVersion adds --version, a key version.
func AddVersion(cmd *cobra.Command, version *uint32, what string) {
	cmd.Flags().Uint32Var(version, "version", 0, what)
}
