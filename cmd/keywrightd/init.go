package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/pki"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/audit"
	"github.com/keywright/keywright/kms/policy"
)

// errRemains means that the data directory holds parts of an installation whose
// store is gone.
var errRemains = errors.New("the data directory is not empty; nothing was changed")

// errAdmin means that nobody would be able to administer the installation.
var errAdmin = errors.New(`tls.cert_file is set, so init makes no client certificate: name the administrator with --admin, such as --admin 'User::"corp:CN=alice"', or have a token made with --bootstrap-token FILE`)

// initOptions is what the operator of init may choose.
type initOptions struct {
	devMode bool
	hosts   []string // more host names and addresses of the server
	admin   string   // Cedar principal of the administrator; "" is the local CA's
	// bootstrap is the file for a token that works once, "" for none.
	bootstrap string
}

func newInitCommand(a *app) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new installation: a root key in the token, a store, certificates",
		Long: `Make a new installation: a root key and an audit key in the token, an empty store
and audit log in data_dir, and a policy that makes one principal the administrator.

Without tls.cert_file in the configuration it also makes a CA, whose key is sealed
under the root key, and issues a certificate for the server and one for the
administrator, with a profile for the command line tool.

With --bootstrap-token it also writes a token that has an administrator's rights
for one call within an hour. Give your own principal a policy with it:
keywright policy put NAME FILE --yes --token-file FILE (without --yes the call that
looks for an older policy would be the one). It creates no tokens.

It refuses to touch an installation that exists. If it was interrupted, run it again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			return initialize(cmd.Context(), c, o, cmd.OutOrStdout(), log)
		},
	}
	cmd.Flags().BoolVar(&o.devMode, "dev", false, "allow short destruction delays for ever: for development only")
	cmd.Flags().StringArrayVar(&o.hosts, "san", nil, "a further host name or IP address of the server (repeatable)")
	cmd.Flags().StringVar(&o.admin, "admin", "", "the administrator's principal, where the local CA's is not wanted")
	cmd.Flags().StringVar(&o.bootstrap, "bootstrap-token", "", "a file to write a token to that works once, within an hour")
	return cmd
}

// initialize makes an installation, or finishes one whose certificates are not
// written yet.
func initialize(ctx context.Context, c *config.Config, o initOptions, out io.Writer, log *slog.Logger) (err error) {
	if o.admin == "" && o.bootstrap == "" && !c.LocalCA() {
		return errAdmin
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	made, err := install(ctx, c, o, out, log)
	if errors.Is(err, kms.ErrInitialized) && c.LocalCA() && len(credentialsOf(c).missing()) > 0 {
		return issueMissing(ctx, c, o, out, log)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Installation %s is ready in %s.\n", made.ID, c.DataDir)
	fmt.Fprintf(out, "Root key %s is in the token; the audit key, %s, is in the %s.\n", made.RootKeyID, made.SignerAlgorithm, made.SignerProtection)
	fmt.Fprintf(out, "The verifier key of the audit log, which is the audit key's public half; keep a copy elsewhere:\n  %s\n", made.AuditKey)
	if c.LocalCA() {
		fmt.Fprintf(out, "The administrator's profile: export KEYWRIGHT_CONFIG=%s\n", c.ProfilePath())
	}
	if o.bootstrap != "" {
		fmt.Fprintf(out, "The bootstrap token works once, until %s: %s\n", time.Now().Add(kms.BootstrapTTL).UTC().Format(time.RFC3339), o.bootstrap)
	}
	return nil
}

// install makes everything that must not be made twice: first the root key and
// the store's records, which appear at once, then the files issued from the CA.
func install(ctx context.Context, c *config.Config, o initOptions, out io.Writer, log *slog.Logger) (made kms.Installation, err error) {
	if err := requireData(c); err != nil && !errors.Is(err, kms.ErrNotInitialized) {
		return made, err
	}
	s, err := openStack(ctx, c, log, false)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		return made, err
	}
	options, err := installOptions(c, o, authority)
	if err != nil {
		return made, err
	}
	if err := s.refuseRemains(ctx, c, out); err != nil {
		return made, err
	}
	if made, err = kms.Initialize(ctx, s.config(c, log, nil), options); err != nil || !c.LocalCA() {
		return made, err
	}
	f := credentialsOf(c)
	return made, f.issue(authority, f.hosts(o.hosts), time.Now())
}

func installOptions(c *config.Config, o initOptions, authority *pki.Authority) (kms.InitOptions, error) {
	options := kms.InitOptions{DevMode: o.devMode}
	if admin := o.administrator(c); admin != "" {
		options.Policies = []policy.Policy{{
			Name: "administrators",
			Text: "permit (principal == " + admin + `, action in Action::"admin", resource);` + "\n",
		}}
	}
	if o.bootstrap != "" {
		options.BootstrapToken = func(text string) error { return pki.WriteFile(o.bootstrap, []byte(text+"\n")) }
	}
	if !c.LocalCA() {
		return options, nil
	}
	sealed, err := authority.Marshal()
	options.Secrets = map[string][]byte{secretLocalCA: sealed}
	return options, err
}

// administrator is the principal that is to administer the installation; "" where
// that is left to the bootstrap token.
func (o initOptions) administrator(c *config.Config) string {
	if o.admin == "" && c.LocalCA() {
		return adminPrincipal
	}
	return o.admin
}

// refuseRemains makes sure that an empty store is a new one, and not all that is
// left after a loss: then what else lies in the data directory is still needed.
// A store with an installation is kms.Initialize's to refuse.
func (s *stack) refuseRemains(ctx context.Context, c *config.Config, out io.Writer) error {
	page, err := s.store.List(ctx, "", "", 1)
	if err != nil || len(page.Records) > 0 {
		return err
	}
	f := credentialsOf(c)
	if missing := f.missing(); c.LocalCA() && len(missing) < len(f.paths()) {
		return fmt.Errorf("%w: %s holds certificates or a profile, but the store is empty: restore the store, or move them away", errRemains, c.DataDir)
	}
	return s.audit.Scan(ctx, audit.Filter{}, func(e audit.Entry) error {
		if e.Action != kms.EventInitializeBegin {
			return fmt.Errorf("%w: the audit log in %s is of an installation whose store is gone: restore the store, or move the log away", errRemains, c.AuditDir())
		}
		fmt.Fprintf(out, "An earlier init was interrupted. It may have left root key %s in the token; nothing uses it.\n", e.Details["root"])
		return nil
	})
}

// issueMissing issues the certificates of an installation that was interrupted before
// they were written.
func issueMissing(ctx context.Context, c *config.Config, o initOptions, out io.Writer, log *slog.Logger) error {
	err := withService(ctx, c, log, nil, func(s *stack, service *kms.Service) error {
		return credentialsOf(c).renew(ctx, s, service, o.hosts)
	})
	if err == nil {
		fmt.Fprintf(out, "The installation was there already, without all of its certificates: they were issued now, to %s.\n", c.TLSDir())
	}
	return err
}
