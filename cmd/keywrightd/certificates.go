package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright/cmd/keywrightd/internal/config"
	"github.com/keywright/keywright/cmd/keywrightd/internal/pki"
	"github.com/keywright/keywright/kms"
	"github.com/keywright/keywright/kms/policy"
)

func newCertificatesCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certificates",
		Short: "Manage the certificates of the local CA",
		Args:  cobra.NoArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newRenewCommand(a), newIssueCommand(a))
	return cmd
}

func newRenewCommand(a *app) *cobra.Command {
	var hosts []string
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Issue the server's and the administrator's certificates anew, while the server is stopped",
		Long: `Issue the server's and the administrator's certificates anew from the CA that
init made, and write the profile again. The server must be stopped. This also
helps when the administrator's certificate expired or was lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			err = withService(cmd.Context(), c, log, nil, func(s *stack, service *kms.Service) error {
				return credentialsOf(c).renew(cmd.Context(), s, service, hosts)
			})
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "Certificates were issued to %s.\n", c.TLSDir())
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&hosts, "san", nil, "a further host name or IP address of the server (repeatable)")
	return cmd
}

// issueOptions is a client certificate that the operator wants.
type issueOptions struct {
	spiffe string
	dir    string
	days   int
}

// clientName is the form of a client's name, which also names its files.
var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// errIssue means that a certificate was asked for that cannot be issued.
var errIssue = errors.New("no certificate was issued")

func newIssueCommand(a *app) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use:   "issue NAME --out DIR",
		Short: "Issue a client's certificate, while the server is stopped",
		Long: `Issue a client's certificate from the CA that init made, and write it, its key
and the CA's certificate to a directory: NAME.pem, NAME-key.pem and ca.pem. The
principal is User::"local:CN=NAME" or, with --spiffe, Workload::"local:URI"; which
one is printed. It may do nothing until a policy says so. The server must be
stopped.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, log, err := a.prepare()
			if err != nil {
				return err
			}
			client, err := o.client(args[0])
			if err != nil {
				return err
			}
			err = withService(cmd.Context(), c, log, nil, func(s *stack, service *kms.Service) error {
				return o.issue(cmd.Context(), s, service, client)
			})
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "A certificate for %s was issued to %s.\n", principalOf(client), o.dir)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&o.spiffe, "spiffe", "", "a SPIFFE id that it carries, such as spiffe://example.org/billing")
	cmd.Flags().StringVar(&o.dir, "out", "", "the directory to write to; made if it is not there")
	cmd.Flags().IntVar(&o.days, "days", 365, "how many days it is valid, 1 to 365")
	return cmd
}

func (o issueOptions) client(name string) (pki.Client, error) {
	c := pki.Client{Name: name, Validity: time.Duration(o.days) * 24 * time.Hour}
	switch {
	case !clientName.MatchString(name):
		return c, fmt.Errorf("%w: the name %q must have 1 to 63 letters, digits, '.', '_' and '-'", errIssue, name)
	case o.dir == "":
		return c, fmt.Errorf("%w: name the directory to write to with --out", errIssue)
	case o.days < 1 || c.Validity > pki.LeafValidity:
		return c, fmt.Errorf("%w: --days is %d: want 1 to %d", errIssue, o.days, pki.LeafValidity/(24*time.Hour))
	case o.spiffe == "":
		return c, nil
	}
	id, err := pki.ParseSPIFFE(o.spiffe)
	if err != nil {
		return c, fmt.Errorf("%w: --spiffe: %w", errIssue, err)
	}
	c.SPIFFE = id
	return c, nil
}

// principalOf is what the server makes of the client's certificate.
func principalOf(c pki.Client) string {
	caller := policy.Caller{Type: policy.User, ID: config.LocalBundle + ":CN=" + c.Name}
	if c.SPIFFE != nil {
		caller = policy.Caller{Type: policy.Workload, ID: config.LocalBundle + ":" + c.SPIFFE.String()}
	}
	return caller.Principal()
}

// issue replaces no file.
func (o issueOptions) issue(ctx context.Context, s *stack, service *kms.Service, client pki.Client) error {
	certificate, key := filepath.Join(o.dir, client.Name+".pem"), filepath.Join(o.dir, client.Name+"-key.pem")
	for _, path := range []string{certificate, key} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is there already: move it away, or choose another directory", errIssue, path)
		}
	}
	authority, err := localCA(ctx, service)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", errIssue, err)
	}
	if err := s.auditIssue(map[string]string{"client": principalOf(client), "days": strconv.Itoa(o.days)}); err != nil {
		return err
	}
	pair, err := authority.IssueClient(client, time.Now())
	if err != nil {
		return err
	}
	return errors.Join(pair.Write(certificate, key), pki.WriteFile(filepath.Join(o.dir, "ca.pem"), authority.CertificatePEM()))
}
