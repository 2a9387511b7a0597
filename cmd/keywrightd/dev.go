package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/host"
	"github.com/keywright/keywright/hsm/worker"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/server"
	"github.com/keywright/keywright/softhsm"
)

// devTokenLabel is the label of the SoftHSM2 token that dev makes.
const devTokenLabel = "keywright-dev"

// devOptions is what the developer may choose.
type devOptions struct {
	dir      string
	portBase int
	vault    string
	logLevel string
}

func newDevCommand(a *app) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Make a SoftHSM2 token and an installation in a directory, and serve it on loopback",
		Long: `Make a SoftHSM2 token and an installation in a directory, unless they are there
already, and serve it on loopback. For development only: the root key is in files,
and destruction delays may be short. It reads no configuration file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return dev(cmd.Context(), o, cmd.OutOrStdout(), a.stderr)
		},
	}
	cmd.Flags().StringVar(&o.dir, "dir", ".keywright", "where everything is kept")
	cmd.Flags().IntVar(&o.portBase, "port-base", 7700, "ports: this one for gRPC, the next for REST, the one after for metrics; 0 takes free ones")
	cmd.Flags().StringVar(&o.vault, "vault", "", "also serve the API of Vault and OpenBao, on this address, such as "+config.DefaultVaultAddress)
	cmd.Flags().StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func dev(ctx context.Context, o devOptions, out, stderr io.Writer) error {
	c, err := o.config()
	if err != nil {
		return err
	}
	log := newLogger(c.Log, stderr)
	if err := host.Harden(log); err != nil {
		return err
	}
	token, err := softhsm.Provision(ctx, filepath.Join(c.DataDir, "token"), devTokenLabel, worker.InitToken)
	if err != nil {
		return err
	}
	c.HSM.Module, c.HSM.TokenLabel, c.HSM.PIN.File = token.Module, token.Label, token.PINFile
	if err := prepareDev(ctx, c, out, log); err != nil {
		return err
	}
	return serve(ctx, c, log, func(s *server.Server) error {
		f := credentialsOf(c)
		f.grpcAddress = s.GRPCAddr().String() // the ports may differ from the last time
		if err := f.writeProfile(); err != nil {
			return err
		}
		printTour(out, f)
		return printReady(out, s)
	})
}

// config is the configuration that dev uses in place of a file.
func (o devOptions) config() (*config.Config, error) {
	if o.portBase < 0 || o.portBase > 65533 {
		return nil, &config.Invalid{Problems: []string{fmt.Sprintf("--port-base is %d: want 0 to 65533", o.portBase)}}
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return nil, fmt.Errorf("--dir: %w", err)
	}
	c := config.Default()
	c.DataDir = dir
	c.Log.Level = o.logLevel
	if _, ok := c.Log.SlogLevel(); !ok {
		return nil, &config.Invalid{Problems: []string{fmt.Sprintf("--log-level is %q: want debug, info, warn or error", o.logLevel)}}
	}
	if o.vault != "" {
		host, _, err := net.SplitHostPort(o.vault)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return nil, &config.Invalid{Problems: []string{fmt.Sprintf("--vault is %q: want a loopback address and a port, such as %s", o.vault, config.DefaultVaultAddress)}}
		}
		c.Vault = &config.Vault{Address: o.vault}
	}
	for offset, address := range []*string{&c.Listen.GRPC, &c.Listen.REST, &c.Listen.Metrics} {
		port := 0
		if o.portBase > 0 {
			port = o.portBase + offset
		}
		*address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	return &c, nil
}

// prepareDev makes the installation if there is none, and sees to it that its
// certificates are good for some time.
func prepareDev(ctx context.Context, c *config.Config, out io.Writer, log *slog.Logger) error {
	if err := requireData(c); errors.Is(err, kms.ErrNotInitialized) || len(credentialsOf(c).missing()) > 0 {
		return initialize(ctx, c, initOptions{devMode: true}, out, log)
	}
	f := credentialsOf(c)
	if !f.due(time.Now()) {
		return nil
	}
	return withService(ctx, c, log, nil, func(s *stack, service *kms.Service) error {
		return f.renew(ctx, s, service, nil)
	})
}

// printTour prints lines to paste into another terminal.
func printTour(out io.Writer, f credentials) {
	path := ""
	if program, err := os.Executable(); err == nil {
		path = " PATH=" + filepath.Dir(program) + ":$PATH"
	}
	fmt.Fprintf(out, `
Paste into another terminal, to begin with:

  export KEYWRIGHT_CONFIG=%s%s
  keywright status
  keywright namespace create demo
  keywright key create demo/first
  echo 'permit (principal == %s, action in [Action::"encrypter", Action::"decrypter"], resource in Namespace::"demo");' | keywright policy put demo/tour
  echo 'attack at dawn' | keywright encrypt demo/first --base64 | keywright decrypt demo/first --base64

`, f.profile, path, adminPrincipal)
}
